"""Pictures for people and jobs: a snapshot now, and a feed of samples."""

import asyncio
from collections.abc import Callable
from datetime import datetime

import msgspec

from analytics.messages import JpegOrder
from analytics.sampling import Keyframe, Schedule, Snapshot


class PictureUnavailableError(Exception):
    """No picture: `code` is no_picture, busy, decode_error, quarantined or stream_ended."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


class SampledFrame(msgspec.Struct, frozen=True, kw_only=True):
    """One sampled picture of a camera.

    `pts`: in `streams.media.TIME_BASE_HZ`. `received_ns`: monotonic. `dropped_since_last`: samples that were
    due and not delivered since the previous one, because of overload here or a slow consumer.
    """

    sequence: int
    pts: int
    captured_at: datetime
    received_ns: int
    dropped_since_last: int
    achieved_period_seconds: float | None
    jpeg: bytes


def open_snapshot(order: JpegOrder, picture: asyncio.Future[bytes]) -> Snapshot:
    """A snapshot whose outcome is `picture`'s: the JPEG, or PictureUnavailableError."""

    def resolve(jpeg: bytes) -> None:
        if not picture.done():
            picture.set_result(jpeg)

    def refuse(code: str) -> None:
        if not picture.done():
            picture.set_exception(PictureUnavailableError(code))

    return Snapshot(order, resolve, refuse)


class FrameFeed:
    """The latest sampled picture for one reader; a newer one replaces it, counted."""

    def __init__(self, schedule: Schedule, captured_at: Callable[[Keyframe], datetime]) -> None:
        self.schedule = schedule
        self._captured_at = captured_at
        self._latest: tuple[Keyframe, bytes] | None = None
        self._replaced = self._told = 0
        self._has_news = asyncio.Event()
        self._is_over = False

    def deliver(self, keyframe: Keyframe, jpeg: bytes) -> None:
        self._replaced += self._latest is not None
        self._latest = keyframe, jpeg
        self._has_news.set()

    def end(self) -> None:
        self._is_over = True
        self._has_news.set()

    async def next(self) -> SampledFrame | None:
        """The latest picture as soon as there is one that was not read; None at the end."""
        await self._has_news.wait()
        if self._latest is None:
            return None
        keyframe, jpeg = self._latest
        self._latest = None
        if not self._is_over:
            self._has_news.clear()
        dropped = self._replaced + self.schedule.dropped
        frame = SampledFrame(
            sequence=keyframe.number,
            pts=keyframe.unit.pts,
            captured_at=self._captured_at(keyframe),
            received_ns=keyframe.unit.received_ns,
            dropped_since_last=dropped - self._told,
            achieved_period_seconds=self.schedule.achieved_period_seconds,
            jpeg=jpeg,
        )
        self._told = dropped
        return frame
