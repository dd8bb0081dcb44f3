"""From access units to RTP packets (RFC 6184 for H.264, RFC 7798 for H.265), and their media description.

Small NAL units that follow each other share a packet, large ones are fragmented; nothing is interleaved.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import ClassVar, Final

import msgspec

from streams.media import TIME_BASE_HZ, AccessUnit, Codec, Track
from streams.wire import h264
from streams.wire.depacketizer import FU_END, FU_START, H264_FU_A, H264_STAP_A, H265_AP, H265_FU
from streams.wire.nal_unit import SYNTAX
from streams.wire.rtp import RtpPacket, serialize_rtp
from streams.wire.sdp import MediaDescription, RtpMap, encode_sprop

DEFAULT_MAX_PAYLOAD_BYTES: Final = 1400
"""Below the usual 1,500 byte MTU with IP, UDP and RTP headers and room for a tunnel."""

_LENGTH_BYTES: Final = 2
_F_AND_NRI: Final = 0xE0


class RtpSender(msgspec.Struct, frozen=True, kw_only=True):
    """What an RTP stream starts with; all but the payload type are to be random (RFC 3550 §5.1)."""

    payload_type: int
    ssrc: int
    first_sequence_number: int
    timestamp_offset: int


class Packetizer(ABC):
    """One track's sender."""

    codec: ClassVar[Codec]

    def __init__(self, sender: RtpSender, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> None:
        self._sender = sender
        self._max_payload_bytes = max_payload_bytes
        self._sequence_number = sender.first_sequence_number
        self._header_bytes = SYNTAX[self.codec].NAL_UNIT_HEADER_BYTES

    def packetize(self, unit: AccessUnit, parameter_sets: Iterable[bytes] = ()) -> list[bytes]:
        """The access unit's packets, the last one with the marker bit; `parameter_sets` go before it."""
        payloads = list(self._payloads([*parameter_sets, *unit.nal_units]))
        timestamp = (unit.pts + self._sender.timestamp_offset) & 0xFFFFFFFF
        packets = []
        for index, payload in enumerate(payloads, start=1):
            packet = RtpPacket(
                self._sender.payload_type,
                index == len(payloads),
                self._sequence_number,
                timestamp,
                self._sender.ssrc,
                payload,
            )
            self._sequence_number = (self._sequence_number + 1) & 0xFFFF
            packets.append(serialize_rtp(packet))
        return packets

    def _payloads(self, nal_units: list[bytes]) -> Iterator[bytes]:
        small: list[bytes] = []
        size = self._header_bytes
        for nal_unit in nal_units:
            if small and size + _LENGTH_BYTES + len(nal_unit) > self._max_payload_bytes:
                yield self._aggregate(small)
                small, size = [], self._header_bytes
            if len(nal_unit) > self._max_payload_bytes:
                yield from self._fragment(nal_unit)
            else:
                small.append(nal_unit)
                size += _LENGTH_BYTES + len(nal_unit)
        if small:
            yield self._aggregate(small)

    def _aggregate(self, nal_units: list[bytes]) -> bytes:
        if len(nal_units) == 1:
            return nal_units[0]
        parts = [self._aggregation_header(nal_units)]
        for nal_unit in nal_units:
            parts += (len(nal_unit).to_bytes(_LENGTH_BYTES, "big"), nal_unit)
        return b"".join(parts)

    def _fragment(self, nal_unit: bytes) -> Iterator[bytes]:
        payload_header, kind = self._fragmentation_header(nal_unit)
        step = self._max_payload_bytes - len(payload_header) - 1
        for start in range(self._header_bytes, len(nal_unit), step):
            flags = FU_START if start == self._header_bytes else 0
            if start + step >= len(nal_unit):
                flags |= FU_END
            yield payload_header + bytes((flags | kind,)) + nal_unit[start : start + step]

    @abstractmethod
    def _aggregation_header(self, nal_units: list[bytes]) -> bytes: ...

    @abstractmethod
    def _fragmentation_header(self, nal_unit: bytes) -> tuple[bytes, int]:
        """The payload header, and the NAL unit type for the FU header."""


class H264Packetizer(Packetizer):
    codec = Codec.H264

    def _aggregation_header(self, nal_units: list[bytes]) -> bytes:
        # The highest nal_ref_idc of all (RFC 6184 §5.7).
        return bytes((max(nal_unit[0] & 0x60 for nal_unit in nal_units) | H264_STAP_A,))

    def _fragmentation_header(self, nal_unit: bytes) -> tuple[bytes, int]:
        return bytes((nal_unit[0] & _F_AND_NRI | H264_FU_A,)), nal_unit[0] & 0x1F


class H265Packetizer(Packetizer):
    codec = Codec.H265

    def _aggregation_header(self, nal_units: list[bytes]) -> bytes:
        # The lowest layer and temporal identifiers of all (RFC 7798 §4.4.2).
        layer = min((nal_unit[0] & 1) << 5 | nal_unit[1] >> 3 for nal_unit in nal_units)
        temporal = min(nal_unit[1] & 7 for nal_unit in nal_units)
        return bytes((H265_AP << 1 | layer >> 5, (layer & 0x1F) << 3 | temporal))

    def _fragmentation_header(self, nal_unit: bytes) -> tuple[bytes, int]:
        return bytes((nal_unit[0] & 0x81 | H265_FU << 1, nal_unit[1])), nal_unit[0] >> 1 & 0x3F


PACKETIZERS: Final[dict[Codec, type[Packetizer]]] = {Codec.H264: H264Packetizer, Codec.H265: H265Packetizer}


def describe_track(track: Track, payload_type: int, control: str) -> MediaDescription:
    """The media description of what the codec's packetizer sends (RFC 6184 §8.2, RFC 7798 §7.2)."""
    by_kind: dict[int, list[bytes]] = {}
    for nal_unit in track.parameter_sets:
        by_kind.setdefault(SYNTAX[track.codec].nal_unit_type(nal_unit), []).append(nal_unit)
    if track.codec is Codec.H264:
        parameters = {
            "packetization-mode": "1",
            "profile-level-id": by_kind[h264.NalUnitType.SPS][0][1:4].hex().upper(),
            "sprop-parameter-sets": encode_sprop(*track.parameter_sets),
        }
    else:
        names = ("sprop-vps", "sprop-sps", "sprop-pps")
        parameters = {
            name: encode_sprop(*by_kind[kind]) for name, kind in zip(names, sorted(by_kind), strict=True)
        }
    return MediaDescription(
        kind="video",
        formats=(payload_type,),
        rtpmap={payload_type: RtpMap(encoding=track.codec.upper(), clock_rate=TIME_BASE_HZ)},
        fmtp={payload_type: parameters},
        control=control,
    )
