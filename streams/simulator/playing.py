"""What a simulated camera sends while it plays: RTP and sender reports, and the faults of real cameras."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from streams.media import TIME_BASE_HZ, AccessUnit, AudioTrack, AudioUnit, Track
from streams.wire.audio_packetizer import AudioPacketizer, audio_rtp_format
from streams.wire.packetizer import Packetizer, RtpSender
from streams.wire.rtcp import SenderReport, ntp_timestamp, serialize_sender_report
from streams.wire.sdp import MediaDescription, RtpMap

PAYLOAD_TYPE: Final = 96

_REPORT_SECONDS: Final = 5.0
_JUMP_TICKS: Final = 3600 * TIME_BASE_HZ
_FLOOD_BYTES: Final = 60_000
_MARKER_BYTE: Final = 1

Send = Callable[[Sequence[bytes]], Awaitable[None]]


class AccessUnitProducer(Protocol):
    """What a simulated camera sees. The producer keeps the pace: it yields access units in real time."""

    @property
    def track(self) -> Track: ...

    def open(self) -> AsyncGenerator[AccessUnit, None]:
        """One subscription, starting with a random access point; the subscriber closes it (`aclose`)."""


class SoundProducer(Protocol):
    """What a simulated camera hears, at the same pace."""

    @property
    def track(self) -> AudioTrack: ...

    def open(self) -> AsyncGenerator[AudioUnit, None]: ...


class Disturbance(StrEnum):
    """What happens to a playing session after a number of packets. The first four end what it sends.

    `FLOOD`: as much as the connection takes. `JUMP`: the timestamps jump by an hour. `NEW_SOURCE`: another
    synchronization source, with its own sequence numbers and timestamps. `FREEZE`: the last keyframe, again
    and again.
    """

    GARBAGE = "garbage"
    SILENCE = "silence"
    CLOSE = "close"
    HALF_PACKET = "half-packet"
    FLOOD = "flood"
    JUMP = "jump"
    NEW_SOURCE = "new-source"
    FREEZE = "freeze"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How a camera misbehaves. `redirect_to`: answers DESCRIBE with 302 to this URL, before any login.

    `marks_pictures`: sets the marker bit; some cameras do not. `drops_every`, `swaps_every`: every so many
    packets one is lost, or overtaken by the next; 0: none. `refuses_sound`: describes it, and answers 404.
    """

    redirect_to: str | None = None
    rejects_everyone: bool = False
    refuses_sound: bool = False
    disturbance: Disturbance | None = None
    after_packets: int = 0
    marks_pictures: bool = True
    drops_every: int = 0
    swaps_every: int = 0


