"""A simulated camera whose faults begin and end while it plays."""

import asyncio

import msgspec
from support.units import FRAME_TICKS, encode_clip

from streams.media import TIME_BASE_HZ, Codec

_JUMP_TICKS = 3600 * TIME_BASE_HZ
_PICTURES_PER_SECOND = 25
_GOP = 25
_PADDING_BYTES = 100_000


class DisturbedProducer:
    """Pictures that do not repeat for `seconds`, 25 a second, as long as nothing is wrong.

    Whoever connects again finds the scene gone on, not begun again.

    `stalled`: sends nothing. `padding_bytes`: what each access unit carries besides. `frozen`: its keyframes
    are one and the same. `jump`: the next timestamps are an hour off.
    """

    def __init__(self, seconds=20, padding_bytes=0):
        self.track, self.units = encode_clip(Codec.H264, seconds * _PICTURES_PER_SECOND)
        self.stalled = False
        self.padding_bytes = padding_bytes
        self.frozen = False
        self._offset = 0
        self._opened_at = None

    def jump(self):
        self._offset += _JUMP_TICKS

    async def open(self):
        loop = asyncio.get_running_loop()
        if self._opened_at is None:
            self._opened_at = loop.time()
        # Starts with the next keyframe, as cameras do.
        number = int((loop.time() - self._opened_at) * _PICTURES_PER_SECOND)
        number += -number % _GOP
        while True:
            await asyncio.sleep(self._opened_at + number / _PICTURES_PER_SECOND - loop.time())
            unit = self.units[number % len(self.units)]
            if not self.stalled:
                ticks = TIME_BASE_HZ + number * FRAME_TICKS + self._offset
                shown = self.units[0] if self.frozen and unit.is_random_access else unit
                yield msgspec.structs.replace(
                    shown, pts=ticks, dts=ticks, nal_units=shown.nal_units + self._padding()
                )
            number += 1

    def _padding(self):
        """SEI messages of user data (H.264 §7.3.2.3.1), which reach the viewers."""
        whole, rest = divmod(self.padding_bytes, _PADDING_BYTES)
        sizes = [_PADDING_BYTES] * whole + [rest] * bool(rest)
        return tuple(
            b"\x06\x05" + b"\xff" * (size // 255) + bytes((size % 255,)) + b"\xaa" * size + b"\x80"
            for size in sizes
        )
