"""Many rows at once are what an INSERT of each would have made, on both databases."""

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from gateway.store import bulk_insert
from gateway.store.bulk_insert import insert_rows
from gateway.store.schema import cameras, departments
from gateway.store.store import Store

COLUMNS = (
    "id", "department_id", "name", "description", "url", "secret", "enabled", "longitude",
    "sharing_departments", "sharing_purposes", "created_at", "updated_at",
)  # fmt: skip


def _row(number, **given):
    values = {
        "id": f"camera-{number}", "department_id": "d", "name": "人民路 'x\\\t\n", "description": "",
        "url": "rtsp://127.0.0.1/", "secret": None, "enabled": True, "longitude": None,
        "sharing_departments": None, "sharing_purposes": None, "created_at": 1, "updated_at": 2**53,
    } | given  # fmt: skip
    return tuple(values[column] for column in COLUMNS)


async def _department(work):
    await insert_rows(work.conn, departments, ("id", "name", "created_at"), [("d", "部门", 1)])


async def test_rows_come_back_as_they_were_given(store_settings):
    rows = [
        _row(0),
        _row(1, secret=b"\0\xff", enabled=False, longitude=116.4),
        _row(2, sharing_departments=["d", "街道"], sharing_purposes=[]),
    ]

    async def write(work):
        await _department(work)
        await insert_rows(work.conn, cameras, COLUMNS, rows)
        await insert_rows(work.conn, cameras, COLUMNS, [])

    async with Store.open(store_settings) as store:
        await store.run(write)
        async with store.read() as conn:
            query = sa.select(*(cameras.c[column] for column in COLUMNS)).order_by(cameras.c.id)
            assert [tuple(row) for row in await conn.execute(query)] == rows
            nulls = sa.select(cameras.c.id).where(cameras.c.sharing_departments.is_(None))
            assert set((await conn.execute(nulls)).scalars()) == {"camera-0", "camera-1"}


@pytest.mark.parametrize("wrong", [{"id": "camera-0"}, {"department_id": "nobody's"}])
async def test_what_breaks_a_rule_drops_the_unit_and_no_other(store_settings, wrong):
    async def broken(work):
        await _department(work)
        await insert_rows(work.conn, cameras, COLUMNS, [_row(0), _row(1, **wrong)])

    async with Store.open(store_settings) as store:
        with pytest.raises(IntegrityError):
            await store.run(broken)
        await store.run(_department)
        async with store.read() as conn:
            assert (await conn.execute(sa.select(sa.func.count()).select_from(cameras))).scalar_one() == 0


@pytest.mark.parametrize("count", [0, 3, 4, 7])
async def test_a_statement_takes_so_many_rows_and_the_next_one_goes_on(store_settings, monkeypatch, count):
    monkeypatch.setattr(bulk_insert, "ROWS_OF_A_STATEMENT", 3)

    async def write(work):
        await _department(work)
        await insert_rows(work.conn, cameras, COLUMNS, (_row(number) for number in range(count)))

    async with Store.open(store_settings) as store:
        await store.run(write)
        async with store.read() as conn:
            found = (await conn.execute(sa.select(cameras.c.id).order_by(cameras.c.id))).scalars()
            assert list(found) == [f"camera-{number}" for number in range(count)]
