"""Every way to alter a ledger that a person with its file, but without its key, could think of."""

import csv
import io
import random
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from support.databases import looked
from support.ledgers import DATABASE, Written

from gateway.audit.heads import Signer, parse_head
from gateway.audit.lines import EndLine, ExportFormat, HeadLine, RecordLine, from_base64, to_base64
from gateway.audit.merkle import STORED_LEVELS, Frontier, hash_leaf
from gateway.audit.records import AuditRecord, parse, serialize

Mutation = Callable[[sqlite3.Connection, random.Random], str]
Lines = list[bytes]
LineMutation = Callable[[ExportFormat, Lines, random.Random], Lines]


def columns(connection: sqlite3.Connection, table: str) -> list[str]:
    return [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]


def altered(value: object, rng: random.Random) -> object:
    """Another value of the same type, one bit or one step away."""
    if isinstance(value, bytes):
        if not value:
            return b"x"
        return flipped(value, rng)
    if isinstance(value, int):
        return value + rng.choice((-1, 1, 256))
    return "x" if value is None else str(value) + "x"


def flipped(data: bytes, rng: random.Random) -> bytes:
    position = rng.randrange(len(data))
    return data[:position] + bytes([data[position] ^ 1 << rng.randrange(8)]) + data[position + 1 :]


def size_of(connection: sqlite3.Connection, table: str = "audit_records") -> int:
    return int(connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def edit(table: str) -> Mutation:
    def mutation(connection: sqlite3.Connection, rng: random.Random) -> str:
        row = rng.randrange(size_of(connection, table))
        rowid = connection.execute(f"SELECT rowid FROM {table} LIMIT 1 OFFSET ?", (row,)).fetchone()[0]  # noqa: S608
        column = rng.choice(columns(connection, table))
        value = connection.execute(f"SELECT {column} FROM {table} WHERE rowid = ?", (rowid,)).fetchone()[0]  # noqa: S608
        new = altered(value, rng)
        connection.execute(f"UPDATE OR REPLACE {table} SET {column} = ? WHERE rowid = ?", (new, rowid))  # noqa: S608
        return f"{table}.{column} of {rowid}: {value!r} -> {new!r}"

    return mutation


def delete(table: str) -> Mutation:
    def mutation(connection: sqlite3.Connection, rng: random.Random) -> str:
        row = rng.randrange(size_of(connection, table))
        rowid = connection.execute(f"SELECT rowid FROM {table} LIMIT 1 OFFSET ?", (row,)).fetchone()[0]  # noqa: S608
        connection.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))  # noqa: S608
        return f"delete {rowid} of {table}"

    return mutation


def clear(table: str) -> Mutation:
    def mutation(connection: sqlite3.Connection, _rng: random.Random) -> str:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
        return f"clear {table}"

    return mutation


def _make_room(connection: sqlite3.Connection, place: int) -> None:
    connection.execute("UPDATE audit_records SET seq = -seq - 2 WHERE seq >= ?", (place,))
    connection.execute("UPDATE audit_records SET seq = -seq - 1 WHERE seq < 0")


def duplicate(connection: sqlite3.Connection, rng: random.Random) -> str:
    """A copy of a record put somewhere, those after it moved up."""
    size = size_of(connection)
    place = rng.randrange(size + 1)
    _make_room(connection, place)
    names = columns(connection, "audit_records")
    source = rng.choice([i for i in range(size + 1) if i != place])
    copied = ", ".join(names[1:])
    connection.execute(
        f"INSERT INTO audit_records (seq, {copied}) SELECT ?, {copied} FROM audit_records WHERE seq = ?",  # noqa: S608
        (place, source),
    )
    return f"insert a copy of {source} at {place}"


