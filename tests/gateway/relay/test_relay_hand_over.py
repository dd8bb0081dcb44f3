"""Streams between workers: two real ones on one link, and the server's end alone."""

import asyncio
import contextlib
import stat

import aiohttp
import pytest
from support.clip_source import ClipSource
from support.relay_worker import running_relay
from support.units import encode_clip, synthetic_unit

from gateway.messages import Claimed, Hello, Refused, Release, StreamMoved
from gateway.relay.claims import Claims
from gateway.relay.control_link import ControlUnavailableError, RefusedError
from gateway.relay.link_server import MAX_BACKLOG_BYTES, STUCK_NS, LinkServer, _Link
from gateway.relay.settings import link_socket
from streams.errors import SourceUnreachableError
from streams.media import Codec
from streams.sources.link import LinkParser, StreamEnd, serialize
from streams.sources.peer import PeerSource
from streams.sources.source import CameraAddress

CAMERA = "camera-1"


class CountedSource(ClipSource):
    """A clip that counts how often any was opened."""

    def __init__(self, opened):
        super().__init__()
        opened.append(self)


class Recorder:
    def __init__(self):
        self.units = []
        self.arrived = asyncio.Event()

    def configure(self, track): ...

    def publish(self, unit):
        self.units.append(unit)
        self.arrived.set()

    def publish_audio(self, unit): ...


@contextlib.asynccontextmanager
async def two_relays(folder):
    """Worker 0 pulls the camera; worker 1 is told so. The sources that each of them opened."""
    opened = [], []
    folders = [folder / "zero", folder / "one"]
    for each in folders:
        each.mkdir()
    link_socket(folders[1], 0).symlink_to(link_socket(folders[0], 0))
    async with (
        running_relay(folders[0], source=lambda: CountedSource(opened[0])) as zero,
        running_relay(folders[1], source=lambda: CountedSource(opened[1]), worker=1) as one,
    ):
        one.control.peers[CAMERA] = 0
        yield zero, one, opened


async def test_two_workers_show_one_upstream_and_the_other_goes_on_alone(tmp_path):
    async with two_relays(tmp_path) as (zero, one, opened), aiohttp.ClientSession() as client:
        first = zero.media(zero.control.ticket(1), "live.flv")
        second = one.media(one.control.ticket(2), "live.flv")
        async with client.get(first) as here, client.get(second) as there:
            assert (here.status, there.status) == (200, 200)
            await there.content.readexactly(20_000)
            assert (len(opened[0]), len(opened[1])) == (1, 0)
            zero.worker.stop()
            await zero.stopped
            del one.control.peers[CAMERA]
            one.control.send(StreamMoved(stream=CAMERA))
            await there.content.readexactly(20_000)
            assert (len(opened[0]), len(opened[1])) == (1, 1)


