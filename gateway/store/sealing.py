"""Sealing rows in the database: in the unit that changed them, together with the sums over their kind.

Each change's record carries `state`, the digest of the row that it left (several rows: `states`), and
`policy`, a mark over all sums: an older state of the tables does not fit the newest such record.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, NamedTuple

import msgspec
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from gateway.audit.records import AuditKind
from gateway.store.schema import (
    camera_tags,
    grants,
    group_cameras,
    installation,
    policy_sums,
    recovery_codes,
    user_roles,
)
from gateway.store.sealed_rows import (
    TABLES,
    Sealed,
    camera_content,
    grant_content,
    key_of,
    role_content,
    state_of,
    tree_content,
    user_content,
)
from gateway.store.seals import Seals, Total

MARKED = (
    AuditKind.INSTALLATION,
    AuditKind.GRANT,
    AuditKind.REVOKE,
    AuditKind.USER_CREATED,
    AuditKind.USER_CHANGED,
    AuditKind.KEY_ISSUED,
    AuditKind.SECOND_FACTOR_CHANGED,
    AuditKind.DEPARTMENT_CREATED,
    AuditKind.DEPARTMENT_CHANGED,
    AuditKind.DEPARTMENT_DELETED,
    AuditKind.GROUP_CREATED,
    AuditKind.GROUP_CHANGED,
    AuditKind.GROUP_DELETED,
    AuditKind.CAMERA_CREATED,
    AuditKind.CAMERA_CHANGED,
    AuditKind.CAMERA_DELETED,
    AuditKind.CATALOGUE_IMPORTED,
    AuditKind.POLICY_CHANGED,
    AuditKind.POLICY_FROZEN,
    AuditKind.POLICY_CONFIRMED,
    AuditKind.POLICY_FILE_ACCEPTED,
)
"""The kinds of records that state what was sealed; what another one stated would pass for an older state."""
BATCH = 500
"""Rows that one statement names."""
POLICY_STATE = "policy_state"
"""The key in `installation`."""

RowName = tuple[Sealed, str]


class RowChange(NamedTuple):
    """`old` and `new`: its seals; None before it was made and after it was removed. `state`: the ledger's."""

    kind: Sealed
    id: str
    old: bytes | None
    new: bytes | None
    state: str

    @property
    def name(self) -> str:
        return f"{self.kind}:{self.id}"


class StoredRow(NamedTuple):
    """A row as it is in the database; `content` None: nobody can read it.

    `fields`: its columns as attributes, their JSON decoded; None where that is broken.
    """

    id: str
    content: bytes | None
    seal: bytes | None
    is_denial: bool
    fields: Any = None

    def fits(self, seals: Seals) -> bool:
        return self.content is not None and seals.fits(self.seal, self.content)


class PolicyState(msgspec.Struct, frozen=True, kw_only=True):
    """What holds for the whole policy.

    `epoch`: grants of another one are frozen; `frozen_since`: microseconds, None if none ever was.
    `strayed`: the roots (base64) of heads that this ledger does not continue, for which was frozen.
    `file`, `roles`: the SHA-256 of the accepted policies file, and of each role in it; None before the first.
    """

    epoch: int = 0
    frozen_since: int | None = None
    strayed: tuple[str, ...] = ()
    file: str | None = None
    roles: dict[str, str] | None = None


_state_json = msgspec.json.Encoder(order="sorted")


async def read_policy_state(conn: AsyncConnection, seals: Seals) -> PolicyState | None:
    """None if there is none, or somebody else wrote it."""
    query = sa.select(installation.c.value).where(installation.c.key == POLICY_STATE)
    mark, _, text = ((await conn.execute(query)).scalar_one_or_none() or "").partition(" ")
    if mark != seals.mark(b"state" + text.encode()).hex():
        return None
    return msgspec.json.decode(text, type=PolicyState)


async def write_policy_state(conn: AsyncConnection, seals: Seals, state: PolicyState) -> None:
    text = _state_json.encode(state)
    value = f"{seals.mark(b'state' + text).hex()} {text.decode()}"
    await conn.execute(sa.delete(installation).where(installation.c.key == POLICY_STATE))
    await conn.execute(sa.insert(installation).values(key=POLICY_STATE, value=value))


