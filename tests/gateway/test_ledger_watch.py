"""While the ledger cannot be written nobody looks on; afterwards the ledger says from when to when."""

import asyncio
import contextlib
import sqlite3

import pytest
from support.controls import Clock, open_city

from gateway.ledger_watch import LedgerWatch
from gateway.settings import LedgerSettings
from gateway.store.engines import DATABASE_FILE
from gateway.store.errors import StoreUnavailableError


@contextlib.asynccontextmanager
async def _locked(folder):
    """Another process has the database, as a backup or a repair would."""
    path = folder / "data" / DATABASE_FILE
    with contextlib.closing(sqlite3.connect(path, timeout=0, isolation_level=None)) as other:
        while not other.in_transaction:
            # a unit under way needs the loop to end
            await asyncio.sleep(0)
            with contextlib.suppress(sqlite3.OperationalError):
                other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


async def _is_ready(city):
    status, _, _ = await city.request("GET", "/readyz")
    return status == 200


async def test_a_locked_database_ends_every_picture_and_the_end_is_recorded_later(tmp_path):
    async with open_city(tmp_path, ledger=LedgerSettings(outage_seconds=4.0)) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        await city.until(lambda: city.services.ledger_watch.is_available)
        assert await _is_ready(city)
        async with _locked(tmp_path):
            assert (await worker.ended(opened["id"])).reason == "ledger_unavailable"
            assert not await _is_ready(city)
            assert b"custos_ledger_writable 0.0" in city.services.metrics.text()
            problem = await city.watch("urban-operator", expect=503)
            assert problem["code"] == "store_unavailable"
        (end,) = await city.recorded(kind="session_end")
        assert end.reason == "ledger_unavailable"
        (outage,) = await city.recorded(kind="ledger_outage")
        assert outage.detail["from"] <= outage.detail["to"]
        await city.until(lambda: city.services.ledger_watch.is_available)
        assert await _is_ready(city)
        await worker.start(await city.watch("urban-operator"))


class _Store:
    """A store that fails when told to, and forgets what it is given."""

    def __init__(self):
        self.fails = False
        self.steps = 0
        self.recorded = []

    async def run(self, unit):
        del unit
        if self.fails:
            raise StoreUnavailableError("locked")

    async def record(self, *events):
        await self.run(None)
        self.recorded += events


class _Session:
    id = "s"


class _Live:
    def __init__(self):
        self.ended = []

    def __len__(self):
        return 1

    def all(self):
        return [_Session()]

    def end(self, session, reason):
        self.ended.append((session, reason.value))


@pytest.fixture
def parts():
    store, live, clock, now = _Store(), _Live(), Clock(), [100.0]
    return LedgerWatch(store, live, 30.0, clock, lambda: now[0]), store, live, clock, now


async def test_nothing_happens_up_to_the_limit_and_everything_ends_at_it(parts):
    watch, store, live, clock, now = parts
    await watch.beat()
    begun = clock()
    store.fails = True
    for seconds in (10, 19.99):
        now[0] += seconds
        clock.advance(seconds)
        await watch.beat()
        watch.judge()
        assert watch.is_available
        assert live.ended == []
    now[0] += 0.01
    watch.judge()
    assert not watch.is_available
    watch.judge()
    assert live.ended == [("s", "ledger_unavailable")] * 2
    clock.advance(100)
    store.fails = False
    await watch.beat()
    assert watch.is_available
    (record,) = store.recorded
    assert record.detail == {"from": begun.isoformat(), "to": clock().isoformat()}
    await watch.beat()
    assert len(store.recorded) == 1


async def test_an_outage_is_over_when_its_record_is_durable(parts, monkeypatch):
    watch, store, _, _, now = parts
    now[0] += 30
    watch.judge()

    async def fails(*_):
        raise StoreUnavailableError("full")

    with monkeypatch.context() as failing:
        failing.setattr(store, "record", fails)
        await watch.beat()
    assert not watch.is_available
    await watch.beat()
    assert watch.is_available
    assert len(store.recorded) == 1


async def test_an_import_that_writes_is_no_outage_and_one_that_hangs_is(parts):
    watch, store, live, _, now = parts
    await watch.beat()
    store.fails = True
    for _ in range(5):
        now[0] += 25
        store.steps += 1
        watch.judge()
        assert watch.is_available
    now[0] += 31
    watch.judge()
    assert not watch.is_available
    assert live.ended


async def test_a_unit_of_many_steps_tells_of_each(tmp_path):
    async with open_city(tmp_path) as city:
        store = city.services.store
        before = store.steps

        async def unit(work):
            work.step()
            work.step()

        await store.run(unit)
        assert store.steps == before + 2
