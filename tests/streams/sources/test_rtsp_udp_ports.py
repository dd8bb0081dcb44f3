"""One track's UDP ports, with a socket in the camera's place."""

import asyncio
import contextlib
import socket
import struct

import pytest
from support.rtsp_cameras import ClipProducer, Collector, rtsp_source

from streams import port_pair
from streams.errors import LimitExceededError
from streams.media import Codec
from streams.simulator.camera import SimulatedCamera, serve_cameras
from streams.sources import rtsp_udp
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp_udp import UdpTrack
from streams.wire.rtcp import SenderReport, parse_sender_report, serialize_sender_report
from streams.wire.rtp import RtpPacket, serialize_rtp


def packet(number):
    return serialize_rtp(RtpPacket(96, False, number, 0, 7, b"x"))


class Camera:
    """RTP and RTCP sockets that send to a track, and what the track made of it."""

    def __init__(self):
        self.sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2)]
        for own in self.sockets:
            own.bind(("127.0.0.1", 0))
            own.setblocking(False)
        self.ports = tuple(own.getsockname()[1] for own in self.sockets)
        self.received = asyncio.Queue(100)
        self.failed = asyncio.get_running_loop().create_future()

    def send(self, data, track):
        self.sockets[0].sendto(data, ("127.0.0.1", track.rtp_port))

    async def heard(self, which):
        return await asyncio.get_running_loop().sock_recv(self.sockets[which], 2048)


@contextlib.asynccontextmanager
async def open_track(max_bit_rate_bps=100_000_000):
    camera = Camera()
    track = UdpTrack("127.0.0.1", 90_000, BitRateLimit(max_bit_rate_bps), camera.failed.set_result)
    track.take_packet = lambda packet, _received_ns: camera.received.put_nowait(packet.sequence_number)
    track.take_control = parse_sender_report
    await track.open("127.0.0.1")
    try:
        async with asyncio.timeout(20):
            yield camera, track
    finally:
        track.close()
        for own in camera.sockets:
            own.close()


async def test_the_ports_are_a_pair_and_open_the_way_through_firewalls():
    async with open_track() as (camera, track):
        assert track.rtp_port % 2 == 0
        track.start(camera.ports)
        assert len(await camera.heard(0)) == 12


async def test_a_gap_is_waited_for_and_then_given_up():
    async with open_track() as (camera, track):
        for number in (1, 2, 4):
            camera.send(packet(number), track)
        assert [await camera.received.get() for _ in range(3)] == [1, 2, 4]


async def test_the_camera_hears_how_its_packets_arrive(monkeypatch):
    monkeypatch.setattr(rtsp_udp, "REPORT_SECONDS", 0.02)
    async with open_track() as (camera, track):
        camera.send(b"no packet", track)
        camera.send(packet(1), track)
        camera.send(packet(3), track)
        await camera.received.get()
        sent = SenderReport(ssrc=7, ntp_timestamp=5 << 16, rtp_timestamp=0, packet_count=0, octet_count=0)
        camera.sockets[1].sendto(serialize_sender_report(sent), ("127.0.0.1", track.rtp_port + 1))
        track.start(camera.ports)
        while True:
            kind, reported, loss, highest, last = struct.unpack(">xB6xIII4xI4x", await camera.heard(1))
            if last == 5 and highest == 3:
                break
        assert (kind, reported, loss & 0xFFFFFF) == (201, 7, 1)


async def test_a_flood_of_datagrams_is_reported():
    async with open_track(max_bit_rate_bps=8_000) as (camera, track):
        camera.send(packet(1), track)
        camera.send(packet(2), track)
        assert isinstance(await camera.failed, LimitExceededError)


async def test_a_bug_behind_the_ports_escapes():
    class Broken(Collector):
        def publish(self, unit):
            raise ZeroDivisionError

    camera = SimulatedCamera(name="gate", producer=ClipProducer(Codec.H264))
    async with serve_cameras([camera]) as server, asyncio.timeout(20):
        with pytest.raises(ZeroDivisionError):
            await rtsp_source(server.url("gate").replace("rtsp:", "rtsp+udp:")).run(Broken())


async def test_no_pair_of_ports_is_free(monkeypatch):
    monkeypatch.setattr(port_pair, "_ATTEMPTS", 0)
    track = UdpTrack("127.0.0.1", 90_000, BitRateLimit(8000), lambda _error: None)
    with pytest.raises(rtsp_udp.SourceUnreachableError):
        await track.open("127.0.0.1")
