"""From a demuxer's packets to tracks and access units, and to one time line. Bytes and integers only."""

from collections.abc import Iterable, Iterator

import msgspec

from streams.errors import LimitExceededError, ProtocolError, StreamError, UnsupportedError
from streams.media import (
    MAX_ACCESS_UNIT_BYTES,
    MAX_AUDIO_UNIT_BYTES,
    MAX_NAL_UNITS,
    TIME_BASE_HZ,
    AccessUnit,
    AudioCodec,
    AudioTrack,
    AudioUnit,
    Codec,
    Track,
)
from streams.wire.aac import parse_audio_specific_config, split_adts
from streams.wire.bitstream import split_annex_b
from streams.wire.nal_unit import SYNTAX
from streams.wire.parameter_sets import MAX_PARSED_SETS_PER_SECOND, ParameterSets
from streams.wire.per_second import PerSecond

MAX_STEP_TICKS = 10 * TIME_BASE_HZ
"""A longer step of DTS forwards is a new time line of the camera, not a pause."""
MAX_BACKWARD_TICKS = TIME_BASE_HZ // 5
"""A longer step back is a new time line too; a shorter one is rounding, or an overlap of segments."""
MAX_REORDER_TICKS = 10 * TIME_BASE_HZ
"""PTS - DTS beyond this is no reordering."""
NOMINAL_STEP_TICKS = TIME_BASE_HZ // 25

_AVCC_HEADER_BYTES, _HVCC_HEADER_BYTES = 5, 22
_CONFIGURATION_VERSION = 1


class ContainerTimeLine:
    """Maps a container's time stamps to one DTS that only grows, whatever the camera's clock does.

    `offset`: what is added to a time stamp now, the sound's too.
    """

    def __init__(self) -> None:
        self.offset = 0
        self._last: int | None = None
        self._restarted = False

    def restart(self) -> None:
        """The next time stamp continues where the last one ended: the same recording again."""
        self._restarted = True

    def place(self, pts: int, dts: int) -> tuple[int, int, bool]:
        """Return PTS, DTS, and whether the camera's time line broke here (all in `TIME_BASE_HZ`)."""
        reorder = min(max(pts - dts, 0), MAX_REORDER_TICKS)
        dts += self.offset
        discontinuity = False
        if self._last is not None:
            step = dts - self._last
            broken = not -MAX_BACKWARD_TICKS <= step <= MAX_STEP_TICKS
            if broken or self._restarted:
                self.offset += NOMINAL_STEP_TICKS - step
                dts = self._last + NOMINAL_STEP_TICKS
                discontinuity = not self._restarted
            elif step <= 0:
                dts = self._last + 1
        self._restarted = False
        self._last = dts
        return dts + reorder, dts, discontinuity


class UnitAssembler:
    """Takes parameter sets, delimiters and filler out of each packet of one elementary stream.

    `extradata`: the container's codec configuration: an avcC or hvcC box (ISO/IEC 14496-15 §5.3.3.1,
    §8.3.3.1: NAL units then have length prefixes), an Annex B byte stream, or nothing (Annex B).
    """

    def __init__(self, codec: Codec, extradata: bytes, time_line: ContainerTimeLine) -> None:
        self._syntax = SYNTAX[codec]
        self._parameter_sets = ParameterSets(codec)
        self._time_line = time_line
        self._announced: Track | None = None
        self._length_bytes = 0
        self._parsed_sets = PerSecond(MAX_PARSED_SETS_PER_SECOND)
        if extradata[:1] == bytes((_CONFIGURATION_VERSION,)):
            self._length_bytes = _length_bytes(codec, extradata)
            sets = _read_avcc(extradata) if codec is Codec.H264 else _read_hvcc(extradata)
        else:
            sets = iter(split_annex_b(extradata) if extradata else ())
        for nal_unit in sets:
            if nal_unit and self._syntax.nal_unit_type(nal_unit) in self._syntax.PARAMETER_SETS:
                self._parameter_sets.add(nal_unit)

    def assemble(self, data: bytes, pts: int, dts: int, received_ns: int) -> tuple[Track | AccessUnit, ...]:
        """Return what one packet holds: a Track before the first access unit that needs it.

        Nothing before the first random access point. Raises ProtocolError or LimitExceededError.
        """
        if len(data) > MAX_ACCESS_UNIT_BYTES:
            raise LimitExceededError("access unit is too large")
        syntax = self._syntax
        kept: list[bytes] = []
        is_random_access = False
        for nal_unit in (
            _split_lengths(data, self._length_bytes) if self._length_bytes else split_annex_b(data)
        ):
            if len(nal_unit) < syntax.NAL_UNIT_HEADER_BYTES:
                raise ProtocolError("NAL unit without a header")
            kind = syntax.nal_unit_type(nal_unit)
            if kind in syntax.PARAMETER_SETS:
                self._learn(nal_unit, received_ns)
            elif kind not in syntax.DISCARDED:
                is_random_access = is_random_access or kind in syntax.RANDOM_ACCESS
                kept.append(nal_unit)
        track = self._parameter_sets.track
        if track is None or not kept or (self._announced is None and not is_random_access):
            return ()
        pts, dts, discontinuity = self._time_line.place(pts, dts)
        unit = AccessUnit(
            pts=pts,
            dts=dts,
            nal_units=tuple(kept),
            is_random_access=is_random_access,
            received_ns=received_ns,
            discontinuity=discontinuity,
        )
        if track == self._announced:
            return (unit,)
        self._announced = track
        return (track, unit)

    def _learn(self, nal_unit: bytes, received_ns: int) -> None:
        if nal_unit in self._parameter_sets:
            return
        if not self._parsed_sets.take(1, received_ns):
            raise LimitExceededError("too many new parameter sets in a second")
        self._parameter_sets.add(nal_unit)


