"""Pictures without an analysis process: the bytes say which picture of which camera they are."""

import asyncio
import time
from datetime import UTC, datetime

from analytics.runner import PictureUnavailableError, SampledFrame


class FakePictures:
    """Stands for `AnalysisRunner` where only pictures are wanted."""

    def __init__(self, *, count=1 << 30, size=0, error=None):
        self.count = count
        self.size = size
        self.error = error
        self.asked = []
        self.closed = 0

    async def run(self):
        await asyncio.Event().wait()

    async def jpeg(self, camera_id, stream, width, quality):
        if self.error:
            raise PictureUnavailableError(self.error)
        self.asked.append((camera_id, width, quality))
        return b"\xff\xd8jpeg of " + stream.camera_id.encode()

    async def frames(self, camera_id, stream, *, every_seconds, width, quality):
        if self.error:
            raise PictureUnavailableError(self.error)
        self.asked.append((camera_id, every_seconds, width))
        try:
            for number in range(self.count):
                await asyncio.sleep(0.001)
                yield SampledFrame(
                    sequence=number,
                    pts=number * 180_000,
                    captured_at=datetime.now(UTC),
                    received_ns=time.monotonic_ns(),
                    dropped_since_last=number % 2,
                    achieved_period_seconds=2.0 if number else None,
                    jpeg=b"%05d" % number + bytes(self.size),
                )
        finally:
            self.closed += 1
