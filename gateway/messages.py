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
SUB_STREAM = "/sub"
"""Behind a camera's id: its second, smaller stream, an upstream of its own. Ids contain no slash."""
PUSH_URL = "push:"
"""The address of a camera that cannot be pulled: its encoder publishes here, with the camera's login."""


def stream_key(camera_id: str, stream: str) -> str:
    """The upstream's name between control and the workers; `stream`: main or sub."""
    return camera_id + SUB_STREAM if stream == "sub" else camera_id


def camera_of(key: str) -> str:
    """The camera whose stream this is."""
    return key.removesuffix(SUB_STREAM)


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    pass


class RunningSession(msgspec.Struct, frozen=True, kw_only=True):
    session: str
    camera: str
    bytes_sent: int


class Hello(_Message, frozen=True, kw_only=True):
    """First message on a connection; names what runs, so that a restarted control can take it over.

    `streams`: those that the worker pulls or has a publisher for, each with the epoch of its claim; not those
    that it takes from another. `revision`: of the last `Lease`, None if there was none.
    """

    worker: int
    pid: int
    revision: int | None = None
    sessions: list[RunningSession] = []
    streams: dict[str, int] = {}


class DigestProof(msgspec.Struct, frozen=True, kw_only=True):
    """What an RTSP viewer answered to our challenge (RFC 7616 §3.4), its user name being the session's id.

    The worker has checked that the nonce is its own and fresh, and that `uri` is the request's.
    """

    algorithm: str
    realm: str
    nonce: str
    method: str
    uri: str
    response: str
    qop: str | None = None
    nc: str | None = None
    cnonce: str | None = None


class Redeem(_Message, frozen=True, kw_only=True):
    """Open a session's media with its single-use ticket (the token itself; control stores its hash).

    RTSP viewers may prove that they have the ticket instead: then `ticket` is empty and `digest` is set. Over
    RTSP the same ticket may be redeemed again, from the same `remote`, until `Streaming`.
    """

    request: int
    session: str
    ticket: str
    protocol: str
    remote: str
    digest: DigestProof | None = None


class Redeemed(_Message, frozen=True, kw_only=True):
    """The session has started: its record is durable. `mark_key` keys the trace mark's MAC.

    `stream`: the upstream to show, a key for `Claim`: the camera's id, or with `SUB_STREAM` behind it.
    """

    request: int
    session: str
    camera: str
    stream: str
    action: Action
    obligations: Obligations
    mark_key: bytes


class Streaming(_Message, frozen=True, kw_only=True):
    """The first packet of an RTSP session goes out: its ticket is used up."""

    session: str


class Claim(_Message, frozen=True, kw_only=True):
    """Ask who pulls a stream, before each connection to it; `publishing`: an encoder delivers it here.

    Idempotent for the worker that has the claim. A publisher takes the claim from whoever has it.
    """

    request: int
    stream: str
    publishing: bool = False


class Claimed(_Message, frozen=True, kw_only=True):
    """Exactly one is set: `address`, the claim is the worker's own; `peer`, that worker has the stream."""

    request: int
    stream: str
    epoch: int
    address: CameraAddress | None = None
    peer: int | None = None


class PublisherLogin(_Message, frozen=True, kw_only=True):
    """Ask what an encoder that wants to publish a camera must present. Claims nothing."""

    request: int
    camera: str


class PublisherExpected(_Message, frozen=True, kw_only=True):
    request: int
    camera: str
    username: str
    password: str

    def __repr__(self) -> str:
        return f"PublisherExpected(camera={self.camera!r})"


class PublisherFailed(_Message, frozen=True, kw_only=True):
    """An encoder at `remote` did not present its camera's login; there may be no such camera."""

    camera: str
    remote: str


class Refused(_Message, frozen=True, kw_only=True):
    """The answer to a question when it is no: an HTTP status and a stable problem code."""

    request: int
    status: int
    code: str
    detail: str


class Release(_Message, frozen=True, kw_only=True):
    """The worker no longer pulls the stream. Without effect if it has claimed it again since `epoch`."""

    stream: str
    epoch: int


class SessionUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    session: str
    bytes_sent: int
    dropped_access_units: int


class CameraReport(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How one upstream does, from the worker that pulls it. `stream` is the key of `Claim`.

    `state`: idle, connecting, live, backing_off or failed; `error`: a stable code of why it is not live, or
    None; `fault`: what is wrong with a live one ("frozen", "timestamp_jump", "packet_loss"), or None.
    """

    stream: str
    state: str
    error: str | None = None
    fault: str | None = None
    lost_packets: int = 0
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
    """Control is alive and its policy index is current, or as good as that: see `gateway.start_up`.

    `revision`: of the policy under which every session of the worker is decided, all ends that follow from
    it having been sent before; None: none yet.
    """

    sequence: int
    revision: int | None = None


class End(_Message, frozen=True, kw_only=True):
    """End a session now and discard what is queued for it. The viewer is told all three.

    `reason` and `detail` are stable codes; `by` is the name of the unit of who ended it, empty if nobody did.
    """

    session: str
    reason: str
    detail: str = ""
    by: str = ""


class StreamMoved(_Message, frozen=True, kw_only=True):
    """The stream's address, login or claimer changed, or it is no more.

    Whoever takes it asks again (`Claim`), at once, and an encoder logs in again.

    `epoch`: of the claim of a publisher on another worker, which replaces an earlier one here; else 0.
    """

    stream: str
    epoch: int = 0


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


ToControl = (
    Hello
    | Redeem
    | Streaming
    | Claim
    | PublisherLogin
    | PublisherFailed
    | Release
    | Usage
    | SessionOver
    | AnalysisEvent
    | AnalysisState
)
ToWorker = (
    Redeemed
    | Claimed
    | PublisherExpected
    | Refused
    | Lease
    | End
    | StreamMoved
    | StartAnalysis
    | StopAnalysis
    | Drain
)