async def seal_rows(
    conn: AsyncConnection, seals: Seals, rows: Iterable[RowName], *, epoch: int | None = None
) -> list[RowChange]:
    """Seal rows as they now are; `epoch`: of the grants, else a new grant gets the present one."""
    changes: list[RowChange] = []
    for kind, identifiers in _by_kind(rows).items():
        if kind is Sealed.GRANT:
            await _set_epoch(conn, seals, identifiers, epoch)
        made = [
            RowChange(kind, row.id, row.seal, seals.seal(content, is_denial=row.is_denial), state_of(content))
            async for row in read_rows(conn, kind, identifiers)
            if (content := row.content) is not None
        ]
        await write_seals(conn, made)
        changes += made
    return changes


async def unseal_rows(conn: AsyncConnection, rows: Iterable[RowName]) -> list[RowChange]:
    """To be called before rows are deleted, or grants revoked."""
    changes: list[RowChange] = []
    for kind, identifiers in _by_kind(rows).items():
        found = await seals_of(conn, kind, identifiers)
        gone = [RowChange(kind, identifier, seal, None, "") for identifier, seal in found.items()]
        await write_seals(conn, gone)
        changes += gone
    return changes


async def write_seals(conn: AsyncConnection, changes: Sequence[RowChange]) -> None:
    """Of rows of one kind."""
    if changes:
        kind = changes[0].kind
        update = sa.update(TABLES[kind]).where(key_of(kind) == sa.bindparam("_id"))
        await conn.execute(
            update.values(seal=sa.bindparam("_seal")), [{"_id": c.id, "_seal": c.new} for c in changes]
        )


async def add_up(conn: AsyncConnection, seals: Seals, changes: Sequence[RowChange]) -> str:
    """Bring the sums to what the changes left; return the mark of all of them, for the ledger."""
    totals = await read_totals(conn, seals)
    touched = set()
    for number, change in enumerate(changes, 1):
        if number % BATCH == 0:
            # an import changes a city's cameras: the loop must not stand still
            await asyncio.sleep(0)
        # of a kind whose sum somebody broke, the next start finds that it does not fit
        total = totals.setdefault(change.kind, Total())
        if change.old is not None:
            total.take(seals.summand(change.old))
        if change.new is not None:
            total.add(seals.summand(change.new))
        touched.add(change.kind)
    await write_totals(conn, seals, {kind: totals[kind] for kind in touched})
    return await policy_mark(conn, seals)


async def read_totals(conn: AsyncConnection, seals: Seals) -> dict[Sealed, Total]:
    """Without those that are missing or that somebody else wrote."""
    found = {}
    for row in await conn.execute(sa.select(policy_sums)):
        if row.kind in set(Sealed) and row.seal == _sum_seal(seals, row.kind, row.rows, row.total):
            found[Sealed(row.kind)] = Total(row.rows, int.from_bytes(row.total, "big"))
    return found


async def write_totals(conn: AsyncConnection, seals: Seals, totals: dict[Sealed, Total]) -> None:
    kinds = [kind.value for kind in totals]
    rows = []
    for kind, total in totals.items():
        value = total.total.to_bytes(16, "big")
        seal = _sum_seal(seals, kind, total.rows, value)
        rows.append({"kind": kind.value, "rows": total.rows, "total": value, "seal": seal})
    if rows:
        await conn.execute(sa.delete(policy_sums).where(policy_sums.c.kind.in_(kinds)))
        await conn.execute(sa.insert(policy_sums), rows)


async def policy_mark(conn: AsyncConnection, seals: Seals) -> str:
    """Of all sums and of the policy's state, as they are in the database."""
    sums = await conn.execute(sa.select(policy_sums.c.seal).order_by(policy_sums.c.kind))
    query = sa.select(installation.c.value).where(installation.c.key == POLICY_STATE)
    state = (await conn.execute(query)).scalar_one_or_none() or ""
    return seals.mark(b"policy" + b"".join(sums.scalars()) + state.encode()).hex()


async def read_rows(
    conn: AsyncConnection, kind: Sealed, identifiers: Collection[str]
) -> AsyncIterator[StoredRow]:
    """Those of the rows that are there, in no particular order."""
    table, key, wanted = TABLES[kind], key_of(kind), list(identifiers)
    for start in range(0, len(wanted), BATCH):
        names = wanted[start : start + BATCH]
        links: dict[str, list[list[Any]]] = {}
        for owner, columns in _LINKS.get(kind, ()):
            pairs = await conn.execute(sa.select(owner, *columns).where(owner.in_(names)))
            found: dict[str, list[Any]] = {}
            for pair in pairs:
                found.setdefault(pair[0], []).append(pair[1] if len(columns) == 1 else tuple(pair[1:]))
            for name in names:
                links.setdefault(name, []).append(found.get(name, []))
        rows = (await conn.execute(sa.select(*map(raw, table.c)).where(key.in_(names)))).all()
        for row in by_name(rows):
            yield stored_row(kind, row, *links.get(row[key.name], ()))