async def test_a_worker_holds_the_stream_as_long_as_another_wants_it(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        recorder = Recorder()
        async with asyncio.TaskGroup() as tasks:
            async with client.get(relay.media(relay.control.ticket(1), "live.flv")) as answer:
                await answer.content.readexactly(3)
                taking = tasks.create_task(PeerSource(link_socket(tmp_path, 0), CAMERA).run(recorder))
                await recorder.arrived.wait()
            await relay.control.over(f"{1:032x}")
            count = len(recorder.units)
            while len(recorder.units) < count + 20:
                recorder.arrived.clear()
                await recorder.arrived.wait()
            taking.cancel()


async def test_what_is_not_claimed_here_is_not_handed_on(tmp_path):
    async with two_relays(tmp_path) as (_, one, __), aiohttp.ClientSession() as client:
        path = link_socket(tmp_path / "one", 1)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        for stream in ("nobody-s", CAMERA):
            with pytest.raises(SourceUnreachableError, match="not_claimed"):
                await PeerSource(path, stream).run(Recorder())
        async with client.get(one.media(one.control.ticket(1), "live.flv")) as answer:
            assert answer.status == 504  # worker 0 has not claimed it either: no chain, no loop


@pytest.mark.parametrize("data", [b"\xff" * 8, b"\0\0\0\1\xc1", serialize(StreamEnd(code="x", detail=""))])
async def test_what_is_no_request_costs_its_connection(tmp_path, data):
    async with running_relay(tmp_path):
        reader, writer = await asyncio.open_unix_connection(link_socket(tmp_path, 0))
        writer.write(data)
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_claim_that_is_lost_ends_what_was_handed_on(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        async with client.get(relay.media(relay.control.ticket(1), "live.flv")) as answer:
            await answer.content.readexactly(3)
            recorder = Recorder()

            async def take():
                with pytest.raises(SourceUnreachableError):
                    await PeerSource(link_socket(tmp_path, 0), CAMERA).run(recorder)

            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(take())
                await recorder.arrived.wait()
                relay.control.peers[CAMERA] = 5
                relay.control.send(StreamMoved(stream=CAMERA))
            relay.control.received.clear()
            relay.control.disconnect()
            assert (await relay.control.wait_for(Hello)).streams == {}


class FakeTransport:
    def __init__(self):
        self.written = []
        self.backlog = 0
        self.aborted = False

    def write(self, data):
        self.written.append(data)

    def get_write_buffer_size(self):
        return self.backlog

    def is_closing(self):
        return False

    def close(self): ...

    def abort(self):
        self.aborted = True


def link_of(transport):
    link = _Link(LinkServer(None, None))
    link.connection_made(transport)
    link.configure(encode_clip(Codec.H264, 1)[0])
    return link


def sent(transport):
    messages = LinkParser().receive_data(b"".join(transport.written))
    return [message.dts for message in messages[1:]]


def units(*kinds, second=0):
    return [
        synthetic_unit(number, random_access=kind == "I", received_ns=second * 1_000_000_000)
        for number, kind in enumerate(kinds)
    ]


def test_a_worker_that_does_not_read_skips_to_a_random_access_point():
    transport = FakeTransport()
    link = link_of(transport)
    all_units = units(*"IPPIPIP")
    for number, unit in enumerate(all_units):
        transport.backlog = {1: MAX_BACKLOG_BYTES, 2: MAX_BACKLOG_BYTES + 1}.get(number, transport.backlog)
        if number == 4:
            transport.backlog = MAX_BACKLOG_BYTES // 2
        link.publish(unit)
    expected = [all_units[number].dts for number in (0, 1, 5, 6)]
    assert sent(transport) == expected
    assert not transport.aborted


def test_a_worker_that_stays_behind_loses_its_connection():
    transport = FakeTransport()
    link = link_of(transport)
    transport.backlog = MAX_BACKLOG_BYTES + 1
    for received_ns, is_over in ((1, False), (STUCK_NS + 1, False), (STUCK_NS + 2, True)):
        link.publish(synthetic_unit(0, random_access=True, received_ns=received_ns))
        assert transport.aborted == is_over


def test_many_workers_get_one_object():
    server, transports = LinkServer(None, None), [FakeTransport(), FakeTransport()]
    links = [_Link(server) for _ in transports]
    unit = synthetic_unit(0, random_access=True)
    for link, transport in zip(links, transports, strict=True):
        link.connection_made(transport)
        link.publish(unit)
    assert transports[0].written[0] is transports[1].written[0]


class ScriptedLink:
    """Control's answers to claims, one after the other."""

    def __init__(self, *answers):
        self.answers = list(answers)
        self.reported = []

    async def claim(self, stream, *, publishing=False):
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def report(self, message):
        self.reported.append(message)


def claimed(epoch, **whose):
    return Claimed(request=1, stream=CAMERA, epoch=epoch, **whose)


OWN = {"address": CameraAddress(url="rtsp://camera/")}


async def test_while_control_is_away_the_last_answer_holds():
    lost = []
    link = ScriptedLink(claimed(1, **OWN), ControlUnavailableError(), claimed(2, peer=3))
    claims = Claims(link, lost.append)
    await claims.ask(CAMERA)
    assert [(await claims.renew(CAMERA)).epoch for _ in range(2)] == [1, 1]
    assert (claims.held(), lost) == ({CAMERA: 1}, [])
    assert (await claims.renew(CAMERA)).peer == 3
    assert (claims.held(), lost) == ({}, [CAMERA])
    claims.release(CAMERA)
    assert link.reported == []


async def test_without_any_answer_there_is_no_source():
    refused = RefusedError(Refused(request=1, status=504, code="not_publishing", detail=""))
    claims = Claims(ScriptedLink(ControlUnavailableError(), claimed(1, **OWN), refused), lambda _: None)
    with pytest.raises(SourceUnreachableError):
        await claims.renew(CAMERA)
    assert (await claims.renew(CAMERA)).epoch == 1
    with pytest.raises(SourceUnreachableError, match="not_publishing"):
        await claims.renew(CAMERA)
    assert not claims.knows(CAMERA)


async def test_a_late_answer_renews_a_claim_in_use_and_gives_any_other_back():
    link = ScriptedLink(claimed(1, **OWN))
    claims = Claims(link, lambda _: None)
    claims.late(claimed(0, peer=3))
    claims.late(claimed(0, **OWN))
    assert link.reported == [Release(stream=CAMERA, epoch=0)]
    await claims.ask(CAMERA)
    for epoch in (3, 2):
        claims.late(claimed(epoch, **OWN))
        assert (claims.held(), len(link.reported)) == ({CAMERA: 3}, 1)
    claims.release(CAMERA)
    assert link.reported[1:] == [Release(stream=CAMERA, epoch=3)]


async def test_a_release_names_the_newest_claim():
    link = ScriptedLink(claimed(1, **OWN), claimed(2, **OWN))
    claims = Claims(link, lambda _: None)
    await claims.ask(CAMERA)
    claims.moved(CAMERA)
    await claims.renew(CAMERA)
    claims.release(CAMERA)
    assert link.reported == [Release(stream=CAMERA, epoch=2)]
