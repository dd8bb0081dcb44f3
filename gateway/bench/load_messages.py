"""What a benchmark and its load client say to each other: JSON lines on the client's stdin and stdout.

Addresses hold tickets: they go through a pipe, and neither into an argument list nor into an answer.
"""

import msgspec


class Open(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Connect one more viewer now. `sampled`: look for the cameras' stamps in what it receives."""

    url: str
    sampled: bool = False
    ca_file: str | None = None

    def __repr__(self) -> str:
        return "Open(...)"


class Ask(msgspec.Struct, frozen=True, tag="ask"):
    """Answered by `Progress`."""


class Begin(msgspec.Struct, frozen=True, tag="begin"):
    """Forget all counts: the window begins."""


class End(msgspec.Struct, frozen=True, tag="end"):
    """The window is over. Answered by `LoadReport`; then the client ends."""


Command = Open | Ask | Begin | End


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """`started`: viewers that have their first keyframe. `failed`: viewers that never will."""

    started: int
    failed: int


class ViewerReport(msgspec.Struct, frozen=True, kw_only=True):
    """`bytes_received`, `gap_ms` (the longest silence): within the window. `is_alive`: at its end.

    `last_ns`: when its latest bytes were read, on the monotonic clock, which all processes share.
    """

    bytes_received: int
    gap_ms: float
    first_keyframe_ms: float | None
    is_alive: bool
    last_ns: int = 0


class LoadReport(msgspec.Struct, frozen=True, kw_only=True):
    """`latencies_ms`: from a camera's sending to a sampled viewer's receiving. `failures`: by reason."""

    seconds: float
    cpu_seconds: float
    viewers: list[ViewerReport]
    latencies_ms: list[float]
    failures: dict[str, int]
