"""Pictures without an analysis process: the bytes say which picture of which camera they are."""

import asyncio
import contextlib

from gateway.relay.pictures import SampledFrame


class FakePictures:
    def __init__(self, *, count=1 << 30, size=0):
        self.count = count
        self.size = size
        self.asked = []
        self.closed = 0

    async def jpeg(self, stream, width, quality):
        self.asked.append((stream.camera_id, width, quality))
        return b"\xff\xd8jpeg of " + stream.camera_id.encode()

    @contextlib.asynccontextmanager
    async def frames(self, stream, every_seconds, width):
        self.asked.append((stream.camera_id, every_seconds, width))
        try:
            yield self._frames()
        finally:
            self.closed += 1

    async def _frames(self):
        for seq in range(self.count):
            await asyncio.sleep(0.001)
            yield SampledFrame(
                seq=seq,
                pts=seq * 180_000,
                age_ms=5,
                dropped_since_last=seq % 2,
                achieved_period=2.0,
                jpeg=b"%05d" % seq + bytes(self.size),
            )
