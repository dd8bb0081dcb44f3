"""Containers and transfer framings: from access units to the bytes that every viewer of a camera shares."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from streams.media import Track
from streams.mux.flv import FlvMuxer
from streams.mux.fmp4 import Fmp4Muxer
from streams.mux.framing import FRAMINGS, Framing
from streams.mux.mark import MARK_LENGTH, Marker
from streams.mux.muxed_unit import MuxedUnit, Muxer, sample_of

CONTAINERS: Mapping[str, Callable[[Track], Muxer]] = MappingProxyType({"flv": FlvMuxer, "fmp4": Fmp4Muxer})

__all__ = ["CONTAINERS", "FRAMINGS", "MARK_LENGTH", "Framing", "Marker", "MuxedUnit", "Muxer", "sample_of"]
