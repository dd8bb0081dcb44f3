"""What a container declares about a track: decoder configuration record and RFC 6381 codec string."""

import msgspec

from streams.errors import LimitExceededError, ProtocolError
from streams.media import MAX_DIMENSION, MAX_PARAMETER_SET_BYTES, MAX_PARAMETER_SETS, Codec, Track
from streams.wire import h264, h265
from streams.wire.bitstream import BitReader, unescape

_H264_PROFILES_WITHOUT_CHROMA_FORMAT = frozenset({66, 77, 88})
_MAX_CHROMA_FORMAT = 3
_MAX_DEPTH_MINUS_8 = 7


class CodecConfiguration(msgspec.Struct, frozen=True):
    """`record` is the content of the box `record_type` (ISO/IEC 14496-15 §5.3.3, §8.3.3)."""

    sample_entry: bytes
    record_type: bytes
    record: bytes
    codecs: str


def codec_configuration(track: Track) -> CodecConfiguration:
    """Raises ProtocolError for a missing or malformed parameter set, LimitExceededError for a huge one."""
    if len(track.parameter_sets) > MAX_PARAMETER_SETS:
        raise LimitExceededError("too many parameter sets")
    if any(len(parameter_set) > MAX_PARAMETER_SET_BYTES for parameter_set in track.parameter_sets):
        raise LimitExceededError("a parameter set is too large")
    if not (0 < track.width <= MAX_DIMENSION and 0 < track.height <= MAX_DIMENSION):
        raise ProtocolError("a track without a usable picture size")
    return _h264(track.parameter_sets) if track.codec is Codec.H264 else _h265(track.parameter_sets)


def _h264(parameter_sets: tuple[bytes, ...]) -> CodecConfiguration:
    """AVCDecoderConfigurationRecord. An SPS starts with header, profile, constraint flags and level."""
    sps = [p for p in parameter_sets if p and h264.nal_unit_type(p) == h264.NalUnitType.SPS]
    pps = [p for p in parameter_sets if p and h264.nal_unit_type(p) == h264.NalUnitType.PPS]
    if not sps or not pps or len(sps[0]) < 4:  # noqa: PLR2004 - header, profile, flags, level
        raise ProtocolError("an H.264 track without SPS or PPS")
    profile, level = sps[0][1:2], sps[0][1:4]
    record = [b"\x01", level, b"\xff", bytes((0xE0 | len(sps),))]
    record += [len(p).to_bytes(2) + p for p in sps]
    record.append(bytes((len(pps),)))
    record += [len(p).to_bytes(2) + p for p in pps]
    if profile[0] not in _H264_PROFILES_WITHOUT_CHROMA_FORMAT:
        record.append(_h264_chroma_and_depth(sps[0]))
    return CodecConfiguration(b"avc1", b"avcC", b"".join(record), f"avc1.{level.hex().upper()}")


def _h264_chroma_and_depth(sps: bytes) -> bytes:
    """The last fields of the high profiles' record, out of H.264 §7.3.2.1.1."""
    reader = BitReader(unescape(sps[4:]))
    reader.ue()  # seq_parameter_set_id
    return _chroma_format(reader) + _bit_depths(reader) + b"\0"  # and no SPS extensions


def _h265(parameter_sets: tuple[bytes, ...]) -> CodecConfiguration:
    """HEVCDecoderConfigurationRecord, all parameter sets in it and none in band (`hvc1`)."""
    by_type = {
        kind: [p for p in parameter_sets if p and h265.nal_unit_type(p) == kind]
        for kind in sorted(h265.PARAMETER_SETS)
    }
    if not all(by_type.values()):
        raise ProtocolError("an H.265 track without VPS, SPS or PPS")
    reader = BitReader(unescape(by_type[h265.NalUnitType.SPS][0][2:]))
    reader.bits(4)  # sps_video_parameter_set_id
    sub_layers = reader.bits(3)
    temporal_id_nesting = reader.bits(1)
    general = reader.bits(12 * 8).to_bytes(12)
    h265.skip_sub_layers(reader, sub_layers)
    reader.ue()  # sps_seq_parameter_set_id
    chroma_format = _chroma_format(reader)
    reader.ue()  # pic_width_in_luma_samples
    reader.ue()  # pic_height_in_luma_samples
    if reader.flag():
        for _ in range(4):  # conformance window
            reader.ue()
    layers = (sub_layers + 1) << 3 | temporal_id_nesting << 2 | 3
    record = [
        b"\x01" + general + b"\xf0\x00\xfc" + chroma_format + _bit_depths(reader),
        bytes((0, 0, layers, len(by_type))),  # no average frame rate
    ]
    for kind, sets in by_type.items():
        record.append(bytes((0x80 | kind,)) + len(sets).to_bytes(2))
        record += [len(p).to_bytes(2) + p for p in sets]
    return CodecConfiguration(b"hvc1", b"hvcC", b"".join(record), _h265_codecs(general))


def _chroma_format(reader: BitReader) -> bytes:
    """chroma_format_idc as both records hold it, behind six reserved bits."""
    chroma_format = reader.ue(_MAX_CHROMA_FORMAT)
    if chroma_format == _MAX_CHROMA_FORMAT:
        reader.flag()  # separate_colour_plane_flag
    return bytes((0xFC | chroma_format,))


def _bit_depths(reader: BitReader) -> bytes:
    """bit_depth_luma_minus8 and bit_depth_chroma_minus8, each behind five reserved bits."""
    return bytes((0xF8 | reader.ue(_MAX_DEPTH_MINUS_8), 0xF8 | reader.ue(_MAX_DEPTH_MINUS_8)))


def _h265_codecs(general: bytes) -> str:
    """`hvc1.` and the parameters of ISO/IEC 14496-15 §E.3, of the 12 bytes of general_profile_tier_level."""
    space = ("", "A", "B", "C")[general[0] >> 6]
    compatibility = int(f"{int.from_bytes(general[1:5]):032b}"[::-1], 2)
    tier = "H" if general[0] & 0x20 else "L"
    constraints = general[5:11].rstrip(b"\0")
    parts = [f"hvc1.{space}{general[0] & 0x1F}", f"{compatibility:X}", f"{tier}{general[11]}"]
    return ".".join(parts + [f"{byte:X}" for byte in constraints])
