"""Many rows into a table at once, past SQLAlchemy's handling of each row's parameters."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from itertools import chain, islice
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection

ROWS_OF_A_STATEMENT = 10_000
"""A server ends a statement that takes seconds."""
_ROWS_OF_A_TURN = 100
"""Between two turns of the loop."""

_Row = tuple[Any, ...]


async def insert_rows(
    conn: AsyncConnection, table: sa.Table, columns: Sequence[str], rows: Iterable[_Row]
) -> None:
    """Insert `rows`, each with the values of `columns`; None is NULL, in a column of JSON too.

    They are taken as they are sent: PostgreSQL, by COPY, writes the earlier ones while the later ones are
    made. Raise what an INSERT raises, of SQLAlchemy's errors: IntegrityError, DataError, OperationalError.
    """
    encode = _json_encoders(conn, table, columns)
    remaining = map(partial(_encoded, encode), rows) if encode else iter(rows)
    for first in remaining:
        piece = _in_turns(chain((first,), islice(remaining, ROWS_OF_A_STATEMENT - 1)))
        if conn.dialect.name == "postgresql":
            await _copy(conn, table, columns, piece)
        else:
            marks = ", ".join("?" * len(columns))
            # the names are the schema's
            statement = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
            await conn.exec_driver_sql(statement, [row async for row in piece])


async def _in_turns(rows: Iterable[_Row]) -> AsyncIterator[_Row]:
    for number, row in enumerate(rows, 1):
        yield row
        if number % _ROWS_OF_A_TURN == 0:
            await asyncio.sleep(0)


async def _copy(
    conn: AsyncConnection, table: sa.Table, columns: Sequence[str], rows: AsyncIterator[_Row]
) -> None:
    # in the same transaction, which SQLAlchemy begins with its first statement
    driver: Any = (await conn.get_raw_connection()).driver_connection
    statement = f"COPY {table.name}"
    try:
        await driver.copy_records_to_table(table.name, records=rows, columns=columns)
    except asyncpg.IntegrityConstraintViolationError as error:
        raise IntegrityError(statement, None, error) from error
    except asyncpg.DataError as error:
        raise DataError(statement, None, error) from error
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise OperationalError(statement, None, error) from error


def _json_encoders(
    conn: AsyncConnection, table: sa.Table, columns: Sequence[str]
) -> dict[int, Callable[[Any], Any]]:
    """By the columns' places. The drivers take every other value as it is."""
    encode: dict[int, Callable[[Any], Any]] = {}
    for index, column in enumerate(columns):
        kind = table.c[column].type
        if isinstance(kind, sa.JSON):
            processor = kind.dialect_impl(conn.dialect).bind_processor(conn.dialect)
            if processor is not None:
                encode[index] = processor
    return encode


def _encoded(encode: dict[int, Callable[[Any], Any]], row: _Row) -> _Row:
    if all(row[at] is None for at in encode):
        return row
    values = list(row)
    for at, to_text in encode.items():
        values[at] = to_text(values[at])
    return tuple(values)
