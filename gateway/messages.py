"""What control and the relay workers say to each other, over a Unix socket.

Each message is a 4-byte big-endian length and msgspec MessagePack of one of the tagged structs below. The
worker asks (`request` is its own counter, echoed in the answer) and reports; control pushes `Lease` every
250 ms, `End` when a session is over, and analyses. A worker without a lease for 5 s ends all its sessions.
"""

import msgspec

from policies.access import Action, Obligations
from streams.sources.source import CameraAddress

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
"""A usage report of 3,000 sessions and as many cameras is about 0.5 MB."""


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class RunningSession(msgspec.Struct, frozen=True, kw_only=True):
    session: str
    camera: str
    bytes_sent: int


class Hello(_Message, frozen=True, kw_only=True):
    """First message on a connection; names what runs, so that a restarted control can take it over."""

    worker: int
    pid: int
    sessions: list[RunningSession] = []
    cameras: list[str] = []


class Redeem(_Message, frozen=True, kw_only=True):
    """Open a session's media with its single-use ticket (the token itself; control stores its hash)."""

    request: int
    session: str
    ticket: str
    protocol: str
    remote: str


class Redeemed(_Message, frozen=True, kw_only=True):
    """The session has started: its record is durable. `mark_key` keys the trace mark's MAC."""

    request: int
    session: str
    camera: str
    action: Action
    obligations: Obligations
    mark_key: bytes


class Claim(_Message, frozen=True, kw_only=True):
    """Ask for the right to pull a camera, and for its address."""

    request: int
    camera: str


class Claimed(_Message, frozen=True, kw_only=True):
    request: int
    camera: str
    epoch: int
    address: CameraAddress


class Refused(_Message, frozen=True, kw_only=True):
    """The answer to `Redeem` or `Claim` when it is no: an HTTP status and a stable problem code."""

    request: int
    status: int
    code: str
    detail: str


class Release(_Message, frozen=True, kw_only=True):
    """The worker no longer pulls the camera."""

    camera: str


class SessionUsage(msgspec.Struct, frozen=True, kw_only=True):
    session: str
    bytes_sent: int
    dropped_access_units: int


class CameraReport(msgspec.Struct, frozen=True, kw_only=True):
    """`state`: idle, connecting, live, backing_off or failed; `error`: a stable code or None."""

    camera: str
    state: str
    error: str | None = None
    codec: str | None = None
    width: int = 0
    height: int = 0
    bit_rate_bps: int = 0
    readers: int = 0


class Usage(_Message, frozen=True, kw_only=True):
    """Sent every second: absolute counts, so that a lost report loses nothing."""

    sessions: list[SessionUsage]
    cameras: list[CameraReport]


class SessionOver(_Message, frozen=True, kw_only=True):
    """The media of a session stopped. `lost`: the viewer's connection broke; the slot is kept for a while."""

    session: str
    reason: str
    lost: bool
    bytes_sent: int
    dropped_access_units: int


class Lease(_Message, frozen=True, kw_only=True):
    """Control is alive and its policy index is current."""

    sequence: int


class End(_Message, frozen=True, kw_only=True):
    """End a session now and discard what is queued for it. `reason` is told to the viewer."""

    session: str
    reason: str
    detail: str = ""


class CameraMoved(_Message, frozen=True, kw_only=True):
    """A camera's address or login was changed in the catalogue: whoever pulls it connects anew."""

    camera: str
    address: CameraAddress


class StartAnalysis(_Message, frozen=True, kw_only=True):
    """Run an analyser on a camera for an open session of action `frames:consume`."""

    analysis: str
    session: str
    camera: str
    analyser: str
    parameters: dict[str, object]
    period_seconds: float


class StopAnalysis(_Message, frozen=True, kw_only=True):
    analysis: str


class AnalysisEvent(_Message, frozen=True, kw_only=True):
    """`region`: polygon of normalised (x, y) points; times are microseconds since the epoch, UTC."""

    analysis: str
    camera: str
    event: str
    kind: str
    started_at: int
    ended_at: int | None
    region: list[tuple[float, float]]
    score: float


class AnalysisState(_Message, frozen=True, kw_only=True):
    """The period that an analysis really achieves, and what stops it, if anything."""

    analysis: str
    achieved_period_seconds: float | None
    error: str | None


class Drain(_Message, frozen=True, kw_only=True):
    """Stop accepting, end every session with the reason, report, exit."""

    reason: str


ToControl = Hello | Redeem | Claim | Release | Usage | SessionOver | AnalysisEvent | AnalysisState
ToWorker = Redeemed | Claimed | Refused | Lease | End | CameraMoved | StartAnalysis | StopAnalysis | Drain
