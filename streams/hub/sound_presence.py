"""Whether a camera sends the sound that it declares: many describe a microphone that is off, or not there."""

from streams.media import TIME_BASE_HZ

GONE_TICKS = 3 * TIME_BASE_HZ // 2
BACK_TICKS = 10 * TIME_BASE_HZ
"""Longer, because each change of mind begins the containers anew."""
_MAX_PICTURE_TICKS = TIME_BASE_HZ // 2
"""A picture counts for no more: sound does not go on while the camera stands still."""


class SoundPresence:
    """Judged at random access points, where a container can begin anew without losing a picture.

    A GOP without any sound was silent, and one with some was not. Sound that was declared is believed in
    until GONE_TICKS were silent, and then again after BACK_TICKS that were not.
    """

    def __init__(self) -> None:
        self.is_there = True
        self._is_heard = False
        self._begin_dts: int | None = None
        self._silent_ticks = 0
        self._sounding_ticks = 0

    def interrupt(self) -> None:
        """The time until the next random access point says nothing."""
        self._begin_dts = None
        self._is_heard = False

    def hear(self) -> None:
        self._is_heard = True

    def judge(self, dts: int, pictures: int) -> bool:
        """At a random access point; `pictures`: how many the last one's GOP had. Whether the mind changes."""
        if self._begin_dts is not None:
            self._count(min(dts - self._begin_dts, pictures * _MAX_PICTURE_TICKS))
        self._begin_dts, self._is_heard = dts, False
        is_there = self._silent_ticks < GONE_TICKS if self.is_there else self._sounding_ticks >= BACK_TICKS
        has_changed = is_there != self.is_there
        self.is_there = is_there
        return has_changed

    def _count(self, ticks: int) -> None:
        if self._is_heard:
            self._silent_ticks, self._sounding_ticks = 0, self._sounding_ticks + ticks
        else:
            self._silent_ticks, self._sounding_ticks = self._silent_ticks + ticks, 0
