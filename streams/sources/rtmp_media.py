"""From the video and audio messages of an RTMP publisher to tracks, access units and sound.

The messages' bodies are FLV's tags (Adobe FLV 10.1 §E.4): H.264 and AAC as Adobe specified them, G.711, H.265
as codec 12 (the Chinese convention) or as Enhanced RTMP 1 (`hvc1`; `avc1` too). Bytes and integers only.
"""

from typing import Final

from streams.errors import LimitExceededError, ProtocolError, UnsupportedError
from streams.media import (
    MAX_AUDIO_UNIT_BYTES,
    TIME_BASE_HZ,
    AccessUnit,
    AudioCodec,
    AudioTrack,
    AudioUnit,
    Codec,
    Track,
)
from streams.sources.pyav_units import ContainerTimeLine, UnitAssembler, aac_track
from streams.sources.source import Publisher
from streams.wire.per_second import PerSecond
from streams.wire.rtp import TimestampUnwrapper

MAX_CONFIGURATIONS_PER_SECOND: Final = 16
"""Of pictures and sound together: each makes what follows another track."""

_TICKS_PER_MS: Final = TIME_BASE_HZ // 1000
_CODECS: Final = {7: Codec.H264, 12: Codec.H265}
_FOURCCS: Final = {b"avc1": Codec.H264, b"hvc1": Codec.H265}
_AAC, _PCMA, _PCMU = 10, 7, 8
_G711: Final = {_PCMA: AudioCodec.PCMA, _PCMU: AudioCodec.PCMU}
_G711_RATE: Final = 8000
_EXTENDED: Final = 0x80
_SEQUENCE_START, _CODED, _CODED_WITHOUT_OFFSET = 0, 1, 3
_INFO_OR_COMMAND: Final = 5


class RtmpMedia:
    """Gives one publisher's media to a `Publisher`, synchronously.

    Pictures begin with the first random access point; sound is known to the track as soon as it is described.
    """

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self._unwrapper = TimestampUnwrapper()
        self._time_line = ContainerTimeLine()
        self._configuration: tuple[Codec, bytes] | None = None
        self._assembler: UnitAssembler | None = None
        self._video: Track | None = None
        self._audio: AudioTrack | None = None
        self._announced: Track | None = None
        self._configurations = PerSecond(MAX_CONFIGURATIONS_PER_SECOND)
        self.last_unit_ns = 0

    def video(self, body: bytes, timestamp_ms: int, received_ns: int) -> None:
        """Raises UnsupportedError, ProtocolError or LimitExceededError."""
        if len(body) < 5 or body[0] >> 4 & 7 == _INFO_OR_COMMAND:  # noqa: PLR2004 - the shortest tag header
            return
        if body[0] & _EXTENDED:
            codec, kind = _FOURCCS.get(body[1:5]), body[0] & 0x0F
            start = 5
        else:
            codec, kind, start = _CODECS.get(body[0] & 0x0F), body[1], 2
        if codec is None:
            raise UnsupportedError("the encoder sends neither H.264 nor H.265")
        if kind == _SEQUENCE_START:
            self._configure(codec, body[start if start == 5 else 5 :], received_ns)  # noqa: PLR2004
        elif kind == _CODED:
            offset_ms = int.from_bytes(body[start : start + 3], signed=True)
            self._assemble(codec, body[start + 3 :], timestamp_ms, offset_ms, received_ns)
        elif kind == _CODED_WITHOUT_OFFSET and start == 5:  # noqa: PLR2004
            self._assemble(codec, body[start:], timestamp_ms, 0, received_ns)

    def audio(self, body: bytes, timestamp_ms: int, received_ns: int) -> None:
        """Raises ProtocolError or LimitExceededError; a sound that we do not relay is left out."""
        if len(body) < 2:  # noqa: PLR2004
            return
        kind, data = body[0] >> 4, body[1:]
        if kind == _AAC:
            if body[1] == 0:
                self._set_audio(_aac_track(body[2:]), received_ns)
                return
            data = body[2:]
        elif kind in _G711:
            channels = 1 + (body[0] & 1)
            self._set_audio(
                AudioTrack(codec=_G711[kind], sample_rate=_G711_RATE, channels=channels), received_ns
            )
        else:
            return
        if len(data) > MAX_AUDIO_UNIT_BYTES:
            raise LimitExceededError("some sound is too large")
        if self._announced is not None and self._announced.audio is not None and data:
            pts = self._unwrapper.unwrap(timestamp_ms) * _TICKS_PER_MS + self._time_line.offset
            self._publisher.publish_audio(AudioUnit(pts=max(pts, 0), data=data, received_ns=received_ns))

    def _configure(self, codec: Codec, configuration: bytes, received_ns: int) -> None:
        if (codec, configuration) == self._configuration:
            return
        self._count_configuration(received_ns)
        self._configuration = codec, configuration
        self._assembler = UnitAssembler(codec, configuration, self._time_line)

    def _count_configuration(self, received_ns: int) -> None:
        if not self._configurations.take(1, received_ns):
            raise LimitExceededError("too many configurations in a second")

    def _assemble(self, codec: Codec, data: bytes, dts_ms: int, offset_ms: int, received_ns: int) -> None:
        if self._assembler is None or self._configuration is None or self._configuration[0] is not codec:
            raise ProtocolError("the encoder sends pictures before their configuration")
        dts = self._unwrapper.unwrap(dts_ms) * _TICKS_PER_MS
        pts = dts + offset_ms * _TICKS_PER_MS
        for item in self._assembler.assemble(data, pts, dts, received_ns):
            if isinstance(item, Track):
                self._video = item
                self._announce()
            else:
                self._publish(item)

    def _publish(self, unit: AccessUnit) -> None:
        self.last_unit_ns = unit.received_ns
        self._publisher.publish(unit)

    def _set_audio(self, track: AudioTrack | None, received_ns: int) -> None:
        if track != self._audio:
            self._count_configuration(received_ns)
            self._audio = track
            self._announce()

    def _announce(self) -> None:
        """Tell the track, once its pictures are known, and again when either medium changes."""
        if self._video is None:
            return
        track = Track(
            codec=self._video.codec,
            parameter_sets=self._video.parameter_sets,
            width=self._video.width,
            height=self._video.height,
            audio=self._audio,
        )
        if track != self._announced:
            self._announced = track
            self._publisher.configure(track)


def _aac_track(configuration: bytes) -> AudioTrack | None:
    """None for an AAC that no container of ours has a place for."""
    try:
        return aac_track(configuration)
    except UnsupportedError:
        return None
