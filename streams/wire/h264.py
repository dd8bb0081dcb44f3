"""H.264 (ITU-T H.264) NAL units and sequence parameter sets."""

from enum import IntEnum
from typing import Final

import msgspec

from streams.errors import ProtocolError
from streams.media import MAX_DIMENSION
from streams.wire.bitstream import BitReader, unescape

NAL_UNIT_HEADER_BYTES: Final = 1

_PROFILES_WITH_CHROMA_FORMAT: Final = frozenset(
    {44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244}
)
_PROFILE_BASELINE: Final = 66
_EXTENDED_SAR: Final = 255


class NalUnitType(IntEnum):
    """H.264 table 7-1: those that are told apart here."""

    SLICE = 1
    IDR_SLICE = 5
    SPS = 7
    PPS = 8
    ACCESS_UNIT_DELIMITER = 9
    FILLER = 12
    SPS_EXTENSION = 13
    SUBSET_SPS = 15


SLICES: Final = frozenset(range(NalUnitType.SLICE, NalUnitType.IDR_SLICE + 1))
RANDOM_ACCESS: Final = frozenset({NalUnitType.IDR_SLICE})
PARAMETER_SETS: Final = frozenset({NalUnitType.SPS, NalUnitType.PPS})
DISCARDED: Final = frozenset(
    {
        0,
        *range(24, 32),
        NalUnitType.ACCESS_UNIT_DELIMITER,
        NalUnitType.FILLER,
        NalUnitType.SPS_EXTENSION,
        NalUnitType.SUBSET_SPS,
    }
)
"""NAL units that no receiver of ours needs: unspecified (payload formats use them), delimiters, filler,
scalable and 3D extensions."""


class SequenceParameterSet(msgspec.Struct, frozen=True, kw_only=True):
    """`width`, `height`: luma samples after cropping.

    `reorder_depth`: how many pictures at most precede a picture in decoding order and follow it in output
    order; None if the camera does not say.
    """

    id: int
    width: int
    height: int
    reorder_depth: int | None


def nal_unit_type(nal_unit: bytes) -> int:
    return nal_unit[0] & 0x1F


def starts_picture(slice_nal_unit: bytes) -> bool:
    """Whether a slice is its picture's first: first_mb_in_slice, the first element, is 0 (one bit, 1)."""
    return len(slice_nal_unit) > 1 and slice_nal_unit[1] & 0x80 != 0


def is_sps(nal_unit: bytes) -> bool:
    return nal_unit_type(nal_unit) == NalUnitType.SPS


def parse_parameter_set_id(nal_unit: bytes) -> int:
    """The identifier of an SPS (0..31) or PPS (0..255). Raises ProtocolError."""
    if is_sps(nal_unit):
        return parse_sps(nal_unit).id
    return BitReader(unescape(nal_unit[1:])).ue(255)


def parse_sps(nal_unit: bytes) -> SequenceParameterSet:
    """A sequence parameter set (H.264 §7.3.2.1.1). Raises ProtocolError."""
    reader = BitReader(unescape(nal_unit[1:]))
    profile_idc = reader.bits(8)
    reader.bits(16)  # constraint flags and level_idc
    sps_id = reader.ue(31)
    chroma_array_type = _read_chroma_format(reader) if profile_idc in _PROFILES_WITH_CHROMA_FORMAT else 1
    reader.ue(12)  # log2_max_frame_num_minus4
    picture_order_count_type = _skip_picture_order_count(reader)
    reader.ue(16)  # max_num_ref_frames
    reader.flag()  # gaps_in_frame_num_value_allowed_flag
    width, height = _read_dimensions(reader, chroma_array_type)
    reorder_depth = _read_reorder_depth(reader)
    if reorder_depth is None and (profile_idc == _PROFILE_BASELINE or picture_order_count_type == 2):  # noqa: PLR2004
        # Baseline has no B slices; type 2 makes output order equal decoding order (§8.2.1.3).
        reorder_depth = 0
    return SequenceParameterSet(
        id=sps_id,
        width=width,
        height=height,
        reorder_depth=reorder_depth,
    )