class PicturePlayer:
    """One subscription to a camera's pictures, packet by packet."""

    def __init__(self, producer: AccessUnitProducer, faults: Faults, *, sends_parameter_sets: bool) -> None:
        self._producer = producer
        self._faults = faults
        self._sends_parameter_sets = sends_parameter_sets
        self._sent = 0
        self._is_disturbed = False
        self._frozen: AccessUnit | None = None
        self._renew()

    async def run(
        self, send: Send, send_control: Send, disturb: Callable[[Disturbance], Awaitable[None]]
    ) -> None:
        """Until cancelled. `disturb` does what concerns the connection, and does not return from that."""
        report_at = time.monotonic()
        async with aclosing(self._producer.open()) as units:
            async for produced in units:
                unit = self._distort(produced)
                packets = self._packetize(unit)
                kept = self._spoil(packets)
                if kept:
                    await send(kept)
                if report_at <= time.monotonic():
                    report_at += _REPORT_SECONDS
                    rtp_timestamp = (unit.pts + self._timestamp_offset) & 0xFFFFFFFF
                    await send_control([sender_report(self._ssrc, rtp_timestamp)])
                await self._disturb(send, disturb)

    def _renew(self) -> None:
        """Begin as another sender."""
        track = self._producer.track
        self._ssrc = secrets.randbits(32)
        self._timestamp_offset = secrets.randbits(32)
        self._packetizer = Packetizer(
            track.codec,
            RtpSender(
                payload_type=PAYLOAD_TYPE,
                ssrc=self._ssrc,
                first_sequence_number=secrets.randbits(16),
                timestamp_offset=self._timestamp_offset,
            ),
        )

    def _distort(self, unit: AccessUnit) -> AccessUnit:
        faults = self._faults
        if self._is_disturbed and faults.disturbance is Disturbance.JUMP:
            return msgspec.structs.replace(unit, pts=unit.pts + _JUMP_TICKS)
        if faults.disturbance is Disturbance.FREEZE:
            if self._is_disturbed and self._frozen is not None:
                return msgspec.structs.replace(self._frozen, pts=unit.pts, dts=unit.dts)
            if unit.is_random_access:
                self._frozen = unit
        return unit

    def _packetize(self, unit: AccessUnit) -> list[bytes]:
        with_sets = unit.is_random_access and self._sends_parameter_sets
        packets = self._packetizer.packetize(unit, self._producer.track.parameter_sets if with_sets else ())
        disturbance = self._faults.disturbance
        if disturbance is not None and not self._is_disturbed:
            packets = packets[: self._faults.after_packets - self._sent]
        self._sent += len(packets)
        return packets

    def _spoil(self, packets: list[bytes]) -> list[bytes]:
        faults = self._faults
        if not faults.marks_pictures:
            packets = [
                packet[:_MARKER_BYTE] + bytes((packet[_MARKER_BYTE] & 0x7F,)) + packet[_MARKER_BYTE + 1 :]
                for packet in packets
            ]
        first = self._sent - len(packets)
        if faults.swaps_every:
            for index in range(1, len(packets)):
                if (first + index) % faults.swaps_every == 0:
                    packets[index - 1], packets[index] = packets[index], packets[index - 1]
        if faults.drops_every:
            packets = [
                packet
                for number, packet in enumerate(packets, start=first + 1)
                if number % faults.drops_every != 0
            ]
        return packets

    async def _disturb(self, send: Send, disturb: Callable[[Disturbance], Awaitable[None]]) -> None:
        disturbance = self._faults.disturbance
        if disturbance is None or self._is_disturbed or self._sent != self._faults.after_packets:
            return
        self._is_disturbed = True
        if disturbance is Disturbance.NEW_SOURCE:
            self._renew()
        elif disturbance is Disturbance.FLOOD:
            while True:
                await send([b"\x80\x60" + bytes(_FLOOD_BYTES)])
                await asyncio.sleep(0)
        elif disturbance not in (Disturbance.JUMP, Disturbance.FREEZE):
            await disturb(disturbance)


def describe_sound(track: AudioTrack, control: str) -> MediaDescription:
    sound = audio_rtp_format(track)
    rtpmap = RtpMap(encoding=sound.encoding, clock_rate=sound.clock_rate, channels=sound.channels)
    return MediaDescription(
        kind="audio",
        formats=(sound.payload_type,),
        rtpmap={sound.payload_type: rtpmap},
        fmtp={sound.payload_type: sound.parameters} if sound.parameters else {},
        control=control,
    )


async def play_sound(producer: SoundProducer, send: Send, send_control: Send) -> None:
    """Until cancelled."""
    sound = audio_rtp_format(producer.track)
    ssrc, offset = secrets.randbits(32), secrets.randbits(32)
    packetizer = AudioPacketizer(
        producer.track,
        RtpSender(
            payload_type=sound.payload_type,
            ssrc=ssrc,
            first_sequence_number=secrets.randbits(16),
            timestamp_offset=offset,
        ),
    )
    report_at = time.monotonic()
    async with aclosing(producer.open()) as units:
        async for unit in units:
            await send(packetizer.packetize(unit))
            if report_at <= time.monotonic():
                report_at += _REPORT_SECONDS
                timestamp = unit.pts * sound.clock_rate // TIME_BASE_HZ + offset & 0xFFFFFFFF
                await send_control([sender_report(ssrc, timestamp)])


def sender_report(ssrc: int, rtp_timestamp: int) -> bytes:
    """This sender's timestamp of now."""
    return serialize_sender_report(
        SenderReport(
            ssrc=ssrc,
            ntp_timestamp=ntp_timestamp(time.time_ns()),
            rtp_timestamp=rtp_timestamp,
            packet_count=0,
            octet_count=0,
        )
    )
