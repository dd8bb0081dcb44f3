"""The local hub socket's format: tracks and access units between our own processes.

Each message is a 4-byte big-endian length and that many bytes of MessagePack: one of `Track`, `AccessUnit`
or `StreamEnd`, told apart by msgspec's tag. Bytes in, values out: this module knows no socket. The other
side may be a sandboxed process that a hostile camera has taken over, so everything in a message is checked
here against the limits of `streams.media`.
"""

from struct import Struct as BinaryLayout

import msgspec

from streams.errors import (
    LimitExceededError,
    ProtocolError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.media import (
    MAX_ACCESS_UNIT_BYTES,
    MAX_NAL_UNIT_BYTES,
    MAX_NAL_UNITS,
    MAX_PARAMETER_SET_BYTES,
    AccessUnit,
    Codec,
    Track,
)
from streams.wire.parameter_sets import MAX_PARAMETER_SETS

MAX_DIMENSION = 16_384
"""Width or height in luma samples: twice 8K."""
MAX_TIMESTAMP = 2**53
"""PTS and DTS: 3,000 years in `TIME_BASE_HZ`, and exact in every language that may read them."""
MAX_DETAIL_CHARACTERS = 200
_ENVELOPE_BYTES = 8 * MAX_NAL_UNITS + 256
"""What MessagePack adds: five bytes for each NAL unit, and the field names."""
MAX_MESSAGE_BYTES = MAX_ACCESS_UNIT_BYTES + _ENVELOPE_BYTES

_LENGTH = BinaryLayout(">I")


class StreamEnd(msgspec.Struct, frozen=True, kw_only=True, tag="end"):
    """The last message: why the stream is over. `code` is that of a class in `streams.errors`."""

    code: str
    detail: str


_type_of_code: dict[str, type[StreamError]] = {
    error.code: error
    for error in (
        ProtocolError,
        LimitExceededError,
        SourceUnreachableError,
        SourceRefusedError,
        UnsupportedError,
    )
}

Message = Track | AccessUnit | StreamEnd

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def to_error(end: StreamEnd) -> StreamError:
    """Turn the last message into the error that it announces; an unknown code is a plain `StreamError`."""
    return _type_of_code.get(end.code, StreamError)(end.detail)


def serialize(message: Message) -> bytes:
    """Return one framed message. The caller keeps to the limits; the reader enforces them."""
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


class LinkParser:
    """Incremental parser of one direction of a link; holds at most one incomplete message."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def receive_data(self, data: bytes) -> list[Message]:
        """Return the messages that `data` completes, in order.

        Raises `LimitExceededError` if a message exceeds a named limit and `ProtocolError` if it is none;
        after either the parser must not be used again.
        """
        buffer = self._buffer
        buffer += data
        messages: list[Message] = []
        start = 0
        while len(buffer) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(buffer, start)
            if length > MAX_MESSAGE_BYTES:
                raise LimitExceededError(f"a message of {length} bytes on the local link")
            end = start + _LENGTH.size + length
            if end > len(buffer):
                break
            messages.append(_parse(bytes(buffer[start + _LENGTH.size : end])))
            start = end
        del buffer[:start]
        return messages


def _parse(body: bytes) -> Message:
    try:
        message = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("not a message of the local link") from error
    match message:
        case AccessUnit():
            _check_access_unit(message)
        case Track():
            _check_track(message)
        case StreamEnd():
            if max(len(message.code), len(message.detail)) > MAX_DETAIL_CHARACTERS:
                raise LimitExceededError("a reason longer than any we give on the local link")
    return message


def _check_access_unit(unit: AccessUnit) -> None:
    if not 0 < len(unit.nal_units) <= MAX_NAL_UNITS:
        raise LimitExceededError(f"an access unit of {len(unit.nal_units)} NAL units")
    if unit.size_bytes > MAX_ACCESS_UNIT_BYTES:
        raise LimitExceededError(f"an access unit of {unit.size_bytes} bytes")
    sizes = [len(nal_unit) for nal_unit in unit.nal_units]
    if min(sizes) == 0 or max(sizes) > MAX_NAL_UNIT_BYTES:
        raise LimitExceededError("an empty or oversized NAL unit")
    if max(abs(unit.pts), abs(unit.dts)) > MAX_TIMESTAMP or not 0 <= unit.received_ns < 2**63:
        raise LimitExceededError("a time beyond any clock")


def _check_track(track: Track) -> None:
    required = 2 if track.codec is Codec.H264 else 3
    if not required <= len(track.parameter_sets) <= MAX_PARAMETER_SETS:
        raise LimitExceededError(f"{len(track.parameter_sets)} parameter sets for {track.codec}")
    if not all(0 < len(nal_unit) <= MAX_PARAMETER_SET_BYTES for nal_unit in track.parameter_sets):
        raise LimitExceededError("an empty or oversized parameter set")
    if not (0 < track.width <= MAX_DIMENSION and 0 < track.height <= MAX_DIMENSION):
        raise LimitExceededError(f"a picture of {track.width} x {track.height}")
