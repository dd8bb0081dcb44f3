"""Datagrams back into the order in which they were sent, as far as waiting for them is bounded."""

from typing import Final

from streams.wire.rtp import MAX_MISORDER, RtpPacket

MAX_HELD_PACKETS: Final = 64
MAX_WAIT_NS: Final = 100_000_000

_SEQUENCE_MASK: Final = 0xFFFF
_HALF: Final = 0x8000


class ReorderBuffer:
    """Holds packets back while an earlier one may still come: at most 64, and none longer than 100 ms.

    What is late, doubled or missing is for the depacketizer to notice: it sees every packet but doubles that
    wait here. A packet of another source starts afresh, and so do two consecutive ones far behind: the camera
    has begun to count anew.
    """

    def __init__(self) -> None:
        self._held: dict[int, tuple[RtpPacket, int]] = {}
        self._expected: int | None = None
        self._ssrc: int | None = None
        self._after_jump: int | None = None

    @property
    def deadline_ns(self) -> int | None:
        """When `expire` has something to give back; None while nothing waits."""
        return min(since for _, since in self._held.values()) + MAX_WAIT_NS if self._held else None

    def receive(self, packet: RtpPacket, now_ns: int) -> list[RtpPacket]:
        """What may be taken now, in order."""
        sequence_number = packet.sequence_number
        if not self._held and sequence_number == self._expected and packet.ssrc == self._ssrc:
            self._expected = (sequence_number + 1) & _SEQUENCE_MASK
            return [packet]
        if packet.ssrc != self._ssrc or self._expected is None:
            return self._start_afresh(packet)
        ahead = (sequence_number - self._expected) & _SEQUENCE_MASK
        if ahead >= _HALF:
            # Late: the depacketizer counts it out, or believes in a restarted sender, as is done here.
            if ahead > _SEQUENCE_MASK - MAX_MISORDER:
                return [packet]
            if sequence_number == self._after_jump:
                return self._start_afresh(packet)
            self._after_jump = (sequence_number + 1) & _SEQUENCE_MASK
            return [packet]
        self._held.setdefault(sequence_number, (packet, now_ns))
        released = self._release_ready()
        while len(self._held) > MAX_HELD_PACKETS:
            released += self._give_up_waiting()
        return released

    def expire(self, now_ns: int) -> list[RtpPacket]:
        """What has waited long enough, and what follows it."""
        released: list[RtpPacket] = []
        while (deadline_ns := self.deadline_ns) is not None and deadline_ns <= now_ns:
            released += self._give_up_waiting()
        return released

    def _start_afresh(self, packet: RtpPacket) -> list[RtpPacket]:
        released = self._release_all()
        self._ssrc, self._expected = packet.ssrc, (packet.sequence_number + 1) & _SEQUENCE_MASK
        self._after_jump = None
        return [*released, packet]

    def _release_ready(self) -> list[RtpPacket]:
        released: list[RtpPacket] = []
        while self._expected in self._held:
            released.append(self._held.pop(self._expected)[0])
            self._expected = (self._expected + 1) & _SEQUENCE_MASK
        return released

    def _give_up_waiting(self) -> list[RtpPacket]:
        """The expected packet is lost: go on with the first that is here."""
        expected = self._expected or 0
        self._expected = min(self._held, key=lambda number: (number - expected) & _SEQUENCE_MASK)
        return self._release_ready()

    def _release_all(self) -> list[RtpPacket]:
        released: list[RtpPacket] = []
        while self._held:
            released += self._give_up_waiting()
        return released