class SoundAssembler:
    """One elementary stream of sound, on the video's time line; `track` is None while it is not known.

    `configuration`: the container's AudioSpecificConfig of AAC; empty if each packet has an ADTS header.
    """

    def __init__(
        self,
        codec: AudioCodec,
        configuration: bytes,
        sample_rate: int,
        channels: int,
        time_line: ContainerTimeLine,
        known: AudioTrack | None = None,
    ) -> None:
        """`known`: what the same sound was when it was read before.

        Raises UnsupportedError or ProtocolError for an AAC that no container of ours can declare.
        """
        self.track: AudioTrack | None = None
        self._time_line = time_line
        self._has_adts = codec is AudioCodec.AAC and not configuration
        if self._has_adts:
            self.track = known
        if codec is not AudioCodec.AAC:
            self.track = AudioTrack(codec=codec, sample_rate=sample_rate, channels=channels)
        elif configuration:
            self.track = aac_track(configuration)

    def assemble(self, data: bytes, pts: int, received_ns: int) -> AudioUnit | None:
        """The sound of one packet, None if it is empty. Raises ProtocolError, LimitExceededError."""
        if self._has_adts:
            configuration, data = split_adts(data)
            if self.track is None or configuration != self.track.configuration:
                self.track = aac_track(configuration)
        if len(data) > MAX_AUDIO_UNIT_BYTES:
            raise LimitExceededError("some sound is too large")
        pts = max(pts + self._time_line.offset, 0)
        return AudioUnit(pts=pts, data=data, received_ns=received_ns) if data else None


class JoinedTracks:
    """Pictures and sound as one stream: a track of both, again whenever either changes.

    Sound waits for the first picture, since before it nobody knows the time line.
    """

    def __init__(self, sound: SoundAssembler | None) -> None:
        self._sound = sound
        self._track: Track | None = None
        self._has_pictures = False

    def pictures(self, events: Iterable[Track | AccessUnit]) -> Iterator[Track | AccessUnit]:
        for event in events:
            if isinstance(event, Track):
                self._track = event
                yield self._joined(event)
            else:
                self._has_pictures = True
                yield event

    def sound(self, data: bytes, pts: int, received_ns: int) -> Iterator[Track | AudioUnit]:
        """What is broken is left out: pictures go on without sound."""
        if self._sound is None or self._track is None or not self._has_pictures:
            return
        before = self._sound.track
        try:
            unit = self._sound.assemble(data, pts, received_ns)
        except StreamError:
            return
        if self._sound.track != before:
            yield self._joined(self._track)
        if unit is not None:
            yield unit

    def _joined(self, track: Track) -> Track:
        return msgspec.structs.replace(track, audio=self._sound.track if self._sound is not None else None)


def aac_track(configuration: bytes) -> AudioTrack:
    """Raises ProtocolError, LimitExceededError, UnsupportedError."""
    sound = parse_audio_specific_config(configuration)
    if sound.channels == 0:
        raise UnsupportedError("AAC that does not tell its channels")
    return AudioTrack(
        codec=AudioCodec.AAC,
        sample_rate=sound.sample_rate,
        channels=sound.channels,
        configuration=configuration,
    )


def _split_lengths(data: bytes, length_bytes: int) -> list[bytes]:
    nal_units: list[bytes] = []
    position = 0
    while position < len(data):
        start = position + length_bytes
        position = start + int.from_bytes(data[position:start], "big")
        if start > len(data) or position > len(data):
            raise ProtocolError("NAL unit ends beyond its packet")
        if len(nal_units) == MAX_NAL_UNITS:
            raise LimitExceededError("too many NAL units in one access unit")
        if position > start:
            nal_units.append(data[start:position])
    return nal_units


def _length_bytes(codec: Codec, box: bytes) -> int:
    position = _AVCC_HEADER_BYTES - 1 if codec is Codec.H264 else _HVCC_HEADER_BYTES - 1
    if len(box) <= position:
        raise ProtocolError("codec configuration is too short")
    return (box[position] & 3) + 1


def _read_avcc(box: bytes) -> Iterator[bytes]:
    position = _AVCC_HEADER_BYTES
    for mask in (0x1F, 0xFF):  # numOfSequenceParameterSets has five bits, numOfPictureParameterSets eight
        count = _byte(box, position) & mask
        position += 1
        for _ in range(count):
            nal_unit, position = _read_sized(box, position)
            yield nal_unit


def _read_hvcc(box: bytes) -> Iterator[bytes]:
    position = _HVCC_HEADER_BYTES + 1
    for _ in range(_byte(box, _HVCC_HEADER_BYTES)):
        count = int.from_bytes(box[position + 1 : position + 3], "big")
        position += 3
        for _ in range(count):
            nal_unit, position = _read_sized(box, position)
            yield nal_unit


def _read_sized(box: bytes, position: int) -> tuple[bytes, int]:
    """One NAL unit behind its 16-bit length, and where the next one begins."""
    end = position + 2 + int.from_bytes(box[position : position + 2], "big")
    if position + 2 > len(box) or end > len(box):
        raise ProtocolError("codec configuration ends too early")
    return box[position + 2 : end], end


def _byte(box: bytes, position: int) -> int:
    if position >= len(box):
        raise ProtocolError("codec configuration ends too early")
    return box[position]
