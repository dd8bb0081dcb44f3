"""RTSP cameras that send over UDP, or sound beside their pictures, as their client meets them."""

import asyncio
import itertools
import socket
from pathlib import Path

import pytest
from support.rtsp_cameras import ClipProducer, Collector, failure_of, pull, rtsp_source

from streams.errors import LimitExceededError, UnsupportedError
from streams.media import AudioCodec, Codec
from streams.simulator.camera import Disturbance, Faults, SimulatedCamera, serve_cameras
from streams.simulator.sound import ToneProducer

H264 = ClipProducer(Codec.H264)
LIVE = ClipProducer(Codec.H264, interval_seconds=0.04)
SMALL = ClipProducer(Codec.H264, width=160, height=120)


def camera(**options):
    return SimulatedCamera(**({"name": "gate", "producer": H264} | options))


def udp_url(server, name="gate"):
    return server.url(name).replace("rtsp:", "rtsp+udp:")


@pytest.mark.parametrize("codec", Codec)
async def test_pictures_over_udp_are_those_that_the_camera_sends(codec):
    producer = ClipProducer(codec)
    async with serve_cameras([camera(producer=producer)]) as server:
        collector = await pull(udp_url(server), 60)
        assert server.requests["SETUP"] == 1
    assert collector.tracks == [producer.track]
    assert [unit.nal_units for unit in collector.units[:60]] == [
        unit.nal_units for unit in producer.units * 2
    ][:60]


@pytest.mark.parametrize("scheme", ["rtsp:", "rtsp+udp:", "RTSP+UDP:"])
async def test_a_camera_that_knows_one_way_is_asked_for_it(scheme):
    options = {"refuses_tcp": True} if scheme == "rtsp:" else {"refuses_udp": True}
    async with serve_cameras([camera(**options)]) as server:
        await pull(server.url("gate").replace("rtsp:", scheme), 3)
        assert server.requests["SETUP"] == 2


async def test_a_camera_that_knows_no_way_is_not_supported():
    async with serve_cameras([camera(refuses_tcp=True, refuses_udp=True)]) as server:
        assert isinstance(await failure_of(server.url("gate")), UnsupportedError)
        assert server.requests["SETUP"] == 2


async def test_datagrams_that_overtake_each_other_are_put_in_order():
    async with serve_cameras([camera(producer=SMALL, faults=Faults(swaps_every=2))]) as server:
        source = rtsp_source(udp_url(server))
        collector = Collector()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run(collector))
            await collector.reached(40)
            run.cancel()
    assert source.lost_packets == 0
    assert [u.nal_units for u in collector.units[:40]] == [u.nal_units for u in SMALL.units][:40]


async def test_lost_datagrams_are_counted_and_the_next_keyframe_is_waited_for():
    async with serve_cameras([camera(faults=Faults(drops_every=40))]) as server:
        source = rtsp_source(udp_url(server))
        collector = Collector()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run(collector))
            await collector.reached(60)
            run.cancel()
    assert source.lost_packets >= 2
    sent = {unit.nal_units for unit in H264.units}
    assert all(unit.nal_units in sent for unit in collector.units)
    for before, after in itertools.pairwise(collector.units):
        assert after.dts - before.dts == 3600 or after.is_random_access


async def test_datagrams_from_elsewhere_count_nothing():
    async with serve_cameras([camera()]) as server:
        source = rtsp_source(udp_url(server))
        collector = Collector()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run(collector))
            await collector.reached(5)
            ports = udp_ports_of_this_process()
            assert len(ports) >= 2
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                stranger.bind(("127.0.0.2", 0))
                for port in ports:
                    stranger.sendto(b"\x80\xe0" + bytes(40), ("127.0.0.1", port))
            await collector.reached(60)
            run.cancel()
    assert source.lost_packets == 0
    assert collector.units[0].is_random_access
    assert all(after.dts - before.dts == 3600 for before, after in itertools.pairwise(collector.units))


def udp_ports_of_this_process():
    own = {str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.is_symlink()}
    rows = [line.split() for line in Path("/proc/self/net/udp").read_text().splitlines()[1:]]
    return [int(row[1].split(":")[1], 16) for row in rows if f"socket:[{row[9]}]" in own]


