"""What is found of the rows that decide: which are as they were sealed, and whether any is gone."""

from collections.abc import Iterable, Sequence
from typing import Any

import structlog

from gateway.audit.records import AuditEvent, AuditKind, Outcome
from gateway.store.sealed_rows import Sealed
from gateway.store.sealing import StoredRow
from gateway.store.seals import Seals, Total, is_of_denial
from policies.access import Reason

log = structlog.get_logger(__name__)

SealedRow = tuple[str, bytes | None, bytes | None]
"""A row's id, its seal, and what the seal was made of; None: nobody can read it."""

MAX_NAMED = 8
"""Of each kind, so many rows are named in the alarm and the log; all are counted."""


class SealedFacts:
    """Filled while rows are read. `unfit`: ids of the rows that are not what the ledger knows, by kind.

    `lost_denials`: seals of rows that were denials and are not now. `stored`: the sums in the database when
    `totals` were complete.
    """

    def __init__(self, seals: Seals) -> None:
        self._seals = seals
        self.totals = {kind: Total() for kind in Sealed}
        self.stored: dict[Sealed, Total] = {}
        self.unfit: dict[Sealed, list[str]] = {}
        self.lost_denials: dict[str, bytes] = {}

    def check(self, kind: Sealed, row: StoredRow) -> bool:
        """Count a row; whether it may count for anything."""
        return self.check_all(kind, [row])[0]

    def check_all(self, kind: Sealed, rows: Iterable[StoredRow]) -> list[bool]:
        """The same of many."""
        return self.check_sealed(kind, [(row.id, row.seal, row.content) for row in rows])

    def check_sealed(self, kind: Sealed, rows: Sequence[SealedRow]) -> list[bool]:
        """The same of what a seal takes of them."""
        fits, total = self._seals.check((seal, content) for _, seal, content in rows)
        self.totals[kind].join(total)
        if not all(fits):
            for (identifier, seal, _), fit in zip(rows, fits, strict=True):
                if not fit:
                    self._note_unfit(kind, identifier, seal)
        return fits

    def take_checked(self, kind: Sealed, total: Total, unfit: Iterable[str]) -> None:
        """Take over what another process found of rows, none of which could be a denial."""
        self.totals[kind].join(total)
        if named := list(unfit):
            self.unfit.setdefault(kind, []).extend(named)

    def count(self, kind: Sealed, seal: object) -> None:
        """Of a row that is counted only, whatever it holds."""
        if isinstance(seal, bytes):  # SQLite stores any type in any column
            self.totals[kind].add(self._seals.summand(seal))

    def alarm(self) -> AuditEvent:
        """The record of what was found unfit."""
        detail: dict[str, Any] = {}
        for kind, unfit in self.unfit.items():
            detail[f"{kind}_count"] = len(unfit)
            detail[f"{kind}_first"] = unfit[:MAX_NAMED]
        told = ", ".join(f"{len(unfit)} of kind {kind}" for kind, unfit in self.unfit.items())
        return AuditEvent(
            kind=AuditKind.POLICY_ALARM,
            outcome=Outcome.ERROR,
            content=f"rows that the ledger does not know count for nothing: {told}",
            reason=Reason.NOT_IN_LEDGER.value,
            detail=detail,
        )

    def _note_unfit(self, kind: Sealed, identifier: str, seal: bytes | None) -> None:
        if isinstance(seal, bytes) and is_of_denial(seal):
            self.lost_denials[identifier] = seal
        unfit = self.unfit.setdefault(kind, [])
        unfit.append(identifier)
        if len(unfit) <= MAX_NAMED:
            log.error("policy_row_not_in_ledger", kind=kind.value, id=identifier)
