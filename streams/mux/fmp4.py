"""Fragmented MP4 (ISO/IEC 14496-12, byte stream format of Media Source Extensions): one track, live.

The init segment declares the track; then every access unit is a fragment of its own (`moof` + `mdat`).
"""

import struct

from streams.media import TIME_BASE_HZ, AudioUnit, Track
from streams.mux.codec_configuration import CodecConfiguration, codec_configuration
from streams.mux.muxed_unit import MuxedUnit

_TRACK_ID = 1
_UNITY_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_UNDETERMINED_LANGUAGE = 0x55C4

# sample_flags, ISO/IEC 14496-12 §8.8.3.1: depends on no other; depends on others and is no sync sample.
_RANDOM_ACCESS_FLAGS = 0x0200_0000
_INTER_FLAGS = 0x0101_0000

_FIRST_DURATION = TIME_BASE_HZ // 25
_MAX_DURATION = 10 * TIME_BASE_HZ

_FRAGMENT = struct.Struct(
    ">"
    "I4s"  # moof
    "I4sII"  # mfhd: version and flags, sequence number
    "I4s"  # traf
    "I4sII"  # tfhd: flags default-base-is-moof, track
    "I4sIQ"  # tfdt: version 1, baseMediaDecodeTime
    "I4sIIi"  # trun: version 1 and flags, sample count, data offset
    "IIIi"  # its sample: duration, size, flags, composition time offset
    "I4s"  # mdat
)
_MDAT_HEADER_BYTES = 8
_MOOF_BYTES = _FRAGMENT.size - _MDAT_HEADER_BYTES
_TRUN_FLAGS = 0x0100_0F01  # version 1; data offset, and each sample's duration, size, flags and offset


class Fmp4Muxer:
    """One fragment per access unit, decode times in `TIME_BASE_HZ`.

    A sample's duration is not known before the next one, and waiting would cost a picture's time: it is
    taken to be the last one's. The next fragment states its own decode time, so nothing drifts.
    """

    def __init__(self, track: Track) -> None:
        """Raises ProtocolError if the track's parameter sets are unusable."""
        configuration = codec_configuration(track)
        self.init = _init_segment(track, configuration)
        self.restart = self.init
        self.mime = f'video/mp4; codecs="{configuration.codecs}"'
        self._sequence = 0
        self._duration = _FIRST_DURATION
        self._last_dts: int | None = None

    def mux(self, sample: MuxedUnit) -> MuxedUnit:
        self._sequence = self._sequence + 1 & 0xFFFF_FFFF
        if self._last_dts is not None and 0 < sample.dts - self._last_dts <= _MAX_DURATION:
            self._duration = sample.dts - self._last_dts
        self._last_dts = sample.dts
        size = sample.size_bytes
        header = _FRAGMENT.pack(
            *(_MOOF_BYTES, b"moof"),
            *(16, b"mfhd", 0, self._sequence),
            *(80, b"traf"),
            *(16, b"tfhd", 0x02_0000, _TRACK_ID),
            *(20, b"tfdt", 0x0100_0000, sample.dts),
            *(36, b"trun", _TRUN_FLAGS, 1, _FRAGMENT.size),
            *(self._duration, size, _RANDOM_ACCESS_FLAGS if sample.is_random_access else _INTER_FLAGS),
            sample.pts - sample.dts,
            *(_MDAT_HEADER_BYTES + size, b"mdat"),
        )
        return sample.enclosed(header)

    def mux_audio(self, unit: AudioUnit) -> MuxedUnit | None:  # noqa: ARG002
        return None


def _init_segment(track: Track, configuration: CodecConfiguration) -> bytes:
    movie = _box(b"moov", _movie_header(), _track(track, configuration), _movie_extends())
    return _box(b"ftyp", b"iso5", bytes(4), b"iso5", b"iso6", b"mp41") + movie


def _movie_header() -> bytes:
    times = struct.pack(">IIII", 0, 0, TIME_BASE_HZ, 0)
    rate_and_volume = struct.pack(">IH10x", 0x10000, 0x0100)
    return _full_box(
        b"mvhd", 0, times, rate_and_volume, _UNITY_MATRIX, bytes(24), (_TRACK_ID + 1).to_bytes(4)
    )


def _track(track: Track, configuration: CodecConfiguration) -> bytes:
    enabled_in_movie = 3
    times = struct.pack(">IIIII", 0, 0, _TRACK_ID, 0, 0)
    size = struct.pack(">II", track.width << 16, track.height << 16)
    header = _full_box(b"tkhd", enabled_in_movie, times, bytes(16), _UNITY_MATRIX, size)
    media_header = _full_box(
        b"mdhd", 0, struct.pack(">IIIIHH", 0, 0, TIME_BASE_HZ, 0, _UNDETERMINED_LANGUAGE, 0)
    )
    handler = _full_box(b"hdlr", 0, bytes(4), b"vide", bytes(12), b"video\0")
    location = _full_box(b"dref", 0, (1).to_bytes(4), _full_box(b"url ", 1))
    information = _box(
        b"minf", _full_box(b"vmhd", 1, bytes(8)), _box(b"dinf", location), _sample_table(track, configuration)
    )
    return _box(b"trak", header, _box(b"mdia", media_header, handler, information))


def _sample_table(track: Track, configuration: CodecConfiguration) -> bytes:
    """Describes the samples' format; has no samples, since all are in fragments."""
    entry = _box(
        configuration.sample_entry,
        bytes(6) + (1).to_bytes(2),
        bytes(16) + struct.pack(">HH", track.width, track.height),
        struct.pack(">IIIH", 0x48_0000, 0x48_0000, 0, 1),
        bytes(32) + struct.pack(">Hh", 24, -1),
        _box(configuration.record_type, configuration.record),
    )
    return _box(
        b"stbl",
        _full_box(b"stsd", 0, (1).to_bytes(4), entry),
        _full_box(b"stts", 0, bytes(4)),
        _full_box(b"stsc", 0, bytes(4)),
        _full_box(b"stsz", 0, bytes(8)),
        _full_box(b"stco", 0, bytes(4)),
    )


def _movie_extends() -> bytes:
    return _box(b"mvex", _full_box(b"trex", 0, struct.pack(">IIIII", _TRACK_ID, 1, 0, 0, 0)))


def _full_box(kind: bytes, flags: int, *content: bytes) -> bytes:
    return _box(kind, flags.to_bytes(4), *content)


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4) + kind + body