@pytest.mark.parametrize("codec", AudioCodec)
@pytest.mark.parametrize("scheme", ["rtsp:", "rtsp+udp:"])
async def test_sound_comes_with_the_pictures_and_on_their_time_line(codec, scheme):
    tone = ToneProducer(codec)
    async with serve_cameras([camera(producer=LIVE, sound=tone)]) as server:
        collector = await pull(server.url("gate").replace("rtsp:", scheme), 10, sounds=8)
    (track,) = collector.tracks
    assert track.audio == tone.track
    sent = set(tone._units)
    assert all(unit.data in sent for unit in collector.sounds)
    steps = [after.pts - before.pts for before, after in itertools.pairwise(collector.sounds[2:])]
    unit_ticks = 1024 * 90000 // 16000 if codec is AudioCodec.AAC else 160 * 90000 // 8000
    assert all(abs(step - unit_ticks) <= 6 for step in steps)
    assert abs(collector.sounds[-1].pts - collector.units[-1].pts) < 90_000


async def test_sound_that_is_refused_does_not_hold_the_pictures():
    tone = ToneProducer(AudioCodec.PCMA)
    async with serve_cameras([camera(sound=tone, faults=Faults(refuses_sound=True))]) as server:
        collector = await pull(server.url("gate"), 3)
        assert server.requests["SETUP"] == 2
    assert collector.tracks == [H264.track]


async def test_the_second_stream_of_a_camera():
    async with serve_cameras([camera(sub=SMALL)]) as server:
        main = await pull(server.url("gate"), 2)
        sub = await pull(server.url("gate/sub"), 2)
    assert (main.tracks[0].width, sub.tracks[0].width) == (320, 160)


@pytest.mark.parametrize("scheme", ["rtsp:", "rtsp+udp:"])
async def test_a_flood_ends_the_run_with_a_reason(scheme):
    faults = Faults(disturbance=Disturbance.FLOOD, after_packets=5)
    async with serve_cameras([camera(faults=faults)]) as server:
        url = server.url("gate").replace("rtsp:", scheme)
        failure = await failure_of(url, max_bit_rate_bps=20_000_000)
    assert type(failure) is LimitExceededError
    assert failure.code == "limit_exceeded"


async def test_another_camera_goes_on_while_one_floods():
    faults = Faults(disturbance=Disturbance.FLOOD, after_packets=5)
    cameras = [camera(), camera(name="other", faults=faults)]
    async with serve_cameras(cameras) as server, asyncio.TaskGroup() as tasks:
        flood = tasks.create_task(failure_of(server.url("other")))
        collector = await pull(server.url("gate"), 100)
        assert type(await flood) is LimitExceededError
    assert all(after.dts - before.dts == 3600 for before, after in itertools.pairwise(collector.units))


async def test_timestamps_that_jump_are_a_discontinuity():
    faults = Faults(disturbance=Disturbance.JUMP, after_packets=20)
    async with serve_cameras([camera(producer=SMALL, faults=faults)]) as server:
        collector = await pull(server.url("gate"), 60)
    jumps = [unit for unit in collector.units if unit.discontinuity]
    assert len(jumps) == 1
    assert [u.nal_units for u in collector.units[:50]] == [u.nal_units for u in SMALL.units][:50]


async def test_a_new_source_is_followed_from_its_next_keyframe():
    faults = Faults(disturbance=Disturbance.NEW_SOURCE, after_packets=20)
    async with serve_cameras([camera(producer=SMALL, faults=faults)]) as server:
        collector = await pull(server.url("gate"), 60)
    (change,) = [index for index, unit in enumerate(collector.units) if unit.discontinuity]
    assert collector.units[change].is_random_access


async def test_missing_markers_cost_one_picture_of_delay_and_nothing_else():
    async with serve_cameras([camera(faults=Faults(marks_pictures=False))]) as server:
        collector = await pull(server.url("gate"), 50)
    assert [u.nal_units for u in collector.units[:50]] == [u.nal_units for u in H264.units]


async def test_a_frozen_picture_is_published_as_it_comes():
    faults = Faults(disturbance=Disturbance.FREEZE, after_packets=20)
    async with serve_cameras([camera(producer=SMALL, faults=faults)]) as server:
        collector = await pull(server.url("gate"), 60)
    assert len({unit.nal_units for unit in collector.units[-20:]}) == 1
    assert all(unit.is_random_access for unit in collector.units[-20:])
