"""What a file of cameras asks for, checked: the cameras to write, what is wrong with it, and the report."""

from dataclasses import dataclass, field

import msgspec

from gateway.catalogue_reading import LineError
from gateway.planned_cameras import PlannedCamera
from policies.access import Object

MAX_ERRORS = 1000
"""So many are told; all are counted."""


class ImportReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was done, or with `dry_run` or errors: what would be. `lines`: those that hold a camera."""

    created: int
    updated: int
    unchanged: int
    lines: int
    errors: list[LineError]
    error_count: int
    dry_run: bool


@dataclass
class ImportPlan:
    """All that a file asks for, as far as it is checked."""

    lines: int = 0
    unchanged: int = 0
    writes: list[PlannedCamera] = field(default_factory=list)
    errors: list[LineError] = field(default_factory=list)
    error_count: int = 0
    revision: int = 0
    line_of: dict[str, int] = field(default_factory=dict)
    """By camera id; for duplicates, and who gives up a code."""
    line_of_code: dict[str, int] = field(default_factory=dict)
    taken: dict[str, tuple[int, str]] = field(default_factory=dict)
    """Codes that another camera of the catalogue has: the line that wants it, and who has it."""
    denied: Object | None = None

    def refuse(self, error: LineError) -> None:
        self.error_count += 1
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)

    def report(self, *, dry_run: bool) -> ImportReport:
        created = sum(camera.is_new for camera in self.writes)
        return ImportReport(
            created=created,
            updated=len(self.writes) - created,
            unchanged=self.unchanged,
            lines=self.lines,
            errors=sorted(self.errors, key=lambda error: error.line),
            error_count=self.error_count,
            dry_run=dry_run,
        )