def insert(connection: sqlite3.Connection, rng: random.Random) -> str:
    """A well-formed record that never was, those after it moved up."""
    place = rng.randrange(size_of(connection) + 1)
    _make_room(connection, place)
    names = columns(connection, "audit_records")
    copied = ", ".join(names[1:])
    source = place - 1 if place else 1
    connection.execute(
        f"INSERT INTO audit_records (seq, {copied}) SELECT ?, {copied} FROM audit_records WHERE seq = ?",  # noqa: S608
        (place, source),
    )
    at = connection.execute("SELECT at FROM audit_records WHERE seq = ?", (source,)).fetchone()[0]
    _write(connection, AuditRecord(seq=place, at=at, event=looked("never was")))
    return f"insert at {place}"


def _write(connection: sqlite3.Connection, record: AuditRecord) -> None:
    leaf, disclosures = serialize(record)
    names = ("kind", "outcome", "actor_id", "actor_name", "unit_id", "unit_name", "camera_id", "owner_id")
    readable = (*names, "session_id")
    values = [getattr(record.event, name) for name in readable]
    assignments = ", ".join(f"{name} = ?" for name in ("leaf", "leaf_hash", "disclosures", "at", *readable))
    connection.execute(
        f"UPDATE audit_records SET {assignments} WHERE seq = ?",  # noqa: S608
        (leaf, hash_leaf(leaf), disclosures, record.at, *values, record.seq),
    )


def _permute(connection: sqlite3.Connection, places: list[int], moved: list[int]) -> None:
    for before, after in zip(places, moved, strict=True):
        connection.execute("UPDATE audit_records SET seq = ? WHERE seq = ?", (-after - 1, before))
    connection.execute("UPDATE audit_records SET seq = -seq - 1 WHERE seq < 0")


def swap(connection: sqlite3.Connection, rng: random.Random) -> str:
    one, two = rng.sample(range(size_of(connection)), 2)
    _permute(connection, [one, two], [two, one])
    return f"swap {one} and {two}"


def reorder(connection: sqlite3.Connection, rng: random.Random) -> str:
    """A run of records turned round."""
    start = rng.randrange(size_of(connection) - 1)
    end = rng.randrange(start + 2, size_of(connection) + 1)
    places = list(range(start, end))
    _permute(connection, places, places[::-1])
    return f"turn {start} to {end} round"


