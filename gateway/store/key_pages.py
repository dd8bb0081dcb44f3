"""Reading a whole table page by page, in the order of its key, with what other tables link to each page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.store.bulk_read import BulkQuery

PAGE_ROWS = 2000
"""Rows read, and then taken in between two turns of the loop: some 20 ms of work."""

R = TypeVar("R", bound=Sequence[Any])


async def pages_by_key(
    conn: AsyncConnection, query: sa.Select[Any], key: sa.Column[str]
) -> AsyncIterator[Sequence[sa.Row[Any]]]:
    """All rows in the order of their key, which starts the row, in pages: see `pages`."""
    query = query.where(key > sa.bindparam("after")).order_by(key).limit(PAGE_ROWS)

    async def read(after: str) -> Sequence[sa.Row[Any]]:
        rows: Sequence[sa.Row[Any]] = (await conn.execute(query, {"after": after})).all()
        return rows

    async for page in pages(read, "", PAGE_ROWS):
        yield page


async def pages(
    read: Callable[[str], Awaitable[Sequence[R]]], after: str, page_rows: int
) -> AsyncIterator[Sequence[R]]:
    """All rows beyond a key; `read` gives the next ones beyond a key, `page_rows` at most. None is empty.

    Left out is a key that is empty, or no text (SQLite stores any type): the PDP knows no such names.
    """
    while rows := await read(after):
        # what is no text comes after all that is
        named = rows if isinstance(rows[-1][0], str) else [row for row in rows if isinstance(row[0], str)]
        if named:
            yield named
        if len(named) < page_rows:
            return
        after = rows[-1][0]


class Links:
    """A table whose rows each belong to a row of another: its key, then one column or more."""

    def __init__(self, key: sa.Column[Any], *columns: sa.Column[Any]) -> None:
        between = (key >= sa.bindparam("first"), key <= sa.bindparam("last"))
        self._query = BulkQuery(sa.select(key, *columns).where(*between))

    async def of(self, conn: AsyncConnection, rows: Sequence[Any]) -> Sequence[Sequence[Any]]:
        """What belongs to a page of rows, in the order of their key, which starts each."""
        return await self._query.rows(conn, first=rows[0][0], last=rows[-1][0])


def by_key(links: Iterable[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for key, value in links:
        found.setdefault(key, []).append(value)
    return found
