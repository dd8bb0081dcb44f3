"""What a receiver tells an RTP sender about its packets (RFC 3550 §6.4, §A.3, §A.8)."""

from typing import Final

from streams.wire.rtcp import ReceiverReport, SenderReport
from streams.wire.rtp import RtpPacket

_NS_PER_SECOND: Final = 1_000_000_000
_SEQUENCE_MASK: Final = 0xFFFF
_TIMESTAMP_MASK: Final = 0xFFFFFFFF
_JITTER_GAIN: Final = 16


class ReceptionStatistics:
    """Counts of one sender, in any order of arrival. `ssrc`: ours; `clock_rate`: of its timestamps, in Hz."""

    def __init__(self, ssrc: int, clock_rate: int) -> None:
        self._ssrc = ssrc
        self._clock_rate = clock_rate
        self._report: tuple[SenderReport, int] | None = None
        self._reported_ssrc: int | None = None
        self._first = self._highest = self._received = 0
        self._reported_expected = self._reported_received = 0
        self._transit: int | None = None
        self._jitter = 0.0

    def take_packet(self, packet: RtpPacket, received_ns: int) -> None:
        if packet.ssrc != self._reported_ssrc:
            self._start(packet)
        difference = ((packet.sequence_number - self._highest + 0x8000) & _SEQUENCE_MASK) - 0x8000
        self._highest = max(self._highest, self._highest + difference)
        self._received += 1
        transit = received_ns * self._clock_rate // _NS_PER_SECOND - packet.timestamp
        if self._transit is not None:
            step = ((transit - self._transit + 0x80000000) & _TIMESTAMP_MASK) - 0x80000000
            self._jitter += (abs(step) - self._jitter) / _JITTER_GAIN
        self._transit = transit

    def take_report(self, report: SenderReport, received_ns: int) -> None:
        self._report = report, received_ns

    def receiver_report(self, now_ns: int) -> ReceiverReport | None:
        """None before the first packet."""
        if self._reported_ssrc is None:
            return None
        expected = self._highest - self._first + 1
        interval = expected - self._reported_expected
        lost_now = interval - (self._received - self._reported_received)
        self._reported_expected, self._reported_received = expected, self._received
        last_report = delay = 0
        if self._report is not None:
            report, received_ns = self._report
            last_report = report.ntp_timestamp >> 16 & _TIMESTAMP_MASK
            delay = (now_ns - received_ns) * 65536 // _NS_PER_SECOND & _TIMESTAMP_MASK
        return ReceiverReport(
            ssrc=self._ssrc,
            reported_ssrc=self._reported_ssrc,
            fraction_lost=min(max(lost_now, 0) * 256 // interval, 255) if interval > 0 else 0,
            lost=max(expected - self._received, 0),
            highest_sequence_number=self._highest & _TIMESTAMP_MASK,
            jitter=min(int(self._jitter), _TIMESTAMP_MASK),
            last_sender_report=last_report,
            delay_since_last_sender_report=delay,
        )

    def _start(self, packet: RtpPacket) -> None:
        self._reported_ssrc = packet.ssrc
        self._first = self._highest = packet.sequence_number
        self._received = self._reported_expected = self._reported_received = 0
        self._transit, self._jitter = None, 0.0
