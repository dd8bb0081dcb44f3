"""From RTP packets to access units (RFC 6184 for H.264, RFC 7798 for H.265).

An access unit ends with the marker bit or, for cameras that do not set it (FLIR M400), with the next
timestamp. Whatever was damaged is dropped, and after it everything up to the next complete random access
point, since nothing in between decodes. Interleaved modes (RFC 6184 packetization-mode 2, RFC 7798
sprop-max-don-diff) are not supported: no camera uses them.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from contextlib import suppress
from typing import ClassVar, Final

from streams.errors import LimitExceededError, ProtocolError, UnsupportedError
from streams.media import MAX_ACCESS_UNIT_BYTES, MAX_NAL_UNITS, TIME_BASE_HZ, AccessUnit, Codec, Track
from streams.wire.bitstream import split_annex_b
from streams.wire.fragment_run import FU_END, FU_START, H264_FU_A, H265_FU, FragmentRun
from streams.wire.nal_unit import SYNTAX
from streams.wire.parameter_sets import MAX_PARSED_SETS_PER_SECOND, ParameterSets
from streams.wire.per_second import PerSecond
from streams.wire.rtp import DISCARD, RtpPacket, SequenceTracker
from streams.wire.sdp import MediaDescription, decode_sprop
from streams.wire.timeline import RtpTimeLine

H264_STAP_A: Final = 24
H265_AP: Final = 48

MAX_AGGREGATED_PER_SECOND: Final = 32_768
"""NAL units out of aggregation packets, where three bytes make one: 60 pictures a second, 512 in each."""

_LENGTH_BYTES: Final = 2
_START_CODES: Final = b"\x00\x00\x01", b"\x00\x00\x00\x01"
_MAX_LEARNED: Final = 64
"""A camera sends two or three kinds of NAL units in fragments."""

_SPROP_PARAMETERS: Final = {
    Codec.H264: ("sprop-parameter-sets",),
    Codec.H265: ("sprop-vps", "sprop-sps", "sprop-pps"),
}
_OTHER, _SLICE, _ENTRY_SLICE, _PARAMETER_SET, _DISCARDED = range(5)


def _classify(codec: Codec) -> bytes:
    """What a NAL unit is to us, by its first byte, which has the type in both codecs."""
    syntax = SYNTAX[codec]

    def classify(first: int) -> int:
        kind = syntax.nal_unit_type(bytes((first,)))
        if kind in syntax.PARAMETER_SETS:
            return _PARAMETER_SET
        if kind in syntax.DISCARDED:
            return _DISCARDED
        if kind in syntax.SLICES:
            return _ENTRY_SLICE if kind in syntax.RANDOM_ACCESS else _SLICE
        return _OTHER

    return bytes(map(classify, range(256)))


_CLASSES: Final = {codec: _classify(codec) for codec in Codec}
_ENCODINGS: Final = {"H264": Codec.H264, "H265": Codec.H265}


class Depacketizer(ABC):
    """One track's receiver. Not thread-safe; packets of another payload type come without payload and marker.

    Counters: `lost_packets`, `malformed_payloads` (at most one per access unit), `dropped_access_units`.
    """

    codec: ClassVar[Codec]

    def __init__(self, parameter_sets: Iterable[bytes] = ()) -> None:
        """`parameter_sets`: the session description's; the stream's own complete or replace them."""
        self.malformed_payloads = 0
        self.dropped_access_units = 0
        self._syntax = SYNTAX[self.codec]
        self._header_bytes = self._syntax.NAL_UNIT_HEADER_BYTES
        self._classes = _CLASSES[self.codec]
        self._parameter_sets = ParameterSets(self.codec)
        self._aggregated = PerSecond(MAX_AGGREGATED_PER_SECOND)
        self._parsed_sets = PerSecond(MAX_PARSED_SETS_PER_SECOND)
        self._announced: Track | None = None
        self._sequence = SequenceTracker()
        self._time_line = RtpTimeLine()
        self._waiting = True
        self._ssrc: int | None = None
        self._timestamp = 0
        self._received_ns = 0
        self._fragment = bytearray()
        self._slice_headers: dict[bytes, tuple[bytes, bool]] = {}
        self._begin()
        for nal_unit in parameter_sets:
            self._add(nal_unit)
        self._begin()

    @property
    def lost_packets(self) -> int:
        return self._sequence.lost

    def receive(self, packet: RtpPacket, received_ns: int) -> tuple[Track | AccessUnit, ...]:
        """What this packet completes, in order: a Track before the first access unit that needs it.

        Raises LimitExceededError if an access unit grows beyond a limit, or a second brings too many
        parameter sets or aggregated NAL units; broken payloads are only counted.
        """
        payload = packet.payload
        if not payload:
            return self._receive_empty(packet)
        events: tuple[Track | AccessUnit, ...] = ()
        if packet.ssrc != self._ssrc:
            self._change_source(packet.ssrc)
        missing = self._sequence.update(packet.sequence_number)
        if missing:
            if missing == DISCARD:
                return ()
            self._interrupt()
        if packet.timestamp != self._timestamp:
            if self._bytes:
                events = self._complete()
            self._timestamp = packet.timestamp
        self._received_ns = received_ns
        self._bytes += len(payload)
        if self._bytes > MAX_ACCESS_UNIT_BYTES:
            raise LimitExceededError("access unit is too large")
        self._receive_payload(payload)
        if packet.marker:
            events += self._complete()
        return events

    def receive_picture(self, run: FragmentRun, received_ns: int) -> AccessUnit | None:
        """The access unit that this run is all of; None, with nothing done, unless everything is as usual.

        A city's pictures are nearly all one slice in fragments, next to a complete one on a plain time line.
        What the general way asks of every part of an access unit is asked here once.
        """
        slice_header, parameter_sets = self._slice_headers.get(run.payload_header), self._parameter_sets
        if slice_header is None:
            slice_header = self._learn(run.payload_header)
        header, is_random_access = slice_header
        if not (
            header
            and run.marker
            and run.is_end
            and run.sequence_number == self._sequence.expected
            and run.ssrc == self._ssrc
            and not (self._bytes or self._waiting)
            and parameter_sets.track is self._announced
            and run.size_bytes <= MAX_ACCESS_UNIT_BYTES
        ):
            return None
        pts = self._time_line.advance_plainly(run.timestamp, parameter_sets.reorder_depth)
        if pts is None:
            return None
        self._sequence.skip(len(run.parts))
        return AccessUnit(
            pts=pts,
            dts=pts,
            nal_units=(b"".join((header, *run.parts)),),
            is_random_access=is_random_access,
            received_ns=received_ns,
        )

    def _learn(self, payload_header: bytes) -> tuple[bytes, bool]:
        """The header of the slice that begins with this fragment, and whether it is a random access point's.

        Empty if no slice begins with it.
        """
        header = self._nal_unit_header(payload_header) if payload_header[-1] & FU_START else b""
        kind = self._classes[header[0]] if header else _OTHER
        slice_header = (header, kind == _ENTRY_SLICE) if kind in (_SLICE, _ENTRY_SLICE) else (b"", False)
        if len(self._slice_headers) == _MAX_LEARNED:
            self._slice_headers.clear()
        self._slice_headers[payload_header] = slice_header
        return slice_header

    def receive_run(self, run: FragmentRun, received_ns: int) -> tuple[Track | AccessUnit, ...]:
        """The same as `receive` for each of the run's packets, in one step where nothing is unusual."""
        starts, fragment = run.payload_header[-1] & FU_START != 0, self._fragment
        if (
            run.sequence_number != self._sequence.expected
            or run.ssrc != self._ssrc
            or (run.timestamp != self._timestamp and self._bytes)
            or starts == bool(fragment)
        ):
            return tuple(event for packet in run.packets() for event in self.receive(packet, received_ns))
        self._sequence.skip(len(run.parts))
        self._timestamp = run.timestamp
        self._received_ns = received_ns
        self._bytes += run.size_bytes
        if self._bytes > MAX_ACCESS_UNIT_BYTES:
            raise LimitExceededError("access unit is too large")
        header = self._nal_unit_header(run.payload_header) if starts else b""
        if starts and run.is_end:
            self._add(b"".join((header, *run.parts)))
            return self._complete() if run.marker else ()
        fragment += header
        for part in run.parts:
            fragment += part
        if run.is_end:
            nal_unit = bytes(fragment)
            fragment.clear()
            self._add(nal_unit)
        return self._complete() if run.marker else ()

    def _receive_empty(self, packet: RtpPacket) -> tuple[Track | AccessUnit, ...]:
        """Only its place in the order counts, if it comes in order, and its marker."""
        if packet.ssrc != self._ssrc or packet.sequence_number != self._sequence.expected:
            return ()
        self._sequence.skip(1)
        return self._complete() if packet.marker and self._bytes else ()

    def _change_source(self, ssrc: int) -> None:
        """Another sender, as when the camera restarts its encoder (RFC 3550 §8.2 calls it a new source)."""
        if self._ssrc is not None:
            self._sequence.restart()
            self._time_line.restart()
            self._interrupt()
        self._ssrc = ssrc

    def _interrupt(self) -> None:
        """Packets are missing here: what is begun is damaged, and nothing decodes until the next entry."""
        self._waiting = True
        self._damaged = self._bytes > 0
        self._fragment.clear()

    @abstractmethod
    def _nal_unit_header(self, payload_header: bytes) -> bytes:
        """Of the NAL unit of which a fragment has this payload header."""

    @abstractmethod
    def _receive_payload(self, payload: bytes) -> None:
        """Take the NAL units out of one payload of at least one byte."""

    def _begin(self) -> None:
        self._nal_units: list[bytes] = []
        self._places = MAX_NAL_UNITS
        self._bytes = 0
        self._has_slices = False
        self._is_random_access = False
        self._starts_picture = False
        self._damaged = False

    def _complete(self) -> tuple[Track | AccessUnit, ...]:
        if self._fragment:
            self._damage()
        try:
            return self._completed() if self._has_slices or self._damaged else ()
        finally:
            self._begin()

    def _completed(self) -> tuple[Track | AccessUnit, ...]:
        track = self._parameter_sets.track
        is_entry = self._is_random_access and self._starts_picture
        if self._damaged or track is None or (self._waiting and not is_entry):
            self._waiting = True
            self.dropped_access_units += 1
            return ()
        self._waiting = False
        pts, dts, discontinuity = self._time_line.advance(
            self._timestamp,
            is_random_access=self._is_random_access,
            declared_depth=self._parameter_sets.reorder_depth,
        )
        unit = AccessUnit(
            pts=pts,
            dts=dts,
            nal_units=tuple(self._nal_units),
            is_random_access=self._is_random_access,
            received_ns=self._received_ns,
            discontinuity=discontinuity,
        )
        if track is self._announced:
            return (unit,)
        self._announced = track
        return (track, unit)

    def _add(self, nal_unit: bytes) -> None:
        if len(nal_unit) < self._header_bytes:
            self._damage()
            return
        if len(self._nal_units) == self._places:
            raise LimitExceededError("too many NAL units in one access unit")
        kind = self._classes[nal_unit[0]]
        if kind >= _PARAMETER_SET:
            self._places -= 1
            if kind == _PARAMETER_SET:
                self._add_parameter_set(nal_unit)
            elif nal_unit.startswith(_START_CODES):
                self._add_byte_stream(nal_unit)
            return
        self._nal_units.append(nal_unit)
        if kind != _OTHER and not self._has_slices:
            self._has_slices = True
            self._is_random_access = kind == _ENTRY_SLICE
            self._starts_picture = self._syntax.starts_picture(nal_unit)

    def _add_parameter_set(self, nal_unit: bytes) -> None:
        if nal_unit in self._parameter_sets:
            return
        if not self._parsed_sets.take(1, self._received_ns):
            raise LimitExceededError("too many new or unreadable parameter sets in a second")
        # The pictures may still decode with the sets that we have.
        with suppress(ProtocolError):
            self._parameter_sets.add(nal_unit)

    def _add_aggregated(self, payload: bytes, position: int) -> None:
        """NAL units behind 16-bit lengths: STAP-A (RFC 6184 §5.7.1) and AP (RFC 7798 §4.4.2)."""
        first = position
        while position < len(payload):
            start = position + _LENGTH_BYTES
            position = start + int.from_bytes(payload[position:start], "big")
            if position > len(payload) or position == start:
                # Cameras fill up with zeros behind the last one.
                if start - _LENGTH_BYTES == first or any(payload[start - _LENGTH_BYTES :]):
                    self._damage()
                return
            self._add_aggregated_unit(payload[start:position])

    def _add_byte_stream(self, data: bytes) -> None:
        """NAL units behind start codes, which encoders exist that leave in their packets.

        In H.264 only: their first byte is that of no NAL unit there, and of an ordinary one in H.265.
        """
        for nal_unit in split_annex_b(data):
            self._add_aggregated_unit(nal_unit)

    def _add_aggregated_unit(self, nal_unit: bytes) -> None:
        if not self._aggregated.take(1, self._received_ns):
            raise LimitExceededError("too many aggregated NAL units in a second")
        self._add(nal_unit)

    def _add_fragment(self, fu_header: int, nal_unit_header: bytes, data: bytes) -> None:
        """A part of one NAL unit: FU-A (RFC 6184 §5.8) and FU (RFC 7798 §4.4.3)."""
        fragment = self._fragment
        if fu_header & FU_START:
            if fragment:
                self._damage()
            fragment += nal_unit_header
        elif not fragment:
            self._damage()
            return
        fragment += data
        if fu_header & FU_END:
            nal_unit = bytes(fragment)
            fragment.clear()
            self._add(nal_unit)

    def _damage(self) -> None:
        self._fragment.clear()
        if not self._damaged:
            self._damaged = True
            self.malformed_payloads += 1


