"""A `Source` that plays an encoded clip for ever, without a camera."""

import asyncio
import time

import msgspec
from support.units import FRAME_TICKS, encode_clip

from streams.errors import StreamError
from streams.media import Codec
from streams.sources.source import Publisher


class ClipSource:
    """Publishes one access unit every `pause_seconds`, with time stamps that go on from loop to loop."""

    def __init__(self, codec: Codec = Codec.H264, *, pause_seconds: float = 0.01, repeat: int = 1) -> None:
        self._codec = codec
        self._pause_seconds = pause_seconds
        self._repeat = repeat
        self.runs = 0

    async def run(self, publisher: Publisher) -> None:
        self.runs += 1
        track, units = encode_clip(self._codec)
        publisher.configure(track)
        count = 0
        while True:
            for unit in units:
                shift = count * FRAME_TICKS - unit.dts
                publisher.publish(
                    msgspec.structs.replace(
                        unit,
                        pts=unit.pts + shift,
                        dts=unit.dts + shift,
                        nal_units=unit.nal_units * self._repeat,
                        received_ns=time.monotonic_ns(),
                    )
                )
                count += 1
                await asyncio.sleep(self._pause_seconds)


class SilentSource:
    """A camera that is connected and sends nothing, or fails with `error`."""

    def __init__(self, error: StreamError | None = None) -> None:
        self._error = error

    async def run(self, publisher: Publisher) -> None:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()
