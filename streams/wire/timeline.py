"""From RTP timestamps to PTS and DTS.

RTP carries presentation times only, in decoding order. With at most D pictures that precede a picture in
decoding order and follow it in output order, the (D+1)th largest PTS seen so far is a decoding time: it never
exceeds the picture's own PTS, and it grows with every picture. For D = 0 that is DTS = PTS, as nearly all
cameras send. D is what the SPS declares, or what was observed if that is more (cameras that declare nothing
and yet send B pictures): then DTS creeps on by one tick until the order is right again, and may for these
few pictures exceed PTS. The first D pictures get times before the first PTS.
"""

from bisect import bisect_right, insort
from typing import Final

from streams.media import TIME_BASE_HZ
from streams.wire.rtp import TimestampUnwrapper

MAX_REORDER_DEPTH: Final = 16
"""Both codecs hold at most 16 pictures back (H.264 §A.3.1, H.265 §A.4.2)."""
MAX_FORWARD_TICKS: Final = 10 * TIME_BASE_HZ
"""A longer step is a new time line, not a slow camera."""
MAX_BACKWARD_TICKS: Final = 2 * TIME_BASE_HZ
"""A longer step back is a new time line, not reordering."""

MAX_UNDECLARED_DEPTH: Final = 4
"""More pictures than this, and than the SPS declares, are not reordered: the clock was set back."""

_START_STEP_TICKS: Final = TIME_BASE_HZ // 30
_TIMESTAMP_MASK: Final = 0xFFFFFFFF
_MAX_REMEMBERED: Final = 4 * MAX_REORDER_DEPTH
"""On a plain time line; the longer, the more seldom what is too old is removed."""


class RtpTimeLine:
    def __init__(self) -> None:
        self._unwrapper = TimestampUnwrapper()
        self._largest: list[int] = []
        self._depth = 0
        self._last_dts: int | None = None
        self._restarts = False
        # No pictures were reordered so far, and the last one is the newest: DTS = PTS. While this is so the
        # unwrapper is not asked, and is behind.
        self._is_plain = False

    def restart(self) -> None:
        """The next access unit comes from another sender: its timestamps do not continue these."""
        self._restarts = True

    def advance_plainly(self, timestamp: int, declared_depth: int | None) -> int | None:
        """PTS and DTS, which are one, where nothing was reordered so far and the clock only went on.

        None, with nothing done, if that is not so: then `advance` knows.
        """
        last = self._last_dts
        if not self._is_plain or self._restarts or declared_depth or last is None:
            return None
        step = timestamp - last & _TIMESTAMP_MASK
        if not 0 < step <= MAX_FORWARD_TICKS:
            return None
        self._last_dts = pts = last + step
        self._largest.append(pts)
        if len(self._largest) > _MAX_REMEMBERED:
            del self._largest[:-MAX_REORDER_DEPTH]
        return pts

    def advance(
        self, timestamp: int, *, is_random_access: bool, declared_depth: int | None
    ) -> tuple[int, int, bool]:
        """PTS and DTS of the next access unit in decoding order, and whether they start a new time line.

        `timestamp`: the RTP timestamp, 32 bits. DTS grows strictly within a time line.
        """
        pts = self.advance_plainly(timestamp, declared_depth)
        if pts is not None:
            return pts, pts, False
        if self._is_plain:
            self._unwrapper.last = self._last_dts
        pts = self._unwrapper.unwrap(timestamp)
        del self._largest[:-MAX_REORDER_DEPTH]
        discontinuity = bool(self._largest) and self._is_discontinuity(
            pts, is_random_access, max(declared_depth or 0, MAX_UNDECLARED_DEPTH)
        )
        self._restarts = False
        if discontinuity:
            self._largest.clear()
            self._last_dts, self._depth = None, 0
        later = self._later_than(pts)
        insort(self._largest, pts)
        self._depth = max(self._depth, min(declared_depth or 0, MAX_REORDER_DEPTH), later)
        if len(self._largest) > MAX_REORDER_DEPTH:
            del self._largest[0]
        dts = self._decoding_time()
        if self._last_dts is not None:
            dts = max(dts, self._last_dts + 1)
        self._is_plain = self._depth == 0 and dts == self._largest[-1]
        self._last_dts = dts
        return pts, dts, discontinuity

    def _later_than(self, pts: int) -> int:
        return len(self._largest) - bisect_right(self._largest, pts)

    def _is_discontinuity(self, pts: int, is_random_access: bool, max_depth: int) -> bool:
        if self._restarts:
            return True
        newest = self._largest[-1]
        if is_random_access and pts < newest:
            # Nothing that precedes a random access point in decoding order follows it in output order.
            return True
        if self._later_than(pts) > max_depth:
            return True
        return pts - newest > MAX_FORWARD_TICKS or newest - pts > MAX_BACKWARD_TICKS

    def _decoding_time(self) -> int:
        missing = self._depth + 1 - len(self._largest)
        if missing > 0:
            return self._largest[0] - missing * _START_STEP_TICKS
        return self._largest[-1 - self._depth]
