"""H.265 (ITU-T H.265) NAL units and sequence parameter sets."""

from enum import IntEnum
from typing import Final

import msgspec

from streams.errors import ProtocolError
from streams.media import MAX_DIMENSION
from streams.wire.bitstream import BitReader, unescape

NAL_UNIT_HEADER_BYTES: Final = 2


class NalUnitType(IntEnum):
    """H.265 table 7-1: those that are told apart here."""

    BLA_W_LP = 16
    RESERVED_IRAP_23 = 23
    RESERVED_SLICE_31 = 31
    VPS = 32
    SPS = 33
    PPS = 34
    ACCESS_UNIT_DELIMITER = 35
    FILLER = 38


SLICES: Final = frozenset(range(NalUnitType.RESERVED_SLICE_31 + 1))
RANDOM_ACCESS: Final = frozenset(range(NalUnitType.BLA_W_LP, NalUnitType.RESERVED_IRAP_23 + 1))
"""IRAP pictures: BLA, IDR, CRA and the two reserved types (H.265 §3.73)."""
PARAMETER_SETS: Final = frozenset({NalUnitType.VPS, NalUnitType.SPS, NalUnitType.PPS})
DISCARDED: Final = frozenset({NalUnitType.ACCESS_UNIT_DELIMITER, NalUnitType.FILLER, *range(48, 64)})
"""NAL units that no receiver of ours needs: delimiters, filler, unspecified (payload formats use them)."""


class SequenceParameterSet(msgspec.Struct, frozen=True, kw_only=True):
    """`width`, `height`: luma samples after the conformance window.

    `reorder_depth`: how many pictures at most precede a picture in decoding order and follow it in output
    order (sps_max_num_reorder_pics of the highest sub-layer).
    """

    id: int
    width: int
    height: int
    reorder_depth: int


def nal_unit_type(nal_unit: bytes) -> int:
    return nal_unit[0] >> 1 & 0x3F


def starts_picture(slice_nal_unit: bytes) -> bool:
    """Whether a slice is its picture's first: first_slice_segment_in_pic_flag, its first bit."""
    return len(slice_nal_unit) > NAL_UNIT_HEADER_BYTES and slice_nal_unit[NAL_UNIT_HEADER_BYTES] & 0x80 != 0


def is_sps(nal_unit: bytes) -> bool:
    return nal_unit_type(nal_unit) == NalUnitType.SPS


def parse_parameter_set_id(nal_unit: bytes) -> int:
    """The identifier of a VPS (0..15), SPS (0..15) or PPS (0..63). Raises ProtocolError."""
    if is_sps(nal_unit):
        return parse_sps(nal_unit).id
    reader = BitReader(unescape(nal_unit[NAL_UNIT_HEADER_BYTES:]))
    return reader.bits(4) if nal_unit_type(nal_unit) == NalUnitType.VPS else reader.ue(63)


def parse_sps(nal_unit: bytes) -> SequenceParameterSet:
    """A sequence parameter set (H.265 §7.3.2.2.1), as far as its reorder depth. Raises ProtocolError."""
    reader = BitReader(unescape(nal_unit[NAL_UNIT_HEADER_BYTES:]))
    reader.bits(4)  # sps_video_parameter_set_id
    sub_layers = reader.bits(3)
    reader.flag()  # sps_temporal_id_nesting_flag
    reader.bits(96)  # general profile, tier and level
    skip_sub_layers(reader, sub_layers)
    sps_id = reader.ue(15)
    chroma_format_idc = reader.ue(3)
    separate_colour_planes = chroma_format_idc == 3 and reader.flag()  # noqa: PLR2004
    width, height = _read_dimensions(reader, 0 if separate_colour_planes else chroma_format_idc)
    reader.ue(8)  # bit_depth_luma_minus8
    reader.ue(8)  # bit_depth_chroma_minus8
    reader.ue(12)  # log2_max_pic_order_cnt_lsb_minus4
    reorder_depth = 0
    for _ in range(sub_layers + 1 if reader.flag() else 1):  # sps_sub_layer_ordering_info_present_flag
        reader.ue(15)  # sps_max_dec_pic_buffering_minus1
        reorder_depth = reader.ue(15)
        reader.ue()  # sps_max_latency_increase_plus1
    return SequenceParameterSet(
        id=sps_id,
        width=width,
        height=height,
        reorder_depth=reorder_depth,
    )


def skip_sub_layers(reader: BitReader, count: int) -> None:
    """The sub-layers' part of profile_tier_level (H.265 §7.3.3)."""
    present = [(reader.flag(), reader.flag()) for _ in range(count)]
    if count:
        reader.bits(2 * (8 - count))
    for has_profile, has_level in present:
        reader.bits(88 * has_profile + 8 * has_level)


def _read_dimensions(reader: BitReader, chroma_array_type: int) -> tuple[int, int]:
    width, height = reader.ue(MAX_DIMENSION), reader.ue(MAX_DIMENSION)
    if reader.flag():  # conformance_window_flag
        width -= (2 if chroma_array_type in (1, 2) else 1) * (reader.ue() + reader.ue())
        height -= (2 if chroma_array_type == 1 else 1) * (reader.ue() + reader.ue())
    if not (0 < width <= MAX_DIMENSION and 0 < height <= MAX_DIMENSION):
        raise ProtocolError("impossible picture size in the SPS")
    return width, height