class H264Depacketizer(Depacketizer):
    codec = Codec.H264

    def _nal_unit_header(self, payload_header: bytes) -> bytes:
        return bytes((payload_header[0] & 0xE0 | payload_header[1] & 0x1F,))

    def _receive_payload(self, payload: bytes) -> None:
        kind = payload[0] & 0x1F
        if kind == H264_FU_A and len(payload) > 2:  # noqa: PLR2004
            # The middle fragments, nearly all packets of a large picture, take the short way.
            fu_header, fragment = payload[1], self._fragment
            if fragment and fu_header < FU_END:
                fragment += payload[2:]
            else:
                self._add_fragment(fu_header, self._nal_unit_header(payload), payload[2:])
            return
        if self._fragment:
            self._damage()
        if 0 < kind < H264_STAP_A or payload.startswith(_START_CODES):
            self._add(payload)
        elif kind == H264_STAP_A:
            self._add_aggregated(payload, 1)
        else:
            self._damage()


class H265Depacketizer(Depacketizer):
    codec = Codec.H265

    def _nal_unit_header(self, payload_header: bytes) -> bytes:
        return bytes((payload_header[0] & 0x81 | (payload_header[2] & 0x3F) << 1, payload_header[1]))

    def _receive_payload(self, payload: bytes) -> None:
        kind = payload[0] >> 1 & 0x3F
        if kind == H265_FU and len(payload) > 3:  # noqa: PLR2004
            fu_header, fragment = payload[2], self._fragment
            if fragment and fu_header < FU_END:
                fragment += payload[3:]
            else:
                self._add_fragment(fu_header, self._nal_unit_header(payload), payload[3:])
            return
        if self._fragment:
            self._damage()
        if kind < H265_AP:
            self._add(payload)
        elif kind == H265_AP:
            self._add_aggregated(payload, 2)
        else:
            self._damage()


def open_depacketizer(media: MediaDescription) -> tuple[int, Depacketizer]:
    """The payload type to receive and its depacketizer, primed with the description's parameter sets.

    Raises UnsupportedError if the media description offers no H.264 or H.265 that we can take, and
    LimitExceededError if it has too many parameter sets.
    """
    for payload_type in media.formats:
        rtpmap = media.rtpmap.get(payload_type)
        codec = _ENCODINGS.get(rtpmap.encoding) if rtpmap is not None else None
        if rtpmap is None or codec is None:
            continue
        parameters = media.fmtp.get(payload_type, {})
        is_interleaved = parameters.get("packetization-mode") == "2" or (
            parameters.get("sprop-max-don-diff", "0") != "0"
        )
        if rtpmap.clock_rate != TIME_BASE_HZ or is_interleaved:
            raise UnsupportedError("the camera sends video in an interleaved mode or with a foreign clock")
        sets = [
            nal_unit
            for name in _SPROP_PARAMETERS[codec]
            for nal_unit in decode_sprop(parameters.get(name, ""))
        ]
        return payload_type, H264Depacketizer(sets) if codec is Codec.H264 else H265Depacketizer(sets)
    raise UnsupportedError("the camera offers neither H.264 nor H.265")
