"""H.264 and H.265 behind one interface: what a payload format needs to know about a NAL unit."""

from typing import Final, Protocol

from streams.media import Codec
from streams.wire import h264, h265


class SequenceParameterSet(Protocol):
    """What both codecs' SPS tell about the whole stream."""

    @property
    def width(self) -> int: ...

    @property
    def height(self) -> int: ...

    @property
    def reorder_depth(self) -> int | None: ...


class NalUnitSyntax(Protocol):
    """The modules `h264` and `h265` as values."""

    @property
    def SLICES(self) -> frozenset[int]: ...  # noqa: N802 (a module's constant)

    @property
    def RANDOM_ACCESS(self) -> frozenset[int]: ...  # noqa: N802

    @property
    def PARAMETER_SETS(self) -> frozenset[int]: ...  # noqa: N802

    @property
    def DISCARDED(self) -> frozenset[int]: ...  # noqa: N802

    @property
    def NAL_UNIT_HEADER_BYTES(self) -> int: ...  # noqa: N802

    def nal_unit_type(self, nal_unit: bytes) -> int: ...

    def starts_picture(self, slice_nal_unit: bytes) -> bool: ...

    def parse_parameter_set_id(self, nal_unit: bytes) -> int: ...

    def is_sps(self, nal_unit: bytes) -> bool: ...

    def parse_sps(self, nal_unit: bytes) -> SequenceParameterSet: ...


SYNTAX: Final[dict[Codec, NalUnitSyntax]] = {Codec.H264: h264, Codec.H265: h265}


def is_slice(codec: Codec, nal_unit: bytes) -> bool:
    """Whether the NAL unit is coded picture data (VCL): H.264 types 1 to 5, H.265 types 0 to 31."""
    syntax = SYNTAX[codec]
    return len(nal_unit) > 0 and syntax.nal_unit_type(nal_unit) in syntax.SLICES
