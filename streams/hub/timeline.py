"""The time line of a stream: what viewers see must never go back, whatever the camera's clock does."""

from streams.media import TIME_BASE_HZ, AccessUnit, AudioUnit

MAX_STEP_TICKS = 10 * TIME_BASE_HZ
"""A larger step forward, as any step back, is a camera's clock being set, and no pause."""
MIN_JUMP_TICKS = 3 * TIME_BASE_HZ // 2
"""A larger step forward is a camera's clock being set if it brings pictures earlier than any before."""
MAX_REORDER_TICKS = 10 * TIME_BASE_HZ
"""How far a PTS may be from its DTS; the longest GOP anyone reorders over is shorter. Sound as well."""


class TimeLine:
    """Makes DTS strictly monotonic and not negative, across reconnections and jumps of the camera's clock.

    At a discontinuity the new time stamps are shifted so that the time line goes on by as much as the clock
    on the wall did: players then neither rush nor wait. `epoch` counts the discontinuities;
    `last_jump_ns` is when the newest of those came that no interruption explains.
    """

    def __init__(self) -> None:
        self.epoch = 0
        self.last_jump_ns: int | None = None
        self._shift = 0
        self._last_dts = 0
        self._last_sound_pts = -1
        self._last_received_ns: int | None = None
        self._earliest: int | None = None
        self._continues = False

    def interrupt(self) -> None:
        """The next access unit comes from a new connection: its time stamps need not continue."""
        self._continues = False

    def place(self, unit: AccessUnit) -> AccessUnit:
        """The access unit at its place on this time line; unchanged if it is there already."""
        dts = unit.dts + self._shift
        is_near = self._continues and not unit.discontinuity and 0 < dts - self._last_dts <= MIN_JUMP_TICKS
        if not is_near and self._is_broken(unit, dts):
            self._restart(unit)
            dts = unit.dts + self._shift
        if unit.is_random_access:
            lead = _lead(dts, unit.received_ns)
            self._earliest = lead if self._earliest is None else max(self._earliest, lead)
        self._last_received_ns = unit.received_ns
        self._last_dts = dts
        pts = unit.pts + self._shift
        if pts != dts and abs(pts - dts) > MAX_REORDER_TICKS:
            pts = dts
        if pts == unit.pts and dts == unit.dts:
            return unit
        return AccessUnit(
            pts=pts,
            dts=dts,
            nal_units=unit.nal_units,
            is_random_access=unit.is_random_access,
            received_ns=unit.received_ns,
            discontinuity=unit.discontinuity,
        )

    def _is_broken(self, unit: AccessUnit, dts: int) -> bool:
        """A camera that skips what a full connection held back is late, and its clock was not set."""
        step = dts - self._last_dts
        if not self._continues or unit.discontinuity or not 0 < step <= MAX_STEP_TICKS:
            return True
        is_early = (
            self._earliest is not None and _lead(dts, unit.received_ns) > self._earliest + MIN_JUMP_TICKS
        )
        return step > MIN_JUMP_TICKS and is_early

    def _restart(self, unit: AccessUnit) -> None:
        """Find the shift of a time line that begins with this access unit."""
        if self._last_received_ns is None:
            self._shift = max(0, -unit.dts)
        else:
            self.epoch += 1
            if self._continues:
                self.last_jump_ns = unit.received_ns
            elapsed = (unit.received_ns - self._last_received_ns) * TIME_BASE_HZ // 1_000_000_000
            self._shift = self._last_dts + max(1, elapsed) - unit.dts
        self._continues = True

    def place_audio(self, unit: AudioUnit) -> AudioUnit | None:
        """The sound at its place beside the pictures; None if it has none: too far from them, or back."""
        pts = unit.pts + self._shift
        if pts <= self._last_sound_pts or abs(pts - self._last_dts) > MAX_REORDER_TICKS:
            return None
        self._last_sound_pts = pts
        return unit if pts == unit.pts else AudioUnit(pts=pts, data=unit.data, received_ns=unit.received_ns)


def _lead(dts: int, received_ns: int) -> int:
    """Of the time line before the clock on the wall, in ticks; of meaning only beside another one."""
    return dts - received_ns * TIME_BASE_HZ // 1_000_000_000
