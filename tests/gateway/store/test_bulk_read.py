"""What the driver alone reads is what SQLAlchemy reads, in the same snapshot, on both databases."""

import pytest
import sqlalchemy as sa

from gateway.store.bulk_read import BulkQuery
from gateway.store.errors import StoreUnavailableError
from gateway.store.schema import departments
from gateway.store.store import Store

NEXT = BulkQuery(
    sa.select(departments.c.id, departments.c.parent_id, departments.c.created_at)
    .where(departments.c.id > sa.bindparam("after"))
    .order_by(departments.c.id)
    .limit(sa.bindparam("count"))
)


def _insert(*identifiers):
    async def write(work):
        for identifier in identifiers:
            row = {"id": identifier, "parent_id": None, "name": "部门 'x", "created_at": 2**53}
            await work.conn.execute(sa.insert(departments).values(**row))

    return write


async def test_rows_come_as_sqlalchemy_gives_them_and_of_one_snapshot(store_settings):
    async with Store.open(store_settings) as store:
        await store.run(_insert("a", "b", "c'"))
        async with store.read() as conn:
            assert [tuple(row) for row in await NEXT.rows(conn, after="a", count=9)] == [
                ("b", None, 2**53),
                ("c'", None, 2**53),
            ]
            await store.run(_insert("d"))
            assert [row[0] for row in await NEXT.rows(conn, after="", count=2)] == ["a", "b"]
            assert [row[0] for row in await NEXT.rows(conn, after="b", count=9)] == ["c'"]
            assert (await conn.execute(sa.select(sa.func.count()).select_from(departments))).scalar() == 3
        async with store.read() as conn:
            assert [row[0] for row in await NEXT.rows(conn, after="c'", count=9)] == ["d"]
            assert list(await NEXT.rows(conn, after="d", count=9)) == []


async def test_what_the_driver_raises_is_an_error_of_the_store(store_settings):
    wrong = BulkQuery(sa.select(sa.column("x")).select_from(sa.table("no_such_table")))
    async with Store.open(store_settings) as store:
        with pytest.raises(StoreUnavailableError) as raised:
            async with store.read() as conn:
                await wrong.rows(conn)
        assert "no_such_table" not in str(raised.value)
