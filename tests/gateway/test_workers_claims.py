"""Control's answers to claims: one worker for each stream, and who is told when that changes."""

import asyncio
import itertools
from contextlib import asynccontextmanager, suppress

import msgspec
import pytest
from support.controls import FakeWorker, add_camera, open_city

from gateway.channel import Channel, ChannelError
from gateway.messages import CameraReport, Claimed, Hello, Refused, Release, StreamMoved, ToWorker, Usage
from gateway.workers import RelayWorkers, WorkerEvents
from streams.sources.source import CameraAddress

ENCODER_LOGIN = {"username": "encoder", "password": "encoder-password"}


async def test_the_second_worker_takes_the_stream_from_the_first(tmp_path):
    async with open_city(tmp_path) as city:
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sub_url": "rtsp://127.0.0.1/sub"})
        one, two = await city.worker(1), await city.worker(2)
        main, sub = await one.claim("gate"), await two.claim("gate/sub")
        assert (main.address.url, main.peer) == ("rtsp://127.0.0.1:8554/gate", None)
        assert (sub.address.url, sub.address.password) == ("rtsp://127.0.0.1/sub", "camera-password")
        for worker, stream, peer in ((two, "gate", 1), (one, "gate/sub", 2)):
            answer = await worker.claim(stream)
            assert (answer.address, answer.peer) == (None, peer)
        assert (await one.claim("gate")).address == main.address
        assert (await one.claim("bridge/sub")).code == "no_sub_stream"
        assert city.services.workers.worker_for("gate/sub") == 2


async def test_only_who_has_a_stream_says_how_it_does(tmp_path):
    async with open_city(tmp_path) as city:
        one, two = await city.worker(1), await city.worker(2)
        for worker, bit_rate in ((one, 5), (two, 7)):
            await worker.claim("gate")
            report = CameraReport(stream="gate", state="live", bit_rate_bps=bit_rate)
            worker.send(Usage(sessions=[], cameras=[report]))
            await worker.settled()
        assert city.services.workers.bit_rate("gate") == 5
        assert [report.bit_rate_bps for report in city.services.workers.reports()] == [5]


async def test_what_a_dead_worker_had_goes_to_the_first_that_asks(tmp_path):
    async with open_city(tmp_path) as city:
        one, two, three = [await city.worker(number) for number in (1, 2, 3)]
        for worker in (one, two):
            await worker.claim("gate")
        one.channel.abort()
        assert (await two.moved("gate")).epoch == 0
        assert (await two.claim("gate")).address is not None
        await three.settled()
        assert not any(isinstance(message, StreamMoved) for message in three.received)
        assert (await three.claim("gate")).peer == 2


async def test_a_release_frees_the_stream_for_who_took_it_from_there(tmp_path):
    async with open_city(tmp_path) as city:
        one, two = await city.worker(1), await city.worker(2)
        claimed = await one.claim("gate")
        await two.claim("gate")
        one.send(Release(stream="gate", epoch=claimed.epoch))
        await two.moved("gate")
        assert (await two.claim("gate")).peer is None


@pytest.mark.parametrize("change", [{"password": "another-password"}, {"url": "rtsp://127.0.0.1/new"}])
async def test_everybody_asks_again_when_the_camera_is_reached_differently(tmp_path, change):
    async with open_city(tmp_path) as city:
        one, two, three = [await city.worker(number) for number in (1, 2, 3)]
        await one.claim("gate")
        await two.claim("gate")
        # of a stream that control refuses, a worker has nothing but that it tries
        two.send(Usage(sessions=[], cameras=[CameraReport(stream="gate/sub", state="failed")]))
        await two.settled()
        await city.call("traffic-admin", "PATCH", "/cameras/gate", change)
        await one.moved("gate")
        await two.moved("gate")
        await two.moved("gate/sub")
        await three.settled()
        for worker in (one, three):
            assert not [message for message in worker.received if isinstance(message, StreamMoved)]


async def test_of_two_workers_that_have_a_stream_the_later_asks_again(tmp_path):
    async with open_city(tmp_path) as city:
        one = await city.worker(1, streams={"gate": 1})
        two = await city.worker(2, streams={"gate": 2, "bridge": 3})
        await two.moved("gate")
        assert (await two.claim("gate")).peer == 1
        assert (await one.claim("bridge")).peer == 2


