"""The hub's settings."""

from dataclasses import dataclass

MAX_MERGE_SECONDS = 0.35
"""More is no longer live: the players' own buffers come on top."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """`gop_cache_*` bound what is kept for new readers. A larger GOP is not kept: they wait for the next.

    `merge_seconds`: how long an access unit may wait for others to be written with it, 0 (never) to
    MAX_MERGE_SECONDS. `merge_above_load`: the load of the event loop, 0 to 1, above which they wait; 0:
    always, and for all of `merge_seconds`.
    """

    gop_cache_bytes: int = 8 * 1024 * 1024
    gop_cache_access_units: int = 600
    merge_seconds: float = 0.1
    merge_above_load: float = 0.5

    def __post_init__(self) -> None:
        """Raises ValueError for what is out of range."""
        if not 0 <= self.merge_seconds <= MAX_MERGE_SECONDS:
            raise ValueError(f"merge_seconds: 0 to {MAX_MERGE_SECONDS}")
        if not 0 <= self.merge_above_load <= 1:
            raise ValueError("merge_above_load: 0 to 1")