def _read_chroma_format(reader: BitReader) -> int:
    """Up to and including the scaling matrices; returns ChromaArrayType."""
    chroma_format_idc = reader.ue(3)
    separate_colour_planes = chroma_format_idc == 3 and reader.flag()  # noqa: PLR2004
    reader.ue(6)  # bit_depth_luma_minus8
    reader.ue(6)  # bit_depth_chroma_minus8
    reader.flag()  # qpprime_y_zero_transform_bypass_flag
    if reader.flag():  # seq_scaling_matrix_present_flag
        for index in range(8 if chroma_format_idc != 3 else 12):  # noqa: PLR2004
            if reader.flag():
                _skip_scaling_list(reader, 16 if index < 6 else 64)  # noqa: PLR2004
    return 0 if separate_colour_planes else chroma_format_idc


def _skip_scaling_list(reader: BitReader, size: int) -> None:
    last_scale = next_scale = 8
    for _ in range(size):
        if next_scale:
            next_scale = (last_scale + reader.se()) % 256
        last_scale = next_scale or last_scale


def _skip_picture_order_count(reader: BitReader) -> int:
    kind = reader.ue(2)
    if kind == 0:
        reader.ue(12)  # log2_max_pic_order_cnt_lsb_minus4
    elif kind == 1:
        reader.flag()  # delta_pic_order_always_zero_flag
        reader.se()  # offset_for_non_ref_pic
        reader.se()  # offset_for_top_to_bottom_field
        for _ in range(reader.ue(255)):
            reader.se()  # offset_for_ref_frame
    return kind


def _read_dimensions(reader: BitReader, chroma_array_type: int) -> tuple[int, int]:
    width = 16 * (reader.ue(MAX_DIMENSION // 16) + 1)
    map_units = reader.ue(MAX_DIMENSION // 16) + 1
    frame_mbs_only = reader.flag()
    fields = 1 if frame_mbs_only else 2
    height = 16 * map_units * fields
    if not frame_mbs_only:
        reader.flag()  # mb_adaptive_frame_field_flag
    reader.flag()  # direct_8x8_inference_flag
    if reader.flag():  # frame_cropping_flag
        unit_x = 2 if chroma_array_type in (1, 2) else 1
        unit_y = (2 if chroma_array_type == 1 else 1) * fields
        width -= unit_x * (reader.ue() + reader.ue())
        height -= unit_y * (reader.ue() + reader.ue())
    if not (0 < width <= MAX_DIMENSION and 0 < height <= MAX_DIMENSION):
        raise ProtocolError("impossible picture size in the SPS")
    return width, height


def _read_reorder_depth(reader: BitReader) -> int | None:
    try:
        return _read_vui_reorder_depth(reader)
    except ProtocolError:
        # Cameras with truncated VUI exist, and every decoder plays them: nothing before it is in doubt.
        return None


def _read_vui_reorder_depth(reader: BitReader) -> int | None:
    """Max_num_reorder_frames of the VUI parameters (H.264 §E.1.1), if present."""
    if not reader.flag():  # vui_parameters_present_flag
        return None
    if reader.flag() and reader.bits(8) == _EXTENDED_SAR:  # aspect_ratio_info_present_flag
        reader.bits(32)
    if reader.flag():  # overscan_info_present_flag
        reader.flag()
    if reader.flag():  # video_signal_type_present_flag
        reader.bits(4)
        if reader.flag():  # colour_description_present_flag
            reader.bits(24)
    if reader.flag():  # chroma_loc_info_present_flag
        reader.ue()
        reader.ue()
    if reader.flag():  # timing_info_present_flag
        reader.bits(65)
    has_nal_hrd = _skip_hrd(reader)
    has_vcl_hrd = _skip_hrd(reader)
    if has_nal_hrd or has_vcl_hrd:
        reader.flag()  # low_delay_hrd_flag
    reader.flag()  # pic_struct_present_flag
    if not reader.flag():  # bitstream_restriction_flag
        return None
    reader.flag()  # motion_vectors_over_pic_boundaries_flag
    for _ in range(4):  # max_bytes_per_pic_denom ... log2_max_mv_length_vertical
        reader.ue()
    return reader.ue(16)


def _skip_hrd(reader: BitReader) -> bool:
    if not reader.flag():
        return False
    cpb_count = reader.ue(31) + 1
    reader.bits(8)
    for _ in range(cpb_count):
        reader.ue()
        reader.ue()
        reader.flag()
    reader.bits(20)
    return True