def by_name(rows: Sequence[sa.Row[Any]]) -> Iterator[dict[str, Any]]:
    """Each row's values by the names of their columns, which are asked for once: that takes long."""
    names = rows[0]._fields if rows else ()
    return (dict(zip(names, row, strict=True)) for row in rows)


def stored_row(kind: Sealed, columns: Mapping[str, Any], *links: Any) -> StoredRow:
    """Of a row's columns, selected `raw`; `links`: see `_LINKS`."""
    fields = content = None
    with contextlib.suppress(msgspec.MsgspecError, TypeError, ValueError):
        fields = decoded(TABLES[kind], columns)
        content = _content(kind, fields, *links)
    identifier = columns["name"] if kind is Sealed.ROLE else columns["id"]
    is_denial = kind is Sealed.GRANT and columns["effect"] == "deny"
    return StoredRow(identifier, content, columns["seal"], is_denial, fields)


def raw(column: sa.Column[Any]) -> sa.ColumnElement[Any]:
    """JSON as its text, so that one that is broken fails where it is decoded, not where the page is read."""
    if not isinstance(column.type, sa.JSON):
        return column
    return sa.cast(column, sa.Text).label(column.name)


def decoded(table: sa.Table, columns: Mapping[str, Any]) -> Any:
    """A row's columns as attributes, their JSON decoded. Raise msgspec.MsgspecError or ValueError."""
    fields = SimpleNamespace(**columns)
    values = vars(fields)
    for name in _JSON_COLUMNS[table.name]:
        if values[name] is not None:
            values[name] = msgspec.json.decode(values[name])
    return fields


def _content(kind: Sealed, row: Any, *links: Any) -> bytes:
    match kind:
        case Sealed.GRANT:
            return grant_content(row)
        case Sealed.USER:
            return user_content(row, *links)
        case Sealed.ROLE:
            return role_content(row)
        case Sealed.CAMERA:
            return camera_content(
                row.id,
                row.department_id,
                bool(row.enabled),
                (row.sharing_mode, row.sharing_departments, row.sharing_until, row.sharing_purposes),
                *links,
            )
        case _:
            return tree_content(kind, row)


_JSON_COLUMNS = {
    table.name: [column.name for column in table.c if isinstance(column.type, sa.JSON)]
    for table in TABLES.values()
}
_LINKS = {
    Sealed.USER: (
        (user_roles.c.user_id, (user_roles.c.role, user_roles.c.department_id)),
        (recovery_codes.c.user_id, (recovery_codes.c.code_hash,)),
    ),
    Sealed.CAMERA: (
        (group_cameras.c.camera_id, (group_cameras.c.group_id,)),
        (camera_tags.c.camera_id, (camera_tags.c.tag,)),
    ),
}
"""What belongs to a row: by the column that names it."""


async def seals_of(
    conn: AsyncConnection, kind: Sealed, identifiers: Sequence[str]
) -> dict[str, bytes | None]:
    """By id, of the rows that are there."""
    found: dict[str, bytes | None] = {}
    key = key_of(kind)
    for start in range(0, len(identifiers), BATCH):
        query = sa.select(key, TABLES[kind].c.seal).where(key.in_(identifiers[start : start + BATCH]))
        found |= {row[0]: row[1] for row in await conn.execute(query)}
    return found


async def _set_epoch(
    conn: AsyncConnection, seals: Seals, identifiers: Sequence[str], epoch: int | None
) -> None:
    state = None if epoch is not None else await read_policy_state(conn, seals)
    for start in range(0, len(identifiers), BATCH):
        change = sa.update(grants).where(grants.c.id.in_(identifiers[start : start + BATCH]))
        if epoch is None:
            change = change.where(grants.c.seal.is_(None))
        await conn.execute(change.values(epoch=state.epoch if epoch is None and state else epoch or 0))


def _by_kind(rows: Iterable[RowName]) -> dict[Sealed, list[str]]:
    found: dict[Sealed, list[str]] = {}
    for kind, identifier in rows:
        found.setdefault(kind, []).append(identifier)
    return found


def _sum_seal(seals: Seals, kind: str, rows: int, total: bytes) -> bytes:
    return seals.mark(f"sum {kind} {rows} ".encode() + total)
