"""The rows that decide, held against the ledger: each must be what the last record about it states.

A record of a change carries in its detail the SHA-256 of the row that it left: `state` for the row that
`resource` names ("" for one that is gone), or `states`, a list of names and digests. What the rows themselves
are is `gateway.store.sealed_rows`; whoever has the key of the seals can forge a seal, but not a record.
"""

import sqlite3
from collections.abc import Iterator
from typing import Any

from gateway.audit.check import Report
from gateway.audit.records import AuditEvent
from gateway.store.sealed_rows import TABLES, Sealed, state_of
from gateway.store.sealing import stored_row

_LINKS = {
    Sealed.USER: (
        "SELECT user_id, role, department_id FROM user_roles",
        "SELECT user_id, code_hash FROM recovery_codes",
    ),
    Sealed.CAMERA: (
        "SELECT camera_id, group_id FROM group_cameras",
        "SELECT camera_id, tag FROM camera_tags",
    ),
}


class RowStates:
    """Takes the ledger's events in order, then holds the database of the same snapshot against them."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._states: dict[str, bytes] = {}

    def take(self, event: AuditEvent) -> None:
        state, states = event.detail.get("state"), event.detail.get("states")
        if isinstance(state, str) and event.resource is not None:
            self._state(event.resource, state)
        for text in states if isinstance(states, list) else ():
            name, _, state = text.rpartition(" ")
            self._state(name, state)

    def check(self, connection: sqlite3.Connection, *, is_complete: bool) -> None:
        """Report each row that is not as recorded (`row_unrecorded`) and each that is gone (`row_missing`).

        `is_complete`: no record was removed, so every row must have one. A ledger that states nothing is
        older than the seals. Raise sqlite3.DatabaseError.
        """
        if not self._states and is_complete:
            return
        for kind in Sealed:
            for name, content in _rows(connection, kind):
                stated = self._states.pop(name, None)
                if stated is None and not is_complete:
                    continue
                if content is None or stated != bytes.fromhex(state_of(content)):
                    self._report.add(
                        "row_unrecorded", f"{name} is not what the ledger's last record of it states"
                    )
        for name, stated in self._states.items():
            if stated:
                self._report.add("row_missing", f"{name} is gone, and no record says so")

    def _state(self, name: str, state: str) -> None:
        try:
            self._states[name] = bytes.fromhex(state)
        except ValueError:
            self._report.add("malformed", f"the state of {name} is no digest")


def _rows(connection: sqlite3.Connection, kind: Sealed) -> Iterator[tuple[str, bytes | None]]:
    links = [_linked(connection, query) for query in _LINKS.get(kind, ())]
    live = " WHERE revoked_at IS NULL" if kind is Sealed.GRANT else ""
    cursor = connection.execute(f"SELECT * FROM {TABLES[kind].name}{live}")  # noqa: S608 - our own names
    names = [column[0] for column in cursor.description]
    for values in cursor:
        columns = dict(zip(names, values, strict=True))
        identifier = columns["name" if kind is Sealed.ROLE else "id"]
        stored = stored_row(kind, columns, *(found.get(identifier, ()) for found in links))
        yield f"{kind}:{identifier}", stored.content


def _linked(connection: sqlite3.Connection, query: str) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for owner, *values in connection.execute(query):
        found.setdefault(owner, []).append(values[0] if len(values) == 1 else tuple(values))
    return found
