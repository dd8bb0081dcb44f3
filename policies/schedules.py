"""Weekly windows on the clocks of a time zone, and when they open and close.

A wall-clock time that comes twice (when clocks go back) is inside both times, one that is skipped never
comes: windows are read off the clock on the wall, whatever it did before.
"""

from bisect import bisect_right
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from policies.access import Schedule, WeeklyWindow

MAX_COMPILED = 4096
"""Distinct schedules that are kept compiled; most grants of a city share a few."""

_MINUTE = timedelta(minutes=1)
_DAY_MINUTES = 1440
_WEEK_MINUTES = 7 * _DAY_MINUTES
_HORIZON_DAYS = 9
"""A clock shows every time of the week within 7 days, if it is changed meanwhile within a little more."""


class UnknownZoneError(ValueError):
    """The time zone database has no such zone."""


@lru_cache(maxsize=MAX_COMPILED)
def compile_schedule(schedule: Schedule) -> "WeeklyClock":
    """Raises UnknownZoneError."""
    try:
        zone = ZoneInfo(schedule.zone)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise UnknownZoneError(f"unknown time zone: {schedule.zone!r}") from error
    return WeeklyClock(schedule, zone, _edges_of(schedule.windows))


def _edges_of(windows: tuple[WeeklyWindow, ...]) -> list[int]:
    """The minutes of the week, from Monday 00:00, at which windows open and close, in turn.

    A week that is never closed has the one edge 0.
    """
    is_open = bytearray(_WEEK_MINUTES)
    for window in windows:
        start, end = _minutes(window.start), _minutes(window.end)
        length = end - start if end > start else end - start + _DAY_MINUTES
        for day in window.days:
            first = (day - 1) * _DAY_MINUTES + start
            for minute in range(first, first + length):
                is_open[minute % _WEEK_MINUTES] = True
    edges = [] if not is_open[0] else [0]
    edges += [minute for minute in range(1, _WEEK_MINUTES) if is_open[minute] != is_open[minute - 1]]
    return edges


def _minutes(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


class WeeklyClock:
    """Whether it is inside the windows. The answer is remembered with the interval for which it holds.

    Belongs to one thread. All times are aware UTC.
    """

    __slots__ = ("_edges", "_is_open", "_since", "_until", "_zone", "schedule")

    def __init__(self, schedule: Schedule, zone: ZoneInfo, edges: list[int]) -> None:
        self.schedule = schedule
        self._zone = zone
        self._edges = edges
        self._since = self._until = datetime.min.replace(tzinfo=UTC)
        self._is_open = False

    def is_open(self, at: datetime) -> bool:
        if not self._since <= at < self._until:
            self._look(at)
        return self._is_open

    def next_change(self, at: datetime) -> datetime | None:
        """The first moment after `at` with another answer; None if there is none."""
        self.is_open(at)
        return None if self._until == _NEVER else self._until

    def opening(self, at: datetime) -> datetime | None:
        """The first moment from `at` on at which it is inside; None if there is none."""
        return at if self.is_open(at) else self.next_change(at)

    def _look(self, at: datetime) -> None:
        is_open = self._is_open_on_wall(self._wall(at))
        self._until = self._end_of(at, is_open)
        self._since, self._is_open = at, is_open

    def _is_open_on_wall(self, wall: timedelta) -> bool:
        return bisect_right(self._edges, wall // _MINUTE) % 2 == 1

    def _end_of(self, at: datetime, is_open: bool) -> datetime:
        """Walk from one stretch without a change of the clocks to the next, up to an edge or the horizon."""
        horizon = at + timedelta(days=_HORIZON_DAYS)
        while at < horizon:
            changed = self._clock_change_after(at, horizon)
            edge = at + self._to_next_edge(self._wall(at))
            if edge < changed:
                return edge
            if self._is_open_on_wall(self._wall(changed)) != is_open:
                return changed
            at = changed
        return _NEVER

    def _to_next_edge(self, wall: timedelta) -> timedelta:
        """From a time of the week on the wall to the next edge, by a clock that nobody changes."""
        following = bisect_right(self._edges, wall // _MINUTE)
        if following < len(self._edges):
            return self._edges[following] * _MINUTE - wall
        next_week = _WEEK_MINUTES * _MINUTE - wall
        opens_or_closes_on_monday = (self._edges[0] == 0) != (len(self._edges) % 2 == 1)
        if opens_or_closes_on_monday:
            return next_week
        first = self._edges[0] or (self._edges[1] if len(self._edges) > 1 else _WEEK_MINUTES * 2)
        return next_week + first * _MINUTE

    def _clock_change_after(self, at: datetime, horizon: datetime) -> datetime:
        """The next moment, to the second, at which the zone's offset from UTC changes; else the horizon."""
        offset = self._offset(at)
        while at < horizon:
            later = min(at + timedelta(days=1), horizon)
            if self._offset(later) != offset:
                whole = at.replace(microsecond=0)
                return whole + timedelta(seconds=self._first_other_second(whole, later, offset))
            at = later
        return horizon

    def _first_other_second(self, start: datetime, end: datetime, offset: timedelta) -> int:
        same, other = 0, int((end - start).total_seconds()) + 1
        while other - same > 1:
            middle = (same + other) // 2
            if self._offset(start + timedelta(seconds=middle)) == offset:
                same = middle
            else:
                other = middle
        return other

    def _wall(self, at: datetime) -> timedelta:
        """Since Monday 00:00 of its week, on the wall."""
        local = at.astimezone(self._zone)
        return timedelta(
            days=local.weekday(),
            hours=local.hour,
            minutes=local.minute,
            seconds=local.second,
            microseconds=local.microsecond,
        )

    def _offset(self, at: datetime) -> timedelta:
        return at.astimezone(self._zone).utcoffset() or timedelta()


_NEVER = datetime.max.replace(tzinfo=UTC)
