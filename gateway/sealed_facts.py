"""What a start finds of the rows that decide: which are as they were sealed, and whether any is gone."""

from dataclasses import dataclass, field

import structlog

from gateway.store.sealed_rows import Sealed
from gateway.store.sealing import StoredRow
from gateway.store.seals import Seals, Total, is_of_denial

log = structlog.get_logger(__name__)

MAX_NAMED = 8
"""Of each kind, so many rows are named in the alarm; all are counted."""


@dataclass
class Unfit:
    """Rows of a kind that are not what the ledger knows."""

    count: int = 0
    first: list[str] = field(default_factory=list)


class SealedFacts:
    """Filled while the policy is read. `lost_denials`: seals of rows that were denials and are not now."""

    def __init__(self, seals: Seals) -> None:
        self._seals = seals
        self.totals = {kind: Total() for kind in Sealed}
        self.unfit: dict[Sealed, Unfit] = {}
        self.lost_denials: dict[str, bytes] = {}

    def check(self, kind: Sealed, row: StoredRow) -> bool:
        """Count a row; whether it may count for anything."""
        return self.check_content(kind, row.id, row.seal, row.content)

    def check_content(self, kind: Sealed, identifier: str, seal: bytes | None, content: bytes | None) -> bool:
        """The same. `content` None: nobody can read the row."""
        if isinstance(seal, bytes):
            self.totals[kind].add(self._seals.summand(seal))
            if content is not None and self._seals.fits(seal, content):
                return True
            if is_of_denial(seal):
                self.lost_denials[identifier] = seal
        self._report(kind, identifier)
        return False

    def _report(self, kind: Sealed, identifier: str) -> None:
        unfit = self.unfit.setdefault(kind, Unfit())
        unfit.count += 1
        if len(unfit.first) < MAX_NAMED:
            unfit.first.append(identifier)
            log.error("policy_row_not_in_ledger", kind=kind.value, id=identifier)

    def counts(self) -> dict[str, int]:
        """Of rows that do not count, by kind."""
        return {kind.value: unfit.count for kind, unfit in self.unfit.items()}
