"""Bandwidth that follows the cameras: growth keeps others out, what shrinks makes room, nothing is ended."""

import asyncio
from contextlib import asynccontextmanager

import sqlalchemy as sa
from support.controls import add_camera, open_city

from gateway import app, reservations
from gateway.admission import DEFAULT_CAMERA_BPS, AdmissionSettings
from gateway.messages import CameraReport, Usage
from gateway.store.schema import viewer_sessions

MBIT = 1_000_000


@asynccontextmanager
async def _city(folder, url=None, *, bandwidth_bps=10 * MBIT, housekeeping_seconds=3600, monkeypatch):
    """A city whose control reserves when the test says so; two cameras that nobody has measured."""
    monkeypatch.setattr(app, "HOUSEKEEPING_SECONDS", housekeeping_seconds)
    settings = AdmissionSettings(bandwidth_bps=bandwidth_bps)
    async with open_city(folder, url=url, admission=settings) as city:
        for camera in ("gate", "bridge"):
            await city.grant(camera=camera)
        yield city


async def _measured(worker, **rates):
    reports = [CameraReport(stream=stream, state="live", bit_rate_bps=rate) for stream, rate in rates.items()]
    worker.send(Usage(sessions=[], cameras=reports))
    await worker.settled()


async def _reserved(city, session):
    """As its row has it, and as memory has it: always the same."""
    async with city.services.store.read() as conn:
        query = sa.select(viewer_sessions.c.reserved_bps).where(viewer_sessions.c.id == session)
        stored = (await conn.execute(query)).scalar_one()
    assert stored == city.services.live.get(session).reserved_bps
    return stored


async def test_growth_of_one_camera_keeps_another_out_and_ends_nothing(tmp_path, database_url, monkeypatch):
    async with _city(tmp_path, database_url, monkeypatch=monkeypatch) as city:
        worker = await city.worker()
        opened = await city.watch("urban-operator", "gate")
        await worker.start(opened)
        await _measured(worker, gate=900 * MBIT)
        await city.services.reservations.settle()
        assert await _reserved(city, opened["id"]) == 900 * MBIT
        refused = await city.watch("urban-operator", "bridge", 503)
        assert (refused["code"], refused["running"]) == ("limit_bandwidth", 900 * MBIT)
        assert city.services.live.get(opened["id"]).ending is None
        await _measured(worker, gate=6 * MBIT)
        await city.services.reservations.settle()
        await city.watch("urban-operator", "bridge")


async def test_what_is_less_than_was_thought_lets_in_who_waits(tmp_path, database_url, monkeypatch):
    options = {"bandwidth_bps": 6 * MBIT, "housekeeping_seconds": 0.01, "monkeypatch": monkeypatch}
    async with _city(tmp_path, database_url, **options) as city:
        worker = await city.worker()
        await worker.start(await city.watch("urban-operator", "gate"))
        assert (await city.watch("urban-operator", "bridge", 503))["code"] == "limit_bandwidth"
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(city.watch("urban-operator", "bridge", wait_s=60))
            await city.until(lambda: len(city.services.waiting) == 1)
            await _measured(worker, gate=1 * MBIT)
            second = await waiting
        assert await _reserved(city, second["id"]) == DEFAULT_CAMERA_BPS
        assert len(city.services.live) == 2


async def test_what_grows_as_much_as_another_shrinks_wakes_nobody(tmp_path, monkeypatch):
    async with _city(tmp_path, monkeypatch=monkeypatch) as city:
        worker = await city.worker()
        one, other = [await city.watch("urban-operator", camera) for camera in ("gate", "bridge")]
        freed = []
        monkeypatch.setattr(city.services.waiting, "freed", freed.append)
        await _measured(worker, gate=1 * MBIT, bridge=7 * MBIT)
        await city.services.reservations.settle()
        assert [await _reserved(city, each["id"]) for each in (one, other)] == [1 * MBIT, 7 * MBIT]
        assert freed == []


async def test_nothing_is_written_for_rates_that_waver_or_that_nobody_knows(tmp_path, monkeypatch):
    async with _city(tmp_path, monkeypatch=monkeypatch) as city:
        worker = await city.worker()
        opened = await city.watch("urban-operator", "gate")
        await city.watch("urban-operator", "bridge")
        units = []

        async def run(unit):
            units.append(unit)

        with monkeypatch.context() as patched:
            patched.setattr(city.services.store, "run", run)
            for rate in (0, int(0.8 * DEFAULT_CAMERA_BPS), int(1.2 * DEFAULT_CAMERA_BPS)):
                await _measured(worker, gate=rate)
                await city.services.reservations.settle()
            assert units == []
        await _measured(worker, gate=int(1.2 * DEFAULT_CAMERA_BPS) + 1)
        await city.services.reservations.settle()
        assert await _reserved(city, opened["id"]) == int(1.2 * DEFAULT_CAMERA_BPS) + 1


async def test_a_sub_stream_counts_what_it_is_itself(tmp_path, monkeypatch):
    async with _city(tmp_path, monkeypatch=monkeypatch) as city:
        await add_camera(city, "double", sub_url="rtsp://127.0.0.1:8554/double-sub")
        await city.grant(camera="double")
        worker = await city.worker()
        main, sub = [await city.watch("urban-operator", "double", stream=name) for name in ("main", "sub")]
        await _measured(worker, **{"double": 6 * MBIT, "double/sub": 1 * MBIT})
        await city.services.reservations.settle()
        assert [await _reserved(city, each["id"]) for each in (main, sub)] == [6 * MBIT, 1 * MBIT]


async def test_a_round_writes_so_many_and_the_next_one_the_rest(tmp_path, monkeypatch):
    monkeypatch.setattr(reservations, "CHANGES_PER_UNIT", 2)
    async with _city(tmp_path, bandwidth_bps=100 * MBIT, monkeypatch=monkeypatch) as city:
        worker = await city.worker()
        opened = [await city.watch("urban-operator", "gate") for _ in range(3)]
        await _measured(worker, gate=1 * MBIT)
        for count in (2, 3):
            await city.services.reservations.settle()
            reserved = [await _reserved(city, each["id"]) for each in opened]
            assert reserved.count(1 * MBIT) == count


async def test_what_is_ending_is_left_alone(tmp_path, monkeypatch):
    async with _city(tmp_path, monkeypatch=monkeypatch) as city:
        worker = await city.worker()
        worker.obedient = False
        opened = await city.watch("urban-operator", "gate")
        await worker.start(opened)
        await _measured(worker, gate=1 * MBIT)
        await city.call("urban-operator", "DELETE", f"/sessions/{opened['id']}")
        await city.services.reservations.settle()
        assert await _reserved(city, opened["id"]) == DEFAULT_CAMERA_BPS


def test_as_many_streams_as_may_run_fit_before_anybody_has_measured_them():
    settings = AdmissionSettings()
    assert settings.bandwidth_bps >= settings.sessions_total * DEFAULT_CAMERA_BPS
