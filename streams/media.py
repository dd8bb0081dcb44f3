"""The values that flow through the media plane: tracks and access units.

Terms after H.264 (ITU-T H.264 §3), H.265 and RFC 6184: an *access unit* is all NAL units of one coded
picture; a *random access point* is an access unit that decodes without earlier ones (H.264 IDR, H.265 IRAP).
"""

from enum import StrEnum

import msgspec

TIME_BASE_HZ = 90_000
"""Every PTS and DTS in this package counts 1/90,000 s (RFC 6184 §8.2.1, RFC 7798 §7.1), sound included."""

MAX_ACCESS_UNIT_BYTES = 8 * 1024 * 1024
"""A 4K keyframe at visually lossless quality is about 2 MB; four times that is no picture but an attack."""
MAX_NAL_UNITS = 512
"""NAL units in one access unit: 4K pictures in one slice per macroblock row have 135."""
MAX_PARAMETER_SET_BYTES = 4096
MAX_PARAMETER_SETS = 16
"""Streams use two to five; an avcC box has a place for 31 of a kind."""
MAX_DIMENSION = 16_384
"""Luma samples in either direction; the highest levels end at 16,888 in one of them."""
MAX_AUDIO_UNIT_BYTES = 64 * 1024
"""An AAC access unit has at most 6,144 bits per channel (ISO/IEC 14496-3 §4.5.3); G.711 has 8 kB a second."""
MAX_AUDIO_CONFIGURATION_BYTES = 64
MAX_AUDIO_CHANNELS = 8
MAX_SAMPLE_RATE_HZ = 96_000


class Codec(StrEnum):
    """Video codecs that the gateway relays without re-encoding."""

    H264 = "h264"
    H265 = "h265"


class AudioCodec(StrEnum):
    """Sound that the gateway passes through where the container has a place for it."""

    AAC = "aac"
    PCMA = "pcma"
    PCMU = "pcmu"


class AudioTrack(msgspec.Struct, frozen=True, kw_only=True):
    """The sound of a camera.

    `configuration`: the AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1) of AAC; empty for G.711.
    `sample_rate` in Hz.
    """

    codec: AudioCodec
    sample_rate: int
    channels: int
    configuration: bytes = b""


class Track(msgspec.Struct, frozen=True, kw_only=True, tag="track"):
    """What a muxer needs before the first access unit: the elementary video stream, and the sound with it.

    `parameter_sets` are NAL units without start codes, in the order (VPS,) SPS, PPS. `width` and `height`
    are in luma samples, after cropping. Two tracks compare equal if nothing that a container declares
    has changed.
    """

    codec: Codec
    parameter_sets: tuple[bytes, ...]
    width: int
    height: int
    audio: AudioTrack | None = None


class AudioUnit(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="audio_unit"):
    """Some coded sound: one raw AAC access unit (without ADTS header), or some samples of G.711.

    `pts`: integer in `TIME_BASE_HZ`, on the same time line as the video's. `received_ns`: as of an
    `AccessUnit`.
    """

    pts: int
    data: bytes
    received_ns: int


class AccessUnit(msgspec.Struct, frozen=True, kw_only=True, gc=False, tag="access_unit"):
    """One coded picture.

    `nal_units`: without start codes and without parameter sets (those are the track's), delimiters and
    filler. `pts`, `dts`: integers in `TIME_BASE_HZ`, monotonic in `dts` within a stream's epoch.
    `received_ns`: the monotonic clock, in ns, when the last byte arrived. `discontinuity`: the time line
    does not continue the previous access unit's.
    """

    pts: int
    dts: int
    nal_units: tuple[bytes, ...]
    is_random_access: bool
    received_ns: int
    discontinuity: bool = False

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.nal_units))
