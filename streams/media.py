"""The values that flow through the media plane: tracks and access units.

Terms after H.264 (ITU-T H.264 §3), H.265 and RFC 6184: an *access unit* is all NAL units of one coded
picture; a *random access point* is an access unit that decodes without earlier ones (H.264 IDR, H.265 IRAP).
"""

from enum import StrEnum

import msgspec

TIME_BASE_HZ = 90_000
"""Every video PTS and DTS in this package counts 1/90,000 s (RFC 6184 §8.2.1, RFC 7798 §7.1)."""

MAX_NAL_UNIT_BYTES = 8 * 1024 * 1024
"""A 4K keyframe at visually lossless quality is about 2 MB; four times that is no picture but an attack."""
MAX_ACCESS_UNIT_BYTES = 8 * 1024 * 1024
MAX_NAL_UNITS = 512
"""NAL units in one access unit: 4K pictures in one slice per macroblock row have 135."""
MAX_PARAMETER_SET_BYTES = 4096


class Codec(StrEnum):
    """Video codecs that the gateway relays without re-encoding."""

    H264 = "h264"
    H265 = "h265"


class Track(msgspec.Struct, frozen=True, kw_only=True, tag="track"):
    """One elementary video stream: what a muxer needs before the first access unit.

    `parameter_sets` are NAL units without start codes, in the order (VPS,) SPS, PPS. `width` and `height`
    are in luma samples, after cropping. Two tracks compare equal if nothing that a container declares
    has changed.
    """

    codec: Codec
    parameter_sets: tuple[bytes, ...]
    width: int
    height: int


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
