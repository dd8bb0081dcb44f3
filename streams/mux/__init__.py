"""Containers and transfer framings: from access units to the bytes that every viewer of a camera shares."""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from streams.media import Track
from streams.mux.flv import Flv12Muxer, FlvMuxer
from streams.mux.fmp4 import Fmp4Muxer
from streams.mux.framing import FRAMINGS, Framing
from streams.mux.mark import MARK_LENGTH, Marker
from streams.mux.muxed_unit import MuxedUnit, Muxer, Piece, Sample, sample_of
from streams.mux.rtp import RtpMuxer

CONTAINERS: Mapping[str, Callable[[Track], Muxer]] = MappingProxyType(
    {"flv": FlvMuxer, "flv-12": Flv12Muxer, "fmp4": Fmp4Muxer, "rtp": RtpMuxer}
)

__all__ = [
    "CONTAINERS",
    "FRAMINGS",
    "MARK_LENGTH",
    "Framing",
    "Marker",
    "MuxedUnit",
    "Muxer",
    "Piece",
    "Sample",
    "sample_of",
]
