"""Many rows at once, past SQLAlchemy's making of each: a quarter of what fetching them costs."""

import sqlite3
from collections.abc import Sequence
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection


class BulkQuery:
    """A query whose rows come as the driver has them; it is compiled once for each kind of database.

    On SQLite a boolean is 0 or 1, and JSON is to be selected as its text.
    """

    def __init__(self, query: sa.Select[Any]) -> None:
        self._query = query
        self._compiled: dict[str, Any] = {}

    async def rows(self, conn: AsyncConnection, **parameters: object) -> Sequence[Sequence[Any]]:
        """All of them. Raise sqlalchemy.exc.OperationalError for whatever the driver raises."""
        if not conn.in_transaction():
            # SQLAlchemy begins one with its first statement, the driver none
            await conn.execute(sa.select(1))
        dialect = conn.dialect.name
        compiled = self._compiled.get(dialect)
        if compiled is None:
            compiled = self._compiled[dialect] = self._query.compile(dialect=conn.dialect)
        text, values = str(compiled), compiled.construct_params(parameters)
        ordered = [values[name] for name in compiled.positiontup or ()]
        driver: Any = (await conn.get_raw_connection()).driver_connection
        try:
            if dialect == "postgresql":
                found: Sequence[Sequence[Any]] = await driver.fetch(text, *ordered)
            else:
                found = await (await driver.cursor().execute(text, ordered)).fetchall()
        except (sqlite3.Error, asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise OperationalError(text, None, error, hide_parameters=True) from error
        return found
