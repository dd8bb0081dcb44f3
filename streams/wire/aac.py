"""AAC's AudioSpecificConfig (ISO/IEC 14496-3 §1.6.2.1): what a container must know about the sound."""

from typing import Final

import msgspec

from streams.errors import LimitExceededError, ProtocolError, UnsupportedError
from streams.media import MAX_AUDIO_CONFIGURATION_BYTES, MAX_SAMPLE_RATE_HZ
from streams.wire.bitstream import BitReader

_SAMPLE_RATES: Final = (
    *(96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000),
    *(22_050, 16_000, 12_000, 11_025, 8_000, 7_350),
)
_EXPLICIT_RATE: Final = 15
_ESCAPED_OBJECT_TYPE: Final = 31
_EXTENDED: Final = frozenset({5, 29})
"""SBR and parametric stereo (HE-AAC), which stand before the object type that they extend."""
_SEVEN_POINT_ONE: Final = 7
_ADTS_HEADER_BYTES: Final = 7
_ADTS_CRC_BYTES: Final = 2
_GENERAL: Final = range(1, 5)
"""Main, LC, SSR and LTP: 1,024 or 960 samples in each access unit."""


class AacFormat(msgspec.Struct, frozen=True, kw_only=True):
    """`object_type`: as in `mp4a.40.N`. `sample_rate`: of the core, in Hz; SBR doubles it in the decoder.

    `channels`: 0 if only the stream itself tells. `samples_per_unit`: at `sample_rate`.
    """

    object_type: int
    sample_rate: int
    channels: int
    samples_per_unit: int


def parse_audio_specific_config(configuration: bytes) -> AacFormat:
    """Raises ProtocolError, LimitExceededError if it is too long, UnsupportedError for other object types."""
    if len(configuration) > MAX_AUDIO_CONFIGURATION_BYTES:
        raise LimitExceededError("the AudioSpecificConfig is too long")
    reader = BitReader(configuration)
    object_type = core_type = _read_object_type(reader)
    sample_rate = _read_sample_rate(reader)
    channel_configuration = reader.bits(4)
    if object_type in _EXTENDED:
        _read_sample_rate(reader)
        core_type = _read_object_type(reader)
    if core_type not in _GENERAL:
        raise UnsupportedError(f"AAC of object type {core_type}")
    return AacFormat(
        object_type=object_type,
        sample_rate=sample_rate,
        channels=8 if channel_configuration == _SEVEN_POINT_ONE else channel_configuration,
        samples_per_unit=960 if reader.flag() else 1024,  # frameLengthFlag
    )


def split_adts(data: bytes) -> tuple[bytes, bytes]:
    """The AudioSpecificConfig that an ADTS header stands for, and the raw access unit behind it.

    One access unit per header, as MPEG-TS carries it (ISO/IEC 14496-3 §1.A.2.2). Raises ProtocolError.
    """
    if len(data) < _ADTS_HEADER_BYTES or data[0] != 0xFF or data[1] & 0xF6 != 0xF0:  # noqa: PLR2004
        raise ProtocolError("AAC without an ADTS header")
    start = _ADTS_HEADER_BYTES if data[1] & 1 else _ADTS_HEADER_BYTES + _ADTS_CRC_BYTES
    size = (data[3] & 3) << 11 | data[4] << 3 | data[5] >> 5
    if not start < size <= len(data) or data[6] & 3:
        raise ProtocolError("an ADTS header that is not that of its access unit")
    object_type, rate_index = (data[2] >> 6) + 1, data[2] >> 2 & 0x0F
    channel_configuration = (data[2] & 1) << 2 | data[3] >> 6
    configuration = object_type << 11 | rate_index << 7 | channel_configuration << 3
    return configuration.to_bytes(2), data[start:size]


def _read_object_type(reader: BitReader) -> int:
    object_type = reader.bits(5)
    return 32 + reader.bits(6) if object_type == _ESCAPED_OBJECT_TYPE else object_type


def _read_sample_rate(reader: BitReader) -> int:
    index = reader.bits(4)
    if index == _EXPLICIT_RATE:
        sample_rate = reader.bits(24)
    elif index < len(_SAMPLE_RATES):
        sample_rate = _SAMPLE_RATES[index]
    else:
        raise ProtocolError("reserved sampling frequency index")
    if not 0 < sample_rate <= MAX_SAMPLE_RATE_HZ:
        raise ProtocolError("impossible sampling frequency")
    return sample_rate