async def test_a_publisher_takes_the_camera_and_all_others_are_told(tmp_path):
    async with open_city(tmp_path) as city:
        await add_camera(city, "pushed", url="push:", **ENCODER_LOGIN)
        one, two = await city.worker(1), await city.worker(2)
        refused = await one.claim("pushed")
        assert (refused.code, refused.status) == ("not_publishing", 504)

        first = await two.claim("pushed", publishing=True)
        assert first.address.url == "push:"
        assert (await one.moved("pushed")).epoch == first.epoch
        assert (await one.claim("pushed")).peer == 2
        assert (await two.claim("pushed")).address.url == "push:"

        second = await one.claim("pushed", publishing=True)
        assert (await two.moved("pushed")).epoch == second.epoch
        assert (await two.claim("pushed")).peer == 1
        one.send(Release(stream="pushed", epoch=second.epoch))
        assert (await two.moved("pushed")).epoch == 0
        assert (await two.claim("pushed")).code == "not_publishing"


async def test_only_an_enabled_camera_that_publishes_has_a_publisher_s_login(tmp_path):
    async with open_city(tmp_path) as city:
        await add_camera(city, "pushed", url="push:", **ENCODER_LOGIN)
        worker = await city.worker()
        expected = await worker.publisher_login("pushed")
        assert (expected.username, expected.password) == ("encoder", "encoder-password")
        assert "encoder-password" not in repr(expected)
        await city.call("traffic-admin", "PATCH", "/cameras/pushed", {"enabled": False})
        for camera in ("gate", "pushed", "no-such-camera"):
            assert (await worker.publisher_login(camera)).code == "not_found"
        assert (await worker.claim("gate", publishing=True)).code == "not_found"


class _Bare:
    """Workers of one control without anything else behind it."""

    def __init__(self, folder, **options):
        self.path = folder / "control.sock"
        events = WorkerEvents()
        events.address = self._address
        events.hello = lambda _worker, _pid, _sessions: []
        events.gone = events.placed = lambda _worker: None
        events.may_renew = lambda _revision: True
        events.decided_revision = lambda: 0
        self.workers = RelayWorkers(events, **options)
        self.channels = []

    async def _address(self, stream):
        return CameraAddress(url=f"rtsp://127.0.0.1/{stream}")

    async def connect(self, worker, **streams):
        reader, writer = await asyncio.open_unix_connection(self.path)
        channel = Channel(reader, writer, msgspec.msgpack.Decoder(ToWorker))
        channel.send(Hello(worker=worker, pid=1, streams=streams))
        self.channels.append(channel)
        return FakeWorker(worker, channel, _numbers=itertools.count(1))


@asynccontextmanager
async def _bare(folder, **options):
    bare = _Bare(folder, **options)
    async with asyncio.TaskGroup() as tasks, bare.workers.serve(bare.path):
        yield bare, tasks
        for channel in bare.channels:
            channel.abort()


async def _read(worker):
    with suppress(ChannelError):
        await worker.read()


async def test_a_restarted_control_answers_no_claim_before_all_workers_have_said_what_they_have(tmp_path):
    async with _bare(tmp_path, workers=2, assembly_seconds=3600) as (bare, tasks):
        one = await bare.connect(1)
        tasks.create_task(_read(one))
        asking = tasks.create_task(one.claim("gate"))
        await one.wait_for(object)  # a lease: the Hello has been read
        two = await bare.connect(2, gate=77)
        tasks.create_task(_read(two))
        answer = await asking
        assert (answer.peer, answer.epoch) == (2, 77)


async def test_a_worker_that_does_not_come_back_keeps_nobody_waiting(tmp_path):
    async with _bare(tmp_path, workers=2, assembly_seconds=0.05) as (bare, tasks):
        one = await bare.connect(1)
        tasks.create_task(_read(one))
        answer = await one.claim("gate")
        assert isinstance(answer, Claimed)
        assert not isinstance(answer, Refused)
