"""From access units to RTP packets (RFC 6184 for H.264, RFC 7798 for H.265), and their media description.

Small NAL units that follow each other share a packet, large ones are fragmented; nothing is interleaved.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from streams.errors import ProtocolError
from streams.media import TIME_BASE_HZ, AccessUnit, Codec, Track
from streams.wire import h264, h265
from streams.wire.depacketizer import H264_STAP_A, H265_AP
from streams.wire.fragment_run import FU_END, FU_START, H264_FU_A, H265_FU
from streams.wire.nal_unit import SYNTAX
from streams.wire.rtp import RtpPacket, serialize_rtp
from streams.wire.sdp import MediaDescription, RtpMap, encode_sprop

DEFAULT_MAX_PAYLOAD_BYTES: Final = 1400
"""Below the usual 1,500 byte MTU with IP, UDP and RTP headers and room for a tunnel."""

NalUnit = bytes | memoryview

_LENGTH_BYTES: Final = 2
_F_AND_NRI: Final = 0xE0
_H265_SPROP: Final = {
    "sprop-vps": h265.NalUnitType.VPS,
    "sprop-sps": h265.NalUnitType.SPS,
    "sprop-pps": h265.NalUnitType.PPS,
}


class RtpSender(msgspec.Struct, frozen=True, kw_only=True):
    """What an RTP stream starts with; all but the payload type are to be random (RFC 3550 §5.1)."""

    payload_type: int
    ssrc: int
    first_sequence_number: int
    timestamp_offset: int


class PayloadFormat(ABC):
    """Cuts NAL units into payloads of at most `max_payload_bytes`."""

    codec: ClassVar[Codec]

    def __init__(self, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> None:
        self._max_payload_bytes = max_payload_bytes
        self._header_bytes = SYNTAX[self.codec].NAL_UNIT_HEADER_BYTES

    def payloads(self, nal_units: Iterable[NalUnit]) -> Iterator[tuple[bytes, NalUnit]]:
        """Each payload as its own header and what follows it, which is not copied if it is large.

        NAL units shorter than a NAL unit header are left out: no receiver could tell what they are.
        """
        small: list[NalUnit] = []
        size = self._header_bytes
        for nal_unit in nal_units:
            nal_unit_bytes = len(nal_unit)
            if small and size + _LENGTH_BYTES + nal_unit_bytes > self._max_payload_bytes:
                yield self._aggregate(small)
                small, size = [], self._header_bytes
            if nal_unit_bytes > self._max_payload_bytes:
                yield from self._fragment(nal_unit)
            elif nal_unit_bytes >= self._header_bytes:
                small.append(nal_unit)
                size += _LENGTH_BYTES + nal_unit_bytes
        if small:
            yield self._aggregate(small)

    def _aggregate(self, nal_units: list[NalUnit]) -> tuple[bytes, NalUnit]:
        if len(nal_units) == 1:
            return b"", nal_units[0]
        parts: list[NalUnit] = []
        for nal_unit in nal_units:
            parts += (len(nal_unit).to_bytes(_LENGTH_BYTES, "big"), nal_unit)
        return self._aggregation_header(nal_units), b"".join(parts)

    def _fragment(self, nal_unit: NalUnit) -> Iterator[tuple[bytes, NalUnit]]:
        payload_header, kind = self._fragmentation_header(nal_unit)
        step = self._max_payload_bytes - len(payload_header) - 1
        header = payload_header + bytes((kind,))
        last = len(nal_unit) - step
        yield (
            payload_header + bytes((FU_START | kind,)),
            nal_unit[self._header_bytes : self._header_bytes + step],
        )
        start = self._header_bytes + step
        while start < last:
            yield header, nal_unit[start : start + step]
            start += step
        yield payload_header + bytes((FU_END | kind,)), nal_unit[start:]

    @abstractmethod
    def _aggregation_header(self, nal_units: list[NalUnit]) -> bytes: ...

    @abstractmethod
    def _fragmentation_header(self, nal_unit: NalUnit) -> tuple[bytes, int]:
        """The payload header, and the NAL unit type for the FU header."""


class H264PayloadFormat(PayloadFormat):
    codec = Codec.H264

    def _aggregation_header(self, nal_units: list[NalUnit]) -> bytes:
        # The highest nal_ref_idc of all (RFC 6184 §5.7).
        return bytes((max(nal_unit[0] & 0x60 for nal_unit in nal_units) | H264_STAP_A,))

    def _fragmentation_header(self, nal_unit: NalUnit) -> tuple[bytes, int]:
        return bytes((nal_unit[0] & _F_AND_NRI | H264_FU_A,)), nal_unit[0] & 0x1F


class H265PayloadFormat(PayloadFormat):
    codec = Codec.H265

    def _aggregation_header(self, nal_units: list[NalUnit]) -> bytes:
        # The lowest layer and temporal identifiers of all (RFC 7798 §4.4.2).
        layer = min((nal_unit[0] & 1) << 5 | nal_unit[1] >> 3 for nal_unit in nal_units)
        temporal = min(nal_unit[1] & 7 for nal_unit in nal_units)
        return bytes((H265_AP << 1 | layer >> 5, (layer & 0x1F) << 3 | temporal))

    def _fragmentation_header(self, nal_unit: NalUnit) -> tuple[bytes, int]:
        return bytes((nal_unit[0] & 0x81 | H265_FU << 1, nal_unit[1])), nal_unit[0] >> 1 & 0x3F


PAYLOAD_FORMATS: Final[dict[Codec, type[PayloadFormat]]] = {
    Codec.H264: H264PayloadFormat,
    Codec.H265: H265PayloadFormat,
}


class Packetizer:
    """One track's sender."""

    def __init__(
        self, codec: Codec, sender: RtpSender, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES
    ) -> None:
        self._format = PAYLOAD_FORMATS[codec](max_payload_bytes)
        self._sender = sender
        self._sequence_number = sender.first_sequence_number

    def packetize(self, unit: AccessUnit, parameter_sets: Iterable[bytes] = ()) -> list[bytes]:
        """The access unit's packets, the last one with the marker bit; `parameter_sets` go before it."""
        payloads = list(self._format.payloads([*parameter_sets, *unit.nal_units]))
        timestamp = (unit.pts + self._sender.timestamp_offset) & 0xFFFFFFFF
        packets = []
        for index, (header, body) in enumerate(payloads, start=1):
            packet = RtpPacket(
                self._sender.payload_type,
                index == len(payloads),
                self._sequence_number,
                timestamp,
                self._sender.ssrc,
                header + body,
            )
            self._sequence_number = (self._sequence_number + 1) & 0xFFFF
            packets.append(serialize_rtp(packet))
        return packets


def describe_track(track: Track, payload_type: int, control: str) -> MediaDescription:
    """The media description of what the codec's packetizer sends (RFC 6184 §8.2, RFC 7798 §7.2).

    Raises ProtocolError if the track lacks a parameter set.
    """
    by_kind: dict[int, list[bytes]] = {}
    for nal_unit in track.parameter_sets:
        by_kind.setdefault(SYNTAX[track.codec].nal_unit_type(nal_unit), []).append(nal_unit)
    try:
        if track.codec is Codec.H264:
            parameters = {
                "packetization-mode": "1",
                "profile-level-id": by_kind[h264.NalUnitType.SPS][0][1:4].hex().upper(),
                "sprop-parameter-sets": encode_sprop(*track.parameter_sets),
            }
        else:
            parameters = {name: encode_sprop(*by_kind[kind]) for name, kind in _H265_SPROP.items()}
    except KeyError:
        raise ProtocolError("a track that lacks a parameter set") from None
    return MediaDescription(
        kind="video",
        formats=(payload_type,),
        rtpmap={payload_type: RtpMap(encoding=track.codec.upper(), clock_rate=TIME_BASE_HZ)},
        fmtp={payload_type: parameters},
        control=control,
    )