def swap_columns(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Two records change their disclosures."""
    one, two = rng.sample(range(size_of(connection)), 2)
    kept = [
        connection.execute("SELECT disclosures FROM audit_records WHERE seq = ?", (seq,)).fetchone()[0]
        for seq in (one, two)
    ]
    for seq, disclosures in ((one, kept[1]), (two, kept[0])):
        connection.execute("UPDATE audit_records SET disclosures = ? WHERE seq = ?", (disclosures, seq))
    return f"swap the disclosures of {one} and {two}"


def erase_in_silence(connection: sqlite3.Connection, rng: random.Random) -> str:
    """As an erasure does it, without its record."""
    rows = connection.execute("SELECT seq, disclosures FROM audit_records").fetchall()
    seq, disclosures = rng.choice(rows)
    left = msgspec.json.decode(disclosures)
    name = rng.choice(sorted(left))
    del left[name]
    new = msgspec.json.encode(left, order="sorted")
    connection.execute("UPDATE audit_records SET disclosures = ? WHERE seq = ?", (new, seq))
    if name == "actor_name":
        connection.execute("UPDATE audit_records SET actor_name = NULL WHERE seq = ?", (seq,))
    return f"erase {name} of {seq}"


def add_subject(connection: sqlite3.Connection, rng: random.Random) -> str:
    """A record put before somebody's eyes whom it does not name."""
    seq = rng.randrange(size_of(connection) + 2)
    connection.execute("INSERT INTO audit_subjects (seq, subject) VALUES (?, 'owner:d9')", (seq,))
    return f"add a subject to {seq}"


def truncate(connection: sqlite3.Connection, rng: random.Random) -> str:
    keep = rng.randrange(size_of(connection))
    connection.execute("DELETE FROM audit_records WHERE seq >= ?", (keep,))
    return f"keep {keep} records"


def truncate_with_heads(connection: sqlite3.Connection, rng: random.Random) -> str:
    done = truncate(connection, rng)
    recomputed(connection, None)
    return f"{done}, and no later heads"


def forge(connection: sqlite3.Connection, rng: random.Random) -> str:
    """Another record with a matching hash and matching readable columns."""
    return f"forge {_forge(connection, rng)}"


def _forge(connection: sqlite3.Connection, rng: random.Random) -> int:
    rows = connection.execute("SELECT leaf, disclosures FROM audit_records").fetchall()
    # who has the key and fits everything else leaves an erasure as it is
    record = rng.choice([record for row in rows if not (record := parse(*row)).erased])
    event = msgspec.structs.replace(record.event, actor_name="李四", content="看了别的")
    _write(connection, AuditRecord(seq=record.seq, at=record.at, event=event))
    return record.seq


def retype(connection: sqlite3.Connection, rng: random.Random) -> str:
    """The same bytes, as text."""
    seq, column = rng.randrange(size_of(connection)), rng.choice(("leaf", "disclosures"))
    connection.execute(f"UPDATE audit_records SET {column} = CAST({column} AS TEXT) WHERE seq = ?", (seq,))  # noqa: S608
    return f"retype {column} of {seq}"


def recompute(connection: sqlite3.Connection, rng: random.Random) -> str:
    """A record forged, and every hash after it as if it had always been so; the heads signed by somebody."""
    seq = _forge(connection, rng)
    signer = Signer(_origin(connection), Ed25519PrivateKey.generate()) if rng.random() < 0.5 else None
    recomputed(connection, signer)
    return f"forge {seq} and recompute{'' if signer is None else ' and sign'}"


def rebuild(signer: Signer) -> Mutation:
    """As `recompute`, by somebody who has the key."""

    def mutation(connection: sqlite3.Connection, rng: random.Random) -> str:
        seq = _forge(connection, rng)
        recomputed(connection, signer)
        return f"forge {seq} with the key"

    return mutation


def recomputed(connection: sqlite3.Connection, signer: Signer | None) -> None:
    """Nodes, state and heads made to fit the records; heads keep their signatures if nobody signs."""
    heads = connection.execute("SELECT tree_size, previous_size, signed_at FROM audit_heads").fetchall()
    by_size = {size: (previous, at) for size, previous, at in heads}
    frontier = Frontier()
    connection.execute("DELETE FROM audit_nodes")
    rows = connection.execute("SELECT seq, leaf, at FROM audit_records ORDER BY seq").fetchall()
    last_at = 0
    for seq, leaf, at in rows:
        last_at = max(last_at, at)
        hashed = hash_leaf(leaf)
        connection.execute("UPDATE audit_records SET leaf_hash = ? WHERE seq = ?", (hashed, seq))
        for node in frontier.append(hashed):
            if node.level in STORED_LEVELS:
                connection.execute(
                    "INSERT INTO audit_nodes (level, idx, hash) VALUES (?, ?, ?)",
                    (node.level, node.index, node.hash),
                )
        size = frontier.size
        if size in by_size:
            root = frontier.root()
            connection.execute("UPDATE audit_heads SET root = ? WHERE tree_size = ?", (root, size))
            if signer is not None:
                signature = signer.sign(size, by_size[size][0], root, by_size[size][1]).signature
                connection.execute(
                    "UPDATE audit_heads SET signature = ? WHERE tree_size = ?", (signature, size)
                )
    connection.execute("DELETE FROM audit_heads WHERE tree_size > ?", (frontier.size,))
    connection.execute(
        "UPDATE audit_state SET size = ?, frontier = ?, last_at = ?",
        (frontier.size, frontier.to_bytes(), last_at),
    )


def _origin(connection: sqlite3.Connection) -> str:
    row = connection.execute("SELECT value FROM installation WHERE key = 'id'").fetchone()
    return f"custos/{row[0]}"


DATABASE_MUTATIONS: dict[str, tuple[Mutation, int]] = {
    "edit a record": (edit("audit_records"), 30),
    "edit a head": (edit("audit_heads"), 10),
    "edit a subject": (edit("audit_subjects"), 4),
    "edit the state": (edit("audit_state"), 3),
    "edit a node": (edit("audit_nodes"), 1),
    "delete a record": (delete("audit_records"), 6),
    "delete a head": (delete("audit_heads"), 4),
    "delete a subject": (delete("audit_subjects"), 3),
    "delete the subjects": (clear("audit_subjects"), 1),
    "delete the state": (clear("audit_state"), 1),
    "delete the nodes": (clear("audit_nodes"), 1),
    "insert a record": (insert, 6),
    "insert a subject": (add_subject, 3),
    "duplicate a record": (duplicate, 6),
    "swap two records": (swap, 6),
    "reorder records": (reorder, 6),
    "swap disclosures": (swap_columns, 4),
    "erase in silence": (erase_in_silence, 6),
    "truncate": (truncate, 4),
    "truncate, heads too": (truncate_with_heads, 4),
    "forge a record": (forge, 6),
    "retype a column": (retype, 2),
    "recompute all hashes": (recompute, 6),
}
"""By name, with how often it is tried beside the others. `restore` is one more."""
NEED_NODES = ("edit a node", "delete the nodes")


def mutate(folder: Path, mutation: Mutation, rng: random.Random) -> str:
    with closing(sqlite3.connect(folder / DATABASE)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("PRAGMA ignore_check_constraints = ON")
        with connection:
            return mutation(connection, rng)


def restore(written: Written, folder: Path, rng: random.Random) -> str:
    """An older database under the published heads."""
    age = rng.randrange(len(written.older) - 1)
    (folder / DATABASE).write_bytes(written.older[age])
    return f"restore commit {age}"


def bit(lines: Lines, rng: random.Random) -> Lines:
    place = rng.randrange(len(lines))
    return [*lines[:place], flipped(lines[place], rng), *lines[place + 1 :]]


def drop_byte(lines: Lines, rng: random.Random) -> Lines:
    place = rng.randrange(len(lines))
    line = lines[place]
    position = rng.randrange(len(line))
    return [*lines[:place], line[:position] + line[position + 1 :], *lines[place + 1 :]]


def add_byte(lines: Lines, rng: random.Random) -> Lines:
    place = rng.randrange(len(lines))
    line = lines[place]
    position = rng.randrange(len(line))
    added = bytes([rng.choice(b' \t\r\n",=0Az\x00\xff')])
    return [*lines[:place], line[:position] + added + line[position:], *lines[place + 1 :]]


def remove(lines: Lines, rng: random.Random) -> Lines:
    place = rng.randrange(len(lines))
    return lines[:place] + lines[place + 1 :]


def double(lines: Lines, rng: random.Random) -> Lines:
    place, target = rng.randrange(len(lines)), rng.randrange(len(lines) + 1)
    return [*lines[:target], lines[place], *lines[target:]]


def exchange(lines: Lines, rng: random.Random) -> Lines:
    one, two = rng.sample(range(len(lines)), 2)
    moved = list(lines)
    moved[one], moved[two] = moved[two], moved[one]
    return moved


def turn(lines: Lines, rng: random.Random) -> Lines:
    start = rng.randrange(len(lines) - 1)
    end = rng.randrange(start + 2, len(lines) + 1)
    return [*lines[:start], *lines[start:end][::-1], *lines[end:]]


def cut(lines: Lines, rng: random.Random) -> Lines:
    place = rng.randrange(len(lines))
    return [*lines[:place], lines[place][: rng.randrange(len(lines[place]))]]


def forge_line(form: ExportFormat, lines: Lines, rng: random.Random) -> Lines:
    """Another record, in words and in bytes."""
    records = {
        place: parse(from_base64(line.leaf) or b"", from_base64(line.disclosures))
        for place, raw in enumerate(lines)
        if isinstance(line := form.read(raw), RecordLine)
    }
    place, record = rng.choice([(place, record) for place, record in records.items() if not record.erased])
    event = msgspec.structs.replace(record.event, actor_name="李四", content="看了别的")
    leaf, disclosures = serialize(AuditRecord(seq=record.seq, at=record.at, event=event))
    forged = RecordLine(record.seq, to_base64(leaf), to_base64(disclosures))
    return [*lines[:place], form.render(forged), *lines[place + 1 :]]


def recompute_lines(form: ExportFormat, lines: Lines, rng: random.Random) -> Lines:
    """A record forged, and every head after it made to fit and signed by somebody."""
    return resigned(form, forge_line(form, lines, rng), None)


def resigned(form: ExportFormat, lines: Lines, signer: Signer | None) -> Lines:
    """Heads as they would be for these records; without a signer signed with a new key."""
    frontier, done = Frontier(), []
    for raw in lines:
        line = form.read(raw)
        if isinstance(line, RecordLine):
            frontier.append(hash_leaf(from_base64(line.leaf) or b""))
        elif isinstance(line, HeadLine):
            head = parse_head(bytes(line.head)).head
            by = signer or Signer(head.origin, Ed25519PrivateKey.generate())
            signed = by.sign(head.size, head.previous_size, frontier.root(), head.signed_at)
            raw = form.render(HeadLine(msgspec.Raw(signed.to_line().strip())))  # noqa: PLW2901
        done.append(raw)
    return done


def fit_end(form: ExportFormat, lines: Lines, rng: random.Random) -> Lines:
    """Cut between two heads, the end made to count what is left."""
    records = [i for i, line in enumerate(lines) if isinstance(form.read(line), RecordLine)]
    inside = [i for i in records if isinstance(form.read(lines[i + 1]), RecordLine)]
    return ended(form, lines[: rng.choice(inside) + 1])


def ended(form: ExportFormat, lines: Lines) -> Lines:
    kinds = [type(form.read(line)) for line in lines]
    return [*lines, form.render(EndLine(kinds.count(RecordLine), kinds.count(HeadLine)))]


def edit_cell(form: ExportFormat, lines: Lines, rng: random.Random) -> Lines:
    """A readable cell of a CSV."""
    place = rng.choice([i for i, line in enumerate(lines) if isinstance(form.read(line), RecordLine)])
    cells = next(csv.reader([lines[place].decode()]))
    column = rng.randrange(1, len(cells) - 3)
    cells[column] = str(altered(cells[column], rng)) if cells[column] else "x"
    text = io.StringIO()
    csv.writer(text).writerow(cells)
    return [*lines[:place], text.getvalue().encode(), *lines[place + 1 :]]


def _of_any_form(mutation: Callable[[Lines, random.Random], Lines]) -> LineMutation:
    return lambda _form, lines, rng: mutation(lines, rng)


LINE_MUTATIONS: dict[str, tuple[LineMutation, int]] = {
    "flip a bit": (_of_any_form(bit), 8),
    "drop a byte": (_of_any_form(drop_byte), 4),
    "add a byte": (_of_any_form(add_byte), 4),
    "remove a line": (_of_any_form(remove), 3),
    "duplicate a line": (_of_any_form(double), 3),
    "swap two lines": (_of_any_form(exchange), 3),
    "reorder lines": (_of_any_form(turn), 3),
    "truncate": (_of_any_form(cut), 3),
    "truncate, end too": (fit_end, 3),
    "forge a record": (forge_line, 4),
    "recompute all hashes": (recompute_lines, 2),
}
CSV_MUTATIONS: dict[str, tuple[LineMutation, int]] = {**LINE_MUTATIONS, "edit a cell": (edit_cell, 8)}
"""By name, with how often it is tried beside the others."""
