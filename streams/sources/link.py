"""The local hub socket's format: tracks, access units and sound between our own processes.

Each message is a 4-byte big-endian length and that many bytes of MessagePack: one of `Track`, `AccessUnit`,
`AudioUnit` or `StreamEnd`, told apart by msgspec's tag. Where one worker serves many streams, the taker says
first which one it wants, with a `Wanted` in the same frame. Bytes in, values out: this module knows no
socket. The other side may be a sandboxed process that a hostile camera has taken over, so everything in a
message is checked here against the limits of `streams.media`.
"""

from struct import Struct as BinaryLayout

import msgspec

from streams.errors import (
    LimitExceededError,
    ProtocolError,
    SourceBugError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.media import (
    MAX_ACCESS_UNIT_BYTES,
    MAX_AUDIO_CHANNELS,
    MAX_AUDIO_CONFIGURATION_BYTES,
    MAX_AUDIO_UNIT_BYTES,
    MAX_DIMENSION,
    MAX_NAL_UNITS,
    MAX_PARAMETER_SET_BYTES,
    MAX_PARAMETER_SETS,
    MAX_SAMPLE_RATE_HZ,
    AccessUnit,
    AudioTrack,
    AudioUnit,
    Codec,
    Track,
)

MAX_TIMESTAMP = 2**53
"""PTS and DTS: 3,000 years in `TIME_BASE_HZ`, and exact in every language that may read them."""
MAX_DETAIL_CHARACTERS = 200
MAX_WANTED_BYTES = 256
"""A stream's key has at most 68 characters, all ASCII."""
_ENVELOPE_BYTES = 8 * MAX_NAL_UNITS + 256
"""What MessagePack adds: five bytes for each NAL unit, and the field names."""
MAX_MESSAGE_BYTES = MAX_ACCESS_UNIT_BYTES + _ENVELOPE_BYTES

_LENGTH = BinaryLayout(">I")


class Wanted(msgspec.Struct, frozen=True, kw_only=True, tag="wanted"):
    """The taker's only message: the key of the stream that it wants."""

    stream: str


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
        SourceBugError,
    )
}

Message = Track | AccessUnit | AudioUnit | StreamEnd

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)
_wanted_decoder = msgspec.msgpack.Decoder(Wanted)


def to_error(end: StreamEnd) -> StreamError:
    """Turn the last message into the error that it announces; an unknown code is a plain `StreamError`."""
    return _type_of_code.get(end.code, StreamError)(end.detail)


def parse_wanted(data: bytes) -> Wanted | None:
    """The taker's message, or None if it is not complete.

    Raises `LimitExceededError` beyond `MAX_WANTED_BYTES`, and `ProtocolError` if it is something else.
    """
    if len(data) < _LENGTH.size:
        return None
    end = _LENGTH.size + _LENGTH.unpack_from(data)[0]
    if end > _LENGTH.size + MAX_WANTED_BYTES:
        raise LimitExceededError("a request on the local link that is too long")
    if len(data) < end:
        return None
    try:
        return _wanted_decoder.decode(data[_LENGTH.size : end])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("not a request of the local link") from error


def serialize(message: Message | Wanted) -> bytes:
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
        if buffer:
            buffer += data
        # A whole message, which most are, is read where it lies.
        view = memoryview(buffer or data)
        messages: list[Message] = []
        start = 0
        while len(view) - start >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(view, start)
            if length > MAX_MESSAGE_BYTES:
                raise LimitExceededError(f"a message of {length} bytes on the local link")
            end = start + _LENGTH.size + length
            if end > len(view):
                break
            messages.append(_parse(view[start + _LENGTH.size : end]))
            start = end
        view.release()
        if buffer:
            del buffer[:start]
        else:
            buffer += data[start:]
        return messages


def _parse(body: memoryview) -> Message:
    try:
        message = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise ProtocolError("not a message of the local link") from error
    match message:
        case AccessUnit():
            _check_access_unit(message)
        case AudioUnit():
            _check_audio_unit(message)
        case Track():
            _check_track(message)
            if message.audio is not None:
                _check_audio_track(message.audio)
        case StreamEnd():
            if max(len(message.code), len(message.detail)) > MAX_DETAIL_CHARACTERS:
                raise LimitExceededError("a reason longer than any we give on the local link")
    return message


def _check_access_unit(unit: AccessUnit) -> None:
    sizes = [*map(len, unit.nal_units)]
    if not 0 < len(sizes) <= MAX_NAL_UNITS:
        raise LimitExceededError(f"an access unit of {len(sizes)} NAL units")
    if sum(sizes) > MAX_ACCESS_UNIT_BYTES:
        raise LimitExceededError(f"an access unit of {sum(sizes)} bytes")
    if min(sizes) == 0:
        raise LimitExceededError("an empty NAL unit")
    if max(abs(unit.pts), abs(unit.dts)) > MAX_TIMESTAMP or not 0 <= unit.received_ns < 2**63:
        raise LimitExceededError("a time beyond any clock")


def _check_audio_unit(unit: AudioUnit) -> None:
    if not 0 < len(unit.data) <= MAX_AUDIO_UNIT_BYTES:
        raise LimitExceededError(f"{len(unit.data)} bytes of sound")
    if abs(unit.pts) > MAX_TIMESTAMP or not 0 <= unit.received_ns < 2**63:
        raise LimitExceededError("a time beyond any clock")


def _check_audio_track(track: AudioTrack) -> None:
    if len(track.configuration) > MAX_AUDIO_CONFIGURATION_BYTES:
        raise LimitExceededError("an oversized configuration of the sound")
    if not (0 < track.channels <= MAX_AUDIO_CHANNELS and 0 < track.sample_rate <= MAX_SAMPLE_RATE_HZ):
        raise LimitExceededError(f"sound of {track.channels} channels at {track.sample_rate} Hz")


def _check_track(track: Track) -> None:
    required = 2 if track.codec is Codec.H264 else 3
    if not required <= len(track.parameter_sets) <= MAX_PARAMETER_SETS:
        raise LimitExceededError(f"{len(track.parameter_sets)} parameter sets for {track.codec}")
    if not all(0 < len(nal_unit) <= MAX_PARAMETER_SET_BYTES for nal_unit in track.parameter_sets):
        raise LimitExceededError("an empty or oversized parameter set")
    if not (0 < track.width <= MAX_DIMENSION and 0 < track.height <= MAX_DIMENSION):
        raise LimitExceededError(f"a picture of {track.width} x {track.height}")
