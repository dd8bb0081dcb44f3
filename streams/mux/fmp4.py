"""Fragmented MP4 (ISO/IEC 14496-12, byte stream format of Media Source Extensions), live.

The init segment declares the tracks: video, and AAC if there is any. Then every access unit and every sound
unit is a fragment of its own (`moof` + `mdat`). G.711 has no place: no browser takes it in MP4.
"""

import struct

from streams.media import TIME_BASE_HZ, AudioUnit, Track
from streams.mux.codec_configuration import codec_configuration
from streams.mux.init_segment import (
    AUDIO_TRACK_ID,
    RANDOM_ACCESS_FLAGS,
    VIDEO_TRACK_ID,
    init_segment,
    mp4_sound,
)
from streams.mux.muxed_unit import Sample, SampleMuxer, sound_sample
from streams.wire.sample_clock import SampleClock

# sample_flags, ISO/IEC 14496-12 §8.8.3.1: depends on others and is no sync sample.
_INTER_FLAGS = 0x0101_0000

_FIRST_DURATION = TIME_BASE_HZ // 25
_MAX_DURATION = 10 * TIME_BASE_HZ

_MDAT_HEADER_BYTES = 8
_MOVIE_HEADER_BYTES = 8 + 16  # moof and its mfhd
_TRACK_HEADER_BYTES = 8 + 16 + 20  # traf, its tfhd and tfdt


class _Fragment:
    """A fragment with one sample up to the sample's fields: all but a few numbers is always the same.

    `fields`: the layout of what the sample says about itself (§8.8.8), as `flags` of the trun announce it.
    """

    def __init__(self, track_id: int, flags: int, fields: str) -> None:
        run_bytes = 20 + struct.calcsize(">" + fields)
        moof_bytes = _MOVIE_HEADER_BYTES + _TRACK_HEADER_BYTES + run_bytes
        self._movie = struct.pack(">I4sI4sI", moof_bytes, b"moof", 16, b"mfhd", 0)
        self._track = struct.pack(
            ">I4s I4sII I4sI",
            *(_TRACK_HEADER_BYTES + run_bytes, b"traf"),
            *(16, b"tfhd", 0x02_0000, track_id),  # default-base-is-moof
            *(20, b"tfdt", 0x0100_0000),  # version 1: 64 bits
        )
        self._run = struct.pack(">I4sIII", run_bytes, b"trun", flags, 1, moof_bytes + _MDAT_HEADER_BYTES)
        movie, track, run = len(self._movie), len(self._track), len(self._run)
        self._pack = struct.Struct(f">{movie}sI{track}sQ{run}s{fields}I4s").pack

    def header(self, sequence: int, decode_time: int, size: int, *fields: int) -> bytes:
        """`size`: of the sample in bytes, which is also one of its `fields`."""
        return self._pack(
            *(self._movie, sequence, self._track, decode_time, self._run),
            *(*fields, _MDAT_HEADER_BYTES + size, b"mdat"),
        )


# Version 1, data offset, the sample's duration, size, flags and signed composition time offset.
_VIDEO = _Fragment(VIDEO_TRACK_ID, 0x0100_0F01, "IIIi")
# Data offset and size; the rest is declared once, in the init segment.
_AUDIO = _Fragment(AUDIO_TRACK_ID, 0x0000_0201, "I")


class Fmp4Muxer(SampleMuxer):
    """One fragment per access unit, decode times in `TIME_BASE_HZ`; sound in its own sample rate.

    A sample's duration is not known before the next one, and waiting would cost a picture's time: it is
    taken to be the last one's. The next fragment states its own decode time, so nothing drifts.
    """

    def __init__(self, track: Track) -> None:
        """Raises ProtocolError if the track's parameter sets are unusable."""
        configuration = codec_configuration(track)
        sound = mp4_sound(track)
        self.init = init_segment(track, configuration, sound)
        self.restart = self.init
        codecs = configuration.codecs if sound is None else f"{configuration.codecs},{sound.codecs}"
        self.mime = f'video/mp4; codecs="{codecs}"'
        self.counts = sound is not None  # by its samples; the fragments' own numbers only have to grow
        self.declares_sound = sound is not None
        self._sequence = 0
        self._duration = _FIRST_DURATION
        self._last_dts: int | None = None
        self._samples_per_unit = 0 if sound is None else sound.format.samples_per_unit
        self._sound_clock = None if sound is None else SampleClock(sound.format.sample_rate)

    def mux(self, sample: Sample) -> Sample:
        sequence = self._sequence = self._sequence + 1 & 0xFFFF_FFFF
        dts = sample.dts
        if self._last_dts is not None and 0 < dts - self._last_dts <= _MAX_DURATION:
            self._duration = dts - self._last_dts
        self._last_dts = dts
        size = sample.size_bytes
        flags = RANDOM_ACCESS_FLAGS if sample.is_random_access else _INTER_FLAGS
        return sample.enclosed(
            _VIDEO.header(sequence, dts, size, self._duration, size, flags, sample.pts - dts)
        )

    def mux_audio(self, unit: AudioUnit) -> Sample | None:
        if self._sound_clock is None:
            return None
        self._sequence = self._sequence + 1 & 0xFFFF_FFFF
        decode_time = max(0, self._sound_clock.advance(unit.pts, self._samples_per_unit))
        size = len(unit.data)
        return sound_sample(unit, _AUDIO.header(self._sequence, decode_time, size, size), unit.data)
