"""Many rows into a table at once, past SQLAlchemy's handling of each row's parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import asyncpg
import sqlalchemy as sa
from sqlalchemy.exc import DataError, IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection


async def insert_rows(
    conn: AsyncConnection, table: sa.Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> None:
    """Insert `rows`, each with the values of `columns`; None is NULL, in a column of JSON too.

    On PostgreSQL by COPY. Raise what an INSERT raises, of SQLAlchemy's errors: IntegrityError, DataError,
    OperationalError.
    """
    rows = _with_json_as_text(conn, table, columns, rows)
    if conn.dialect.name == "postgresql":
        await _copy(conn, table, columns, rows)
    elif rows:
        marks = ", ".join("?" * len(columns))
        # the names are the schema's
        statement = f"INSERT INTO {table.name} ({', '.join(columns)}) VALUES ({marks})"  # noqa: S608
        await conn.exec_driver_sql(statement, list(rows))


async def _copy(
    conn: AsyncConnection, table: sa.Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
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


def _with_json_as_text(
    conn: AsyncConnection, table: sa.Table, columns: Sequence[str], rows: Sequence[tuple[Any, ...]]
) -> Sequence[tuple[Any, ...]]:
    """The drivers take every other value as it is."""
    encode: dict[int, Callable[[Any], Any]] = {}
    for index, column in enumerate(columns):
        kind = table.c[column].type
        if isinstance(kind, sa.JSON):
            processor = kind.dialect_impl(conn.dialect).bind_processor(conn.dialect)
            if processor is not None:
                encode[index] = processor
    if not encode:
        return rows
    return [_encoded(row, encode) for row in rows]


def _encoded(row: tuple[Any, ...], encode: dict[int, Callable[[Any], Any]]) -> tuple[Any, ...]:
    if all(row[at] is None for at in encode):
        return row
    values = list(row)
    for at, to_text in encode.items():
        values[at] = to_text(values[at])
    return tuple(values)
