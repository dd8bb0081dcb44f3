"""Sound on the time line of its pictures.

RTP timestamps of two media have nothing in common until both have had a sender report, which ties each to the
sender's wall clock (RFC 3550 §6.4.1). Until then, and whenever the reports contradict what arrives by more
than `MAX_SKEW_TICKS`, sound starts at the moment of its arrival.
"""

from typing import Final

from streams.media import TIME_BASE_HZ, AccessUnit
from streams.wire.rtcp import SenderReport
from streams.wire.rtp import TimestampUnwrapper

MAX_SKEW_TICKS: Final = 2 * TIME_BASE_HZ
"""Cameras buffer pictures and sound apart, but never by so much: a larger difference is a broken clock."""
ADJUSTMENT_TICKS: Final = TIME_BASE_HZ // 25
"""Smaller corrections are not made: they would be heard, and nobody sees 40 ms."""

_NS_PER_SECOND: Final = 1_000_000_000
_TIMESTAMP_MASK: Final = 0xFFFFFFFF


class SoundClock:
    """`clock_rate`: of the sound's RTP timestamps, in Hz."""

    def __init__(self, clock_rate: int) -> None:
        self._clock_rate = clock_rate
        self._picture: AccessUnit | None = None
        self._unwrapper = TimestampUnwrapper()
        self._offset: int | None = None
        self._video_report: SenderReport | None = None
        self._sound_report: SenderReport | None = None
        self._is_synchronized = False

    def take_picture(self, unit: AccessUnit) -> None:
        """The newest access unit; its PTS has the RTP timestamp as its lowest 32 bits."""
        if unit.discontinuity:
            self._video_report = self._sound_report = self._offset = None
            self._is_synchronized = False
        self._picture = unit

    def take_video_report(self, report: SenderReport) -> None:
        self._video_report = report
        self._is_synchronized = False

    def take_sound_report(self, report: SenderReport) -> None:
        self._sound_report = report
        self._is_synchronized = False

    def place(self, timestamp: int, received_ns: int) -> int | None:
        """The PTS, in `TIME_BASE_HZ`, of sound with this RTP timestamp; None before the first picture."""
        picture = self._picture
        if picture is None:
            return None
        ticks = self._unwrapper.unwrap(timestamp) * TIME_BASE_HZ // self._clock_rate
        arrival = picture.pts + (received_ns - picture.received_ns) * TIME_BASE_HZ // _NS_PER_SECOND
        if not self._is_synchronized:
            self._synchronize(picture.pts, ticks, timestamp, arrival)
        if self._offset is None or abs(ticks + self._offset - arrival) > MAX_SKEW_TICKS:
            self._offset = arrival - ticks
        return ticks + self._offset

    def _synchronize(self, picture_pts: int, ticks: int, timestamp: int, arrival: int) -> None:
        """Take the offset from the reports, if both have come and it is believable."""
        video, sound = self._video_report, self._sound_report
        if video is None or sound is None:
            return
        self._is_synchronized = True
        video_pts = picture_pts + _difference(video.rtp_timestamp, picture_pts)
        sound_ticks = ticks + _difference(sound.rtp_timestamp, timestamp) * TIME_BASE_HZ // self._clock_rate
        elapsed = (sound.ntp_timestamp - video.ntp_timestamp) * TIME_BASE_HZ >> 32
        offset = video_pts + elapsed - sound_ticks
        if abs(ticks + offset - arrival) <= MAX_SKEW_TICKS and (
            self._offset is None or abs(offset - self._offset) > ADJUSTMENT_TICKS
        ):
            self._offset = offset


def _difference(timestamp: int, reference: int) -> int:
    """From the reference to the timestamp, of 32 bits each, the shorter way round."""
    return ((timestamp - reference + 0x80000000) & _TIMESTAMP_MASK) - 0x80000000
