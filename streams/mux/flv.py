"""FLV: H.264, AAC and G.711 as Adobe specified them (FLV 10.1 §E), H.265 in either of its two ways.

H.265 is Enhanced RTMP 1 (`hvc1`) by default. The older way, which China's servers and players agreed on, is
H.264's layout with codec id 12.
"""

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import ClassVar

import msgspec

from streams.errors import StreamError
from streams.media import TIME_BASE_HZ, AccessUnit, AudioCodec, AudioTrack, AudioUnit, Codec, Track
from streams.mux.codec_configuration import codec_configuration
from streams.mux.muxed_unit import NAL_LENGTH_BYTES, Piece, Sample, SampleMuxer, sound_sample
from streams.wire.aac import parse_audio_specific_config

_SIGNATURE = b"FLV\x01"
_HAS_VIDEO, _HAS_AUDIO = 1, 4
_HEADER_BYTES = (9).to_bytes(4)
_PREVIOUS_TAG_BYTES = 4
"""After each tag: its size."""
_NO_PREVIOUS_TAG = bytes(_PREVIOUS_TAG_BYTES)

# Type and size; the timestamp's lower three bytes, then its upper one; stream id 0, the content's first byte.
_TAG = struct.Struct(">III")
# The same; what follows in the content; the composition time's upper byte, and its lower two.
_CODED_TAG = ">III{}sBH"
_TAG_HEADER_BYTES = 11
_AUDIO_TAG, _VIDEO_TAG = 8 << 24, 9 << 24
_TICKS_PER_MS = TIME_BASE_HZ // 1000
_COMPOSITION_BYTES = 3
_MAX_COMPOSITION_MS = (1 << 23) - 1


class _VideoLayout(msgspec.Struct, frozen=True):
    """How a tag's content begins. `configuration`: with the decoder configuration record.

    `random_access`, `inter`: the first byte of coded units, with the frame type in the upper four bits
    (1 keyframe, 2 other) and the codec in the lower four; in an extended header (bit 7) the packet type
    instead. `coded`: what follows it, before the composition time.
    """

    configuration: bytes
    random_access: int
    inter: int
    coded: bytes


_AVC = _VideoLayout(b"\x17\x00\x00\x00\x00", 0x17, 0x27, b"\x01")
_HVC1 = _VideoLayout(b"\x90hvc1", 0x91, 0xA1, b"hvc1")
_HEVC_12 = _VideoLayout(b"\x1c\x00\x00\x00\x00", 0x1C, 0x2C, b"\x01")

# Sound's first byte: format in the upper four bits, then bits for sampling rate, 16 bits and stereo. Those
# of AAC are fixed; G.711 has 8 kHz whatever they say.
_AAC = 0xAF
_AAC_CONFIGURATION, _AAC_RAW = b"\x00", b"\x01"
_G711: Mapping[AudioCodec, int] = MappingProxyType({AudioCodec.PCMA: 0x72, AudioCodec.PCMU: 0x82})
_G711_SAMPLE_RATE = 8_000
_MAX_G711_CHANNELS = 2


