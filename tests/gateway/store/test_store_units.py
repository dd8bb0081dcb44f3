"""The unit of work, on both databases: all or nothing, alone or in a group, acknowledged after COMMIT."""

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable
from pathlib import Path

import asyncpg
import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError, IntegrityError
from support.databases import looked

from gateway.audit.records import parse
from gateway.store.errors import StoreBusyError, StoreUnavailableError
from gateway.store.schema import audit_heads, audit_records, departments
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit, read_revision


class RefusedError(Exception):
    pass


def add(name: str, *, fail: bool = False) -> Callable[[Unit], Awaitable[str]]:
    async def unit(unit: Unit) -> str:
        await unit.conn.execute(departments.insert().values(id=name, name=name, created_at=unit.now))
        unit.record(looked(name))
        if fail:
            raise RefusedError(name)
        return name

    return unit


async def names(store: Store) -> list[str]:
    async with store.read() as conn:
        return list((await conn.execute(sa.select(departments.c.id).order_by(departments.c.id))).scalars())


async def contents(store: Store) -> list[str]:
    async with store.read() as conn:
        rows = await conn.execute(sa.select(audit_records).order_by(audit_records.c.seq))
        records = [(row.seq, parse(row.leaf, row.disclosures)) for row in rows]
    assert [seq for seq, _ in records] == [record.seq for _, record in records] == list(range(len(records)))
    return [record.event.content for _, record in records]


async def head_sizes(store: Store) -> list[int]:
    async with store.read() as conn:
        query = sa.select(audit_heads.c.tree_size).order_by(audit_heads.c.tree_size)
        return list((await conn.execute(query)).scalars())


class Gate:
    """Holds the writer inside a unit, so that the units submitted meanwhile form the next group."""

    def __init__(self) -> None:
        self.entered = asyncio.Event()
        self.opened = asyncio.Event()

    async def unit(self, _unit: Unit) -> None:
        self.entered.set()
        await self.opened.wait()


async def together(store: Store, *units: Callable[[Unit], Awaitable[object]]) -> list[object | BaseException]:
    """Run units in one group; return their results or errors."""
    gate = Gate()
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(store.run(gate.unit))
        await gate.entered.wait()
        running = [asyncio.ensure_future(store.run(unit)) for unit in units]  # noqa: TID251
        await asyncio.sleep(0)
        gate.opened.set()
        return await asyncio.gather(*running, return_exceptions=True)


async def test_rows_and_records_stand_together(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings, clock=lambda: 1_700_000_000_000_000) as store:
        assert await store.run(add("a")) == "a"
        with pytest.raises(RefusedError):
            await store.run(add("b", fail=True))
        assert await names(store) == ["a"]
        assert await contents(store) == ["a"]
        head = await store.head()
        assert head is not None
        assert store.verifier.verify(head)
        assert (head.head.size, head.head.signed_at) == (1, 1_700_000_000_000_000)


