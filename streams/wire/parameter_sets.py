"""The parameter sets of a stream, gathered from its session description and from the stream itself."""

from typing import Final

from streams.errors import LimitExceededError
from streams.media import MAX_PARAMETER_SET_BYTES, MAX_PARAMETER_SETS, Codec, Track
from streams.wire.nal_unit import SYNTAX

MAX_PARSED_SETS_PER_SECOND: Final = 128
"""Parameter sets that are new or unreadable: parsing a long one takes a millisecond or two."""


class ParameterSets:
    """`track` is None until every kind has been seen; it is another object whenever something changed.

    A set replaces an earlier one with the same identifier. The picture's size is the newest SPS's.
    """

    def __init__(self, codec: Codec) -> None:
        self.track: Track | None = None
        self.reorder_depth: int | None = None
        self._codec = codec
        self._syntax = SYNTAX[codec]
        self._by_id: dict[tuple[int, int], bytes] = {}
        self._width = self._height = 0

    def __contains__(self, nal_unit: bytes) -> bool:
        """Whether this very set is known: then adding it changes nothing."""
        return nal_unit in self._by_id.values()

    def add(self, nal_unit: bytes) -> None:
        """Take in one VPS, SPS or PPS. Raises ProtocolError and keeps the former ones if it is unreadable."""
        if nal_unit in self:
            return
        if len(nal_unit) > MAX_PARAMETER_SET_BYTES:
            raise LimitExceededError("parameter set is too large")
        key = self._syntax.nal_unit_type(nal_unit), self._syntax.parse_parameter_set_id(nal_unit)
        if key not in self._by_id and len(self._by_id) == MAX_PARAMETER_SETS:
            raise LimitExceededError("too many parameter sets")
        if self._syntax.is_sps(nal_unit):
            sps = self._syntax.parse_sps(nal_unit)
            self._width, self._height, self.reorder_depth = sps.width, sps.height, sps.reorder_depth
        self._by_id[key] = nal_unit
        if {kind for kind, _ in self._by_id} == self._syntax.PARAMETER_SETS:
            self.track = Track(
                codec=self._codec,
                # The types' numbers are in the order that decoders want: VPS, SPS, PPS.
                parameter_sets=tuple(self._by_id[key] for key in sorted(self._by_id)),
                width=self._width,
                height=self._height,
            )