class FlvMuxer(SampleMuxer):
    """One tag per access unit. Timestamps are the stream's in ms, modulo 2^32, as FLV defines them."""

    mime = "video/x-flv"
    _video_layouts: ClassVar[Mapping[Codec, _VideoLayout]] = {Codec.H264: _AVC, Codec.H265: _HVC1}

    def __init__(self, track: Track) -> None:
        """Raises ProtocolError if the track's parameter sets are unusable."""
        video = self._video_layouts[track.codec]
        self._random_access, self._inter, self._coded = video.random_access, video.inter, video.coded
        self._pack = struct.Struct(_CODED_TAG.format(len(video.coded))).pack
        self._video_header_bytes = 1 + len(video.coded) + _COMPOSITION_BYTES
        self._sound, self._sound_type = _sound_header(track.audio)
        self.declares_sound = self._sound is not None
        self.restart = _tag(_VIDEO_TAG, 0, video.configuration + codec_configuration(track).record)
        if track.audio is not None and self._sound == _AAC:
            content = bytes((_AAC,)) + _AAC_CONFIGURATION + track.audio.configuration
            self.restart += _tag(_AUDIO_TAG, 0, content)
        flags = _HAS_VIDEO if self._sound is None else _HAS_VIDEO | _HAS_AUDIO
        self.init = _SIGNATURE + bytes((flags,)) + _HEADER_BYTES + _NO_PREVIOUS_TAG + self.restart

    def mux(self, sample: Sample) -> Sample:
        size = self._video_header_bytes + sample.size_bytes
        return sample.enclosed(
            self._header(sample, size), (_TAG_HEADER_BYTES + size).to_bytes(_PREVIOUS_TAG_BYTES)
        )

    def append(self, unit: AccessUnit, pieces: list[Piece]) -> int:
        if len(unit.nal_units) > 1:
            return super().append(unit, pieces)
        (nal_unit,) = unit.nal_units
        nal_unit_bytes = len(nal_unit)
        size = self._video_header_bytes + NAL_LENGTH_BYTES + nal_unit_bytes
        tag_bytes = _TAG_HEADER_BYTES + size
        length = nal_unit_bytes.to_bytes(NAL_LENGTH_BYTES)
        pieces += (self._header(unit, size), length, nal_unit, tag_bytes.to_bytes(_PREVIOUS_TAG_BYTES))
        return tag_bytes + _PREVIOUS_TAG_BYTES

    def _header(self, unit: Sample | AccessUnit, size: int) -> bytes:
        """Of the tag, and of its content up to the NAL units; `size`: of the content, in bytes."""
        dts_ms, composition_ms = unit.dts // _TICKS_PER_MS, 0
        if unit.pts != unit.dts:  # no picture of a city's camera
            composition_ms = unit.pts // _TICKS_PER_MS - dts_ms
            composition_ms = max(-_MAX_COMPOSITION_MS, min(_MAX_COMPOSITION_MS, composition_ms))
        return self._pack(
            _VIDEO_TAG | size,
            (dts_ms & 0xFF_FFFF) << 8 | dts_ms >> 24 & 0xFF,
            self._random_access if unit.is_random_access else self._inter,
            self._coded,
            composition_ms >> 16 & 0xFF,
            composition_ms & 0xFFFF,
        )

    def mux_audio(self, unit: AudioUnit) -> Sample | None:
        if self._sound is None:
            return None
        content = bytes((self._sound,)) + self._sound_type + unit.data
        tail = _tag(_AUDIO_TAG, max(0, unit.pts) // _TICKS_PER_MS, content)
        return sound_sample(unit, tail)


class Flv12Muxer(FlvMuxer):
    """H.265 with codec id 12, for players that do not know Enhanced RTMP."""

    _video_layouts: ClassVar[Mapping[Codec, _VideoLayout]] = {Codec.H264: _AVC, Codec.H265: _HEVC_12}


def _sound_header(audio: AudioTrack | None) -> tuple[int | None, bytes]:
    """The first byte of a sound tag's content and what follows it; None for what FLV cannot carry."""
    if audio is None:
        return None, b""
    if audio.codec is not AudioCodec.AAC:
        if audio.sample_rate != _G711_SAMPLE_RATE or not 0 < audio.channels <= _MAX_G711_CHANNELS:
            return None, b""
        return _G711[audio.codec] | audio.channels - 1, b""
    try:
        parse_audio_specific_config(audio.configuration)
    except StreamError:
        return None, b""
    return _AAC, _AAC_RAW


def _tag(kind: int, timestamp_ms: int, content: bytes) -> bytes:
    """A whole tag, with the size that the next one is preceded by."""
    timestamp = (timestamp_ms & 0xFF_FFFF) << 8 | timestamp_ms >> 24 & 0xFF
    header = _TAG.pack(kind | len(content), timestamp, content[0])
    return header + content[1:] + (_TAG_HEADER_BYTES + len(content)).to_bytes(_PREVIOUS_TAG_BYTES)