async def test_a_group_is_one_commit_with_one_head(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        assert await together(store, add("a"), add("b"), add("c")) == ["a", "b", "c"]
        assert await head_sizes(store) == [3]


async def test_a_failing_unit_harms_none_of_its_group(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        a, refused, twice, b = await together(store, add("a"), add("x", fail=True), add("a"), add("b"))
        assert (a, b) == ("a", "b")
        assert isinstance(refused, RefusedError)
        assert isinstance(twice, IntegrityError)
        assert await names(store) == ["a", "b"]
        assert await contents(store) == ["a", "b"]
        assert await head_sizes(store) == [2]


async def test_a_unit_may_nest_savepoints(store_settings: StoreSettings) -> None:
    async def unit(unit: Unit) -> None:
        await add("a")(unit)
        with pytest.raises(IntegrityError):
            async with unit.conn.begin_nested():
                await unit.conn.execute(departments.insert().values(id="a", name="a", created_at=0))
        await add("b")(unit)

    async with Store.open(store_settings) as store:
        await store.run(unit)
        assert await names(store) == ["a", "b"]


async def test_numbers_have_no_gaps_whatever_fails(store_settings: StoreSettings) -> None:
    async with Store.open(dataclasses.replace(store_settings, max_group_units=7)) as store:

        async def writer(number: int) -> None:
            for turn in range(5):
                name = f"{number}-{turn}"
                if (number + turn) % 3 == 0:
                    with pytest.raises(RefusedError):
                        await store.run(add(name, fail=True))
                else:
                    await store.run(add(name))
                    await store.record(looked("recorded only"))

        async with asyncio.TaskGroup() as tasks:
            for number in range(20):
                tasks.create_task(writer(number))
        written = await contents(store)
        assert sorted(set(written) - {"recorded only"}) == await names(store)
        head = await store.head()
        assert head is not None
        assert head.head.size == len(written)


async def test_callbacks_run_once_durable_and_before_the_answer(store_settings: StoreSettings) -> None:
    seen: list[str] = []

    async with Store.open(store_settings) as store:

        async def unit(unit: Unit) -> None:
            unit.after_commit(lambda: seen.append("committed"))
            await add("a")(unit)
            assert not seen
            assert await names(store) == []

        async def refused(unit: Unit) -> None:
            unit.after_commit(lambda: seen.append("never"))
            raise RefusedError

        await store.run(unit)
        assert seen == ["committed"]
        with pytest.raises(RefusedError):
            await store.run(refused)
        assert seen == ["committed"]


async def test_the_revision_rises_with_its_unit_only(store_settings: StoreSettings) -> None:
    async def bump(unit: Unit) -> int:
        return await unit.bump_revision()

    async def bump_and_fail(unit: Unit) -> None:
        await unit.bump_revision()
        raise RefusedError

    async with Store.open(store_settings) as store:
        assert await store.run(bump) == 1
        with pytest.raises(RefusedError):
            await store.run(bump_and_fail)
        assert await store.run(bump) == 2
        async with store.read() as conn:
            assert await read_revision(conn) == 2


async def test_a_caller_that_left_before_its_unit_began_leaves_nothing(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run(gate.unit))
            await gate.entered.wait()
            leaving = tasks.create_task(store.run(add("left")))
            staying = tasks.create_task(store.run(add("stayed")))
            await asyncio.sleep(0)
            leaving.cancel()
            await asyncio.sleep(0)
            gate.opened.set()
        assert staying.result() == "stayed"
        assert await names(store) == ["stayed"]


async def test_a_caller_that_leaves_in_its_unit_breaks_no_group(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        gate = Gate()

        async def slow(unit: Unit) -> None:
            await add("slow")(unit)
            await gate.unit(unit)

        async with asyncio.TaskGroup() as tasks:
            leaving = tasks.create_task(store.run(slow))
            await gate.entered.wait()
            leaving.cancel()
            staying = tasks.create_task(store.run(add("stayed")))
            await asyncio.sleep(0)
            gate.opened.set()
        assert staying.result() == "stayed"
        assert await names(store) == ["slow", "stayed"]


async def test_the_queue_is_bounded(store_settings: StoreSettings) -> None:
    async with Store.open(dataclasses.replace(store_settings, max_queued_units=2)) as store:
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run(gate.unit))
            await gate.entered.wait()
            tasks.create_task(store.run(add("a")))
            tasks.create_task(store.run(add("b")))
            await asyncio.sleep(0)
            with pytest.raises(StoreBusyError) as refusal:
                await store.run(add("c"))
            assert refusal.value.code == "store_busy"
            gate.opened.set()
        assert await names(store) == ["a", "b"]


async def test_readers_cannot_write_and_see_one_snapshot(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        async with store.read() as conn:
            count = sa.select(sa.func.count()).select_from(departments)
            assert (await conn.execute(count)).scalar_one() == 0
            await store.run(add("a"))
            assert (await conn.execute(count)).scalar_one() == 0
        with pytest.raises((StoreUnavailableError, DBAPIError)):
            async with store.read() as conn:
                await conn.execute(departments.insert().values(id="x", name="x", created_at=0))
        assert await names(store) == ["a"]


async def test_no_free_reader_is_busy(store_settings: StoreSettings) -> None:
    settings = dataclasses.replace(store_settings, read_connections=1, timeout_seconds=1.0)
    async with Store.open(settings) as store, store.read() as conn:
        await conn.execute(sa.select(1))
        with pytest.raises(StoreBusyError):
            async with store.read() as other:
                await other.execute(sa.select(1))


async def test_a_locked_database_is_unavailable_and_nothing_is_acknowledged(
    store_settings: StoreSettings,
) -> None:
    settings = dataclasses.replace(store_settings, lock_seconds=0.05)
    async with Store.open(settings) as store:
        await store.run(add("before"))
        release = await lock_ledger(settings)
        with pytest.raises(StoreUnavailableError) as failure:
            await store.run(add("a"))
        assert "departments" not in str(failure.value)
        with pytest.raises(StoreUnavailableError):
            await store.record(looked())
        await release()
        await store.run(add("after"))
        assert await names(store) == ["after", "before"]
        assert await contents(store) == ["before", "after"]


async def test_all_that_wait_for_a_lock_are_refused_after_one_attempt(store_settings: StoreSettings) -> None:
    """In groups of one, each waiting in its turn, they would take a minute."""
    settings = dataclasses.replace(store_settings, lock_seconds=0.3, max_group_units=1)
    async with Store.open(settings) as store:
        release = await lock_ledger(settings)
        async with asyncio.timeout(10):
            answers = await asyncio.gather(
                *(store.run(add(f"{number}")) for number in range(200)), return_exceptions=True
            )
        assert {type(answer) for answer in answers} == {StoreUnavailableError}
        await release()
        assert await names(store) == []
        await store.run(add("after"))


async def test_who_waits_behind_a_long_unit_is_not_refused(store_settings: StoreSettings) -> None:
    """An import holds the lock in this process for as long as it takes: nobody waits for that lock."""
    settings = dataclasses.replace(store_settings, lock_seconds=0.05)
    async with Store.open(settings) as store:
        gate = Gate()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(store.run(gate.unit))
            await gate.entered.wait()
            waiting = tasks.create_task(store.run(add("waited")))
            # several times as long as anybody waits for a lock
            await asyncio.wait([waiting], timeout=0.3)
            gate.opened.set()
        assert await names(store) == ["waited"]


def test_a_refusal_for_a_lock_comes_within_a_second(tmp_path: Path) -> None:
    assert StoreSettings(tmp_path).lock_seconds <= 0.8


async def lock_ledger(settings: StoreSettings) -> Callable[[], Awaitable[None]]:
    if settings.url is None:
        import sqlite3

        connection = sqlite3.connect(settings.data_folder / "custos.db", isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")

        async def release_sqlite() -> None:
            connection.execute("ROLLBACK")
            connection.close()

        return release_sqlite
    url = sa.make_url(settings.url)
    other = await asyncpg.connect(host=url.query["host"], user="postgres", database=url.database)
    transaction = other.transaction()
    await transaction.start()
    await other.execute("SELECT * FROM audit_state FOR UPDATE")

    async def release_postgresql() -> None:
        await transaction.rollback()
        await other.close()

    return release_postgresql


async def test_a_clock_that_goes_back_never_turns_the_ledger_back(store_settings: StoreSettings) -> None:
    times = iter([50, 100, 300, 200, 400])  # the first: what an empty ledger begins with
    async with Store.open(store_settings, clock=lambda: next(times)) as store:
        for _ in range(3):
            await store.record(looked())
        async with store.read() as conn:
            query = sa.select(audit_records.c.at).order_by(audit_records.c.seq)
            assert list((await conn.execute(query)).scalars()) == [300, 300, 400]


async def test_closing_commits_what_waits_and_refuses_what_comes(store_settings: StoreSettings) -> None:
    gate = Gate()
    async with asyncio.TaskGroup() as tasks:
        async with Store.open(store_settings) as store:
            tasks.create_task(store.run(gate.unit))
            await gate.entered.wait()
            waiting = tasks.create_task(store.run(add("waiting")))
            await asyncio.sleep(0)
            gate.opened.set()
        assert waiting.result() == "waiting"
        with pytest.raises(StoreUnavailableError):
            await store.run(add("late"))
    async with Store.open(store_settings) as store:
        assert await names(store) == ["waiting"]


async def test_an_error_in_the_body_leaves_as_it_is(store_settings: StoreSettings) -> None:
    async def body() -> None:
        async with Store.open(store_settings) as store:
            await store.run(add("a"))
            raise RefusedError

    with pytest.raises(RefusedError):
        await body()
    async with Store.open(store_settings) as store:
        assert await names(store) == ["a"]


async def test_a_cancelled_store_refuses_whoever_waits(store_settings: StoreSettings) -> None:
    gate = Gate()
    outcome: list[BaseException] = []

    async def body() -> None:
        async with Store.open(store_settings) as store:
            waiting = asyncio.ensure_future(store.run(add("a")))  # noqa: TID251
            waiting.add_done_callback(lambda future: outcome.append(future.exception()))
            await store.run(gate.unit)

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(body())
        await gate.entered.wait()
        running.cancel()
    assert [type(error) for error in outcome] == [StoreUnavailableError]
    async with Store.open(store_settings) as store:
        assert await names(store) == []
