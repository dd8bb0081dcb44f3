"""Ledgers to verify, and every way to alter one that a person with the file could think of."""

import base64
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from support.databases import looked

from gateway.audit.merkle import hash_leaf
from gateway.store import Store, StoreSettings

RECORDS = 300
"""More than 256, so that a node of level 8 is stored."""


async def write_ledger(folder: Path, records: int = RECORDS, commits: int = 20) -> None:
    """A folder with so many records, in about so many commits, one head published in the middle."""
    times = iter(range(1_700_000_000_000_000, 1_800_000_000_000_000, 1_000_000))
    async with Store.open(StoreSettings(folder), clock=lambda: next(times)) as store:
        step = -(-records // commits)
        for start in range(0, records, step):
            numbers = range(start, min(start + step, records))
            await store.record(*(looked(f"记录 {i}", session_id=f"s{i % 7}") for i in numbers))
            if start <= records // 2 < start + step:
                await store.publish()


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def altered(value: object, rng: random.Random) -> object:
    """Another value of the same type, one bit or one step away."""
    if isinstance(value, bytes):
        if not value:
            return b"x"
        position = rng.randrange(len(value))
        return value[:position] + bytes([value[position] ^ 1 << rng.randrange(8)]) + value[position + 1 :]
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 256))
    return "x" if value is None else str(value) + "x"


def edit(connection: sqlite3.Connection, table: str, rng: random.Random) -> str:
    rowid, *_ = rng.choice(connection.execute(f"SELECT rowid FROM {table}").fetchall())  # noqa: S608
    column = rng.choice(columns(connection, table))
    value = connection.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()[0]  # noqa: S608
    new = altered(value, rng)
    connection.execute(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE rowid = ?", (new, rowid))  # noqa: S608
    return f"{table}.{column} of {rowid}: {value!r} -> {new!r}"


def delete(connection: sqlite3.Connection, table: str, rng: random.Random) -> str:
    rowid, *_ = rng.choice(connection.execute(f"SELECT rowid FROM {table}").fetchall())  # noqa: S608
    connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))  # noqa: S608
    return f"delete {rowid} of {table}"


def insert(connection: sqlite3.Connection, _table: str, rng: random.Random) -> str:
    """A record put between two others, those after it moved up."""
    size = connection.execute("SELECT count(*) FROM audit_records").fetchone()[0]
    place = rng.randrange(size + 1)
    connection.execute("UPDATE audit_records SET seq = -seq - 2 WHERE seq >= ?", (place,))
    connection.execute("UPDATE audit_records SET seq = -seq - 1 WHERE seq < 0")
    names = columns(connection, "audit_records")
    source = rng.choice([i for i in range(size + 1) if i != place])
    copied = ", ".join(names[1:])
    connection.execute(
        f"INSERT INTO audit_records (seq, {copied}) SELECT ?, {copied} FROM audit_records WHERE seq = ?",  # noqa: S608
        (place, source),
    )
    return f"insert a copy of {source} at {place}"


def swap(connection: sqlite3.Connection, _table: str, rng: random.Random) -> str:
    size = connection.execute("SELECT count(*) FROM audit_records").fetchone()[0]
    one, two = rng.sample(range(size), 2)
    for before, after in ((one, -1), (two, one), (-1, two)):
        connection.execute("UPDATE audit_records SET seq = ? WHERE seq = ?", (after, before))
    return f"swap {one} and {two}"


def truncate(connection: sqlite3.Connection, _table: str, rng: random.Random) -> str:
    size = connection.execute("SELECT count(*) FROM audit_records").fetchone()[0]
    keep = rng.randrange(size)
    connection.execute("DELETE FROM audit_records WHERE seq >= ?", (keep,))
    return f"keep {keep} records"


def truncate_with_heads(connection: sqlite3.Connection, table: str, rng: random.Random) -> str:
    done = truncate(connection, table, rng)
    connection.execute("DELETE FROM audit_heads WHERE tree_size > (SELECT count(*) FROM audit_records)")
    connection.execute("UPDATE audit_state SET size = (SELECT count(*) FROM audit_records)")
    return f"{done}, and no later heads"


def forge(connection: sqlite3.Connection, _table: str, rng: random.Random) -> str:
    """A leaf rewritten with a matching hash and matching readable columns."""
    seq, leaf = rng.choice(connection.execute("SELECT seq, leaf FROM audit_records").fetchall())
    new = leaf.replace("张三".encode(), "李四".encode())
    connection.execute(
        "UPDATE audit_records SET leaf = ?, leaf_hash = ?, actor_name = '李四' WHERE seq = ?",
        (new, hash_leaf(new), seq),
    )
    return f"forge {seq}"


def retype(connection: sqlite3.Connection, _table: str, rng: random.Random) -> str:
    """The same bytes, as text."""
    seq = rng.choice(connection.execute("SELECT seq FROM audit_records").fetchall())[0]
    connection.execute("UPDATE audit_records SET leaf = CAST(leaf AS TEXT) WHERE seq = ?", (seq,))
    return f"retype {seq}"


Mutation = Callable[[sqlite3.Connection, str, random.Random], str]
MUTATIONS: list[tuple[Mutation, str, int]] = [
    (edit, "audit_records", 120),
    (edit, "audit_heads", 50),
    (edit, "audit_state", 20),
    (edit, "audit_nodes", 10),
    (delete, "audit_records", 20),
    (delete, "audit_heads", 20),
    (delete, "audit_state", 1),
    (delete, "audit_nodes", 1),
    (insert, "audit_records", 15),
    (swap, "audit_records", 15),
    (truncate, "audit_records", 10),
    (truncate_with_heads, "audit_records", 10),
    (forge, "audit_records", 15),
    (retype, "audit_records", 3),
]
"""A mutation, its table, and how many times it is tried."""


def mutate(folder: Path, mutation: Mutation, table: str, rng: random.Random) -> str:
    with closing(sqlite3.connect(folder / "custos.db")) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        with connection:
            return mutation(connection, table, rng)


def mutate_export(lines: list[bytes], rng: random.Random) -> tuple[str, list[bytes]]:
    """One line of an export altered, removed, doubled, moved, or the file cut there."""
    place = rng.randrange(len(lines))
    kind = rng.choice(["bit", "remove", "double", "swap", "cut", "leaf"])
    line, rest = lines[place], lines[place + 1 :]
    match kind:
        case "bit":
            position = rng.randrange(len(line) - 1)
            spoilt = line[:position] + bytes([line[position] ^ 1 << rng.randrange(7)]) + line[position + 1 :]
            return f"{kind} {place}", [*lines[:place], spoilt, *rest]
        case "remove":
            return f"{kind} {place}", lines[:place] + rest
        case "double":
            return f"{kind} {place}", [*lines[:place], line, line, *rest]
        case "swap":
            other = rng.choice([i for i in range(len(lines)) if lines[i] != line])
            moved = list(lines)
            moved[place], moved[other] = moved[other], moved[place]
            return f"{kind} {place} {other}", moved
        case "cut":
            return f"{kind} {place}", [*lines[:place], line[: rng.randrange(len(line))]]
        case _:
            fake = base64.b64encode(b'{"v":1}')
            return f"{kind} {place}", [
                *lines[:place],
                b'{"type":"record","seq":0,"leaf":"%b"}\n' % fake,
                *rest,
            ]
