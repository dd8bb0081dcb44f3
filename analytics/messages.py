"""What a relay worker and an analysis process say to each other over a Unix socket.

Each message is a 4-byte big-endian length and the MessagePack of one of the structs below. The worker sends
`Job`s and expects for each one `Begun`, when it is being worked on, and one `Answer`, in the order of the
jobs. `Begun` tells, when the process dies, which keyframe it died of.
"""

import socket
from datetime import datetime
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from analytics.events import Event
from streams.media import MAX_ACCESS_UNIT_BYTES, AccessUnit, Track

LENGTH_BYTES = 4
MAX_JOB_BYTES = MAX_ACCESS_UNIT_BYTES + 4 * 1024 * 1024
"""An access unit at its limit, and 1,000 analyses with 4 KB of parameters."""
MAX_ANSWER_BYTES = 64 * 1024 * 1024
"""MAX_JPEGS pictures of 4096x3072 that do not compress."""
MAX_JPEGS = 4
MAX_JPEG_WIDTH = 4096
MAX_ANALYSES_OF_CAMERA = 1000


class AnalysisOrder(msgspec.Struct, frozen=True, array_like=True):
    """One analysis to run on the keyframe; what it learns is kept under its id until `Forget`."""

    analysis: str
    analyser: str
    parameters: dict[str, Any]


class JpegOrder(msgspec.Struct, frozen=True, array_like=True):
    """The picture as a JPEG, at most `width` wide, `quality` 1..100."""

    width: Annotated[int, Meta(ge=16, le=MAX_JPEG_WIDTH)]
    quality: Annotated[int, Meta(ge=1, le=100)]


class Job(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """One keyframe, decoded once for everything that is wanted of it. `captured_at`: aware UTC."""

    number: int
    track: Track
    unit: AccessUnit
    captured_at: datetime
    analyses: Annotated[list[AnalysisOrder], Meta(max_length=MAX_ANALYSES_OF_CAMERA)]
    jpegs: Annotated[list[JpegOrder], Meta(max_length=MAX_JPEGS)]


class Forget(msgspec.Struct, frozen=True, tag=True):
    """The analysis is over."""

    analysis: str


class Begun(msgspec.Struct, frozen=True, tag=True):
    number: int


class Finding(msgspec.Struct, frozen=True, array_like=True):
    """What one analysis says to the keyframe; `error`: a stable code if it cannot run."""

    analysis: str
    events: list[Event]
    error: str | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """`error`: a stable code if the keyframe could not be decoded; then there is nothing else.

    `jpegs` are in the order of the job's. `cpu_ns`: of the whole job, `decode_ns` of the decoder alone.
    """

    number: int
    error: str | None = None
    findings: list[Finding] = []
    jpegs: list[bytes] = []
    cpu_ns: int = 0
    decode_ns: int = 0


ToProcess = Job | Forget
ToWorker = Begun | Answer

_TO_PROCESS: msgspec.msgpack.Decoder[ToProcess] = msgspec.msgpack.Decoder(ToProcess)
_TO_WORKER: msgspec.msgpack.Decoder[ToWorker] = msgspec.msgpack.Decoder(ToWorker)


class MessageError(Exception):
    """The other side sent a message that is too long or no message at all: end the connection."""


def serialize(message: ToProcess | ToWorker) -> bytes:
    """The message with its length before it."""
    body = msgspec.msgpack.encode(message)
    return len(body).to_bytes(LENGTH_BYTES, "big") + body


def parse_length(header: bytes, limit: int) -> int:
    """The length of the message that follows. Raises MessageError beyond `limit`."""
    length = int.from_bytes(header, "big")
    if length > limit:
        raise MessageError(f"a message of {length} bytes is too long")
    return length


def parse_to_process(body: bytes) -> ToProcess:
    """Raises MessageError."""
    try:
        return _TO_PROCESS.decode(body)
    except msgspec.DecodeError as error:
        raise MessageError(str(error)) from error


def parse_to_worker(body: bytes) -> ToWorker:
    """Raises MessageError."""
    try:
        return _TO_WORKER.decode(body)
    except msgspec.DecodeError as error:
        raise MessageError(str(error)) from error


def receive_to_process(connection: socket.socket) -> ToProcess | None:
    """The next message; blocks. None at the end. Raises MessageError, OSError."""
    header = _receive_exactly(connection, LENGTH_BYTES)
    if header is None:
        return None
    body = _receive_exactly(connection, parse_length(header, MAX_JOB_BYTES))
    return None if body is None else parse_to_process(body)


def _receive_exactly(connection: socket.socket, count: int) -> bytes | None:
    """`count` bytes, or None if the connection ends first."""
    received = bytearray(count)
    view = memoryview(received)
    while view:
        size = connection.recv_into(view)
        if size == 0:
            return None
        view = view[size:]
    return bytes(received)
