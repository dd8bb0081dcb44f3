"""The hot path of an RTSP camera: from its packets to the publisher, all of it synchronous."""

import msgspec

from streams.errors import ProtocolError
from streams.media import AccessUnit, AudioUnit, Track
from streams.sources.source import Publisher
from streams.wire.audio_depacketizer import AudioDepacketizer
from streams.wire.depacketizer import Depacketizer
from streams.wire.fragment_run import FragmentRun
from streams.wire.rtcp import SenderReport, parse_sender_report
from streams.wire.rtp import RtpPacket
from streams.wire.sound_clock import SoundClock


class MediaReceiver:
    """Takes the packets of a camera's tracks, already told apart, and publishes what they complete.

    `last_unit_ns`: when the last complete picture came, or the receiver began. Every method may raise
    LimitExceededError, and whatever StreamError the publisher raises.
    """

    def __init__(
        self,
        publisher: Publisher,
        depacketizer: Depacketizer,
        now_ns: int,
    ) -> None:
        self.last_unit_ns = now_ns
        self._publisher = publisher
        self._depacketizer = depacketizer
        self._sound: AudioDepacketizer | None = None
        self._clock: SoundClock | None = None

    def add_sound(self, depacketizer: AudioDepacketizer) -> None:
        """Before the first packet."""
        self._sound = depacketizer
        self._clock = SoundClock(depacketizer.clock_rate)

    def take_run(self, run: FragmentRun, received_ns: int) -> None:
        """The usual run is a picture, and goes the short way; `receive_run` would give the same."""
        unit = self._depacketizer.receive_picture(run, received_ns)
        if unit is None:
            events = self._depacketizer.receive_run(run, received_ns)
            if events:
                self._publish(events, received_ns)
            return
        self.last_unit_ns = received_ns
        if self._clock is not None:
            self._clock.take_picture(unit)
        self._publisher.publish(unit)

    def take_video(self, packet: RtpPacket, received_ns: int) -> None:
        events = self._depacketizer.receive(packet, received_ns)
        if events:
            self._publish(events, received_ns)

    def take_sound(self, packet: RtpPacket, received_ns: int) -> None:
        if self._sound is None or self._clock is None:
            return
        for timestamp, data in self._sound.receive(packet):
            pts = self._clock.place(timestamp, received_ns)
            if pts is not None:
                self._publisher.publish_audio(AudioUnit(pts=pts, data=data, received_ns=received_ns))

    def take_video_control(self, data: bytes) -> SenderReport | None:
        """A compound RTCP packet of the video track; returns its sender report."""
        report = _sender_report(data)
        if report is not None and self._clock is not None:
            self._clock.take_video_report(report)
        return report

    def take_sound_control(self, data: bytes) -> SenderReport | None:
        report = _sender_report(data)
        if report is not None and self._clock is not None:
            self._clock.take_sound_report(report)
        return report

    def _publish(self, events: tuple[Track | AccessUnit, ...], received_ns: int) -> None:
        for event in events:
            if isinstance(event, AccessUnit):
                self.last_unit_ns = received_ns
                if self._clock is not None:
                    self._clock.take_picture(event)
                self._publisher.publish(event)
            else:
                track = event
                if self._sound is not None:
                    track = msgspec.structs.replace(event, audio=self._sound.track)
                self._publisher.configure(track)


def _sender_report(data: bytes) -> SenderReport | None:
    try:
        return parse_sender_report(data)
    except ProtocolError:
        return None  # cameras send odd RTCP, and nothing but synchronism depends on it
