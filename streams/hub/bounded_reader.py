"""A viewer's reader that is bounded in bytes and in age: policy only, over any transport."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from streams.hub.fan_out import ReaderFailedError, Tally
from streams.mux import Marker, MuxedUnit

_NS_PER_SECOND = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ReaderSettings:
    """When a viewer is behind, and when it is given up.

    `max_backlog_bytes` and `max_age_seconds` bound what was written and has not left, the kernel's part
    included; the bytes do not count what a viewer got as its start. `stuck_seconds`: how long a viewer may
    stay slow; a whole GOP without falling behind forgives. `check_interval_bytes`: how much is written
    between two looks at the backlog, besides the one at every random access point and the one every second.
    Looking costs more than writing; the bounds may be exceeded by this and one access unit.

    A viewer that reads nothing any more is ended after `max_age_seconds` + `stuck_seconds` and two seconds at
    most: one until the next look takes its place in the stream, one until the last look.
    """

    max_backlog_bytes: int = 2 * 1024 * 1024
    max_age_seconds: float = 3.0
    stuck_seconds: float = 4.0
    check_interval_bytes: int = 512 * 1024


class ReaderTransport(Protocol):
    """Where a viewer's bytes go. No method blocks.

    `plain_write`: as `write`, but may raise anything where `write` raises ReaderFailedError.
    """

    @property
    def plain_write(self) -> Callable[[bytes], None]: ...

    def backlog_bytes(self) -> int:
        """Bytes written that have not reached the peer: user-space buffers and the kernel's queue."""

    def write(self, data: bytes) -> None: ...

    def write_marked(self, head: bytes, tail: bytes) -> None:
        """Both, one after the other: in one system call, if it can."""


class BoundedReader:
    """Writes access units to one viewer's transport, each keyframe with the viewer's mark.

    A viewer that is behind gets nothing more until it has caught up, and then goes on at a random access
    point; the access units left out are counted. One that stays slow leaves with reason "slow".

    The age of the backlog is measured by one checkpoint instead of a queue: a place in the byte stream and
    when it was written. While that place has not left, the backlog is at least as old.

    The start, which is the GOP cache, may be larger than any backlog that is allowed later, and comes all at
    once: its bytes are the cache's to bound, and only its age is looked at.
    """

    def __init__(
        self,
        transport: ReaderTransport,
        marker: Marker,
        settings: ReaderSettings,
        clock_ns: Callable[[], int],
        on_end: Callable[[str], None],
    ) -> None:
        """`on_end` gets the reason when the stream ends this reader; the transport stays its owner's."""
        self.dropped_access_units = 0
        self._transport = transport
        self._write = transport.write
        self._marker = marker
        self._settings = settings
        self._clock_ns = clock_ns
        self._on_end = on_end
        self._bytes_sent = 0
        self._output: Tally | None = None
        self._tally: Tally | None = None
        self._tallied_bytes = 0
        self._check_at_bytes = 0
        self._skipping = False
        self._slow_since_ns: int | None = None
        self._checkpoint_bytes = 0
        self._checkpoint_ns = clock_ns()
        self._checkpoint_has_left = True
        self._started_ns: int | None = None
        self._start_bytes = 0

    @property
    def bytes_sent(self) -> int:
        tally = self._tally
        return self._bytes_sent if tally is None else self._bytes_sent + tally.bytes - self._tallied_bytes

    def plain_write(self, tally: Tally | None) -> Callable[[bytes], None] | None:
        """The transport's, while the viewer is not behind."""
        self._output = tally
        self._count_in(None if self._skipping else tally)
        self._ask_for_look()
        return None if self._tally is None else self._transport.plain_write

    def start(self, init: bytes, mime: str) -> None:  # noqa: ARG002 - the HTTP answer has named it
        self._started_ns = self._clock_ns()
        self._send(init)

    def restart(self, init: bytes, mime: str) -> None:
        self.start(init, mime)

    def write(self, unit: MuxedUnit) -> None:
        """Raises ReaderFailedError("slow") when the viewer has been slow for too long."""
        self._settle()
        tail = unit.tail
        bytes_sent = self._bytes_sent + len(tail)
        if bytes_sent > self._check_at_bytes or unit.mark:
            self._write_checked(unit)
        else:
            self._bytes_sent = bytes_sent
            self._write(tail)

    def check(self) -> None:
        """Look at the backlog though nothing is written. Raises ReaderFailedError as `write` does."""
        self._settle()
        now_ns = self._clock_ns()
        is_behind, has_caught_up = self._look(now_ns)
        if self._skipping or is_behind:
            self._fall_behind(now_ns, has_caught_up=has_caught_up)
        else:
            self._is_up_to_date(now_ns)

    def end(self, reason: str) -> None:
        self._on_end(reason)

    def _write_checked(self, unit: MuxedUnit) -> None:
        now_ns = self._clock_ns()
        is_behind, has_caught_up = self._look(now_ns)
        if self._started_ns is not None:
            if unit.received_ns < self._started_ns:
                self._start_bytes = self._bytes_sent + unit.size_bytes
            else:
                self._started_ns = None
        if unit.is_random_access:
            if self._skipping and has_caught_up:
                self._change(skipping=False)
            elif not self._skipping and not is_behind:
                self._slow_since_ns = None
        if self._skipping or is_behind:
            self.dropped_access_units += unit.access_units
            self._fall_behind(now_ns, has_caught_up=has_caught_up)
            return
        if unit.slices_hash is not None:
            head = unit.head + self._marker.mark(unit.pts, unit.slices_hash)
            self._bytes_sent += len(head) + len(unit.tail)
            self._transport.write_marked(head, unit.tail)
        else:
            self._send(unit.tail)
        self._is_up_to_date(now_ns)

    def _is_up_to_date(self, now_ns: int) -> None:
        self._check_at_bytes = self._bytes_sent + self._settings.check_interval_bytes
        self._ask_for_look()
        if self._checkpoint_has_left:
            self._checkpoint_bytes, self._checkpoint_ns = self._bytes_sent, now_ns

    def _look(self, now_ns: int) -> tuple[bool, bool]:
        """Whether the viewer is behind, and whether it has caught up; between the two it may be neither."""
        backlog = self._transport.backlog_bytes()
        has_left = max(0, self._bytes_sent - backlog)
        self._checkpoint_has_left = has_left >= self._checkpoint_bytes
        age_ns = 0 if self._checkpoint_has_left else now_ns - self._checkpoint_ns
        counted = backlog - max(0, self._start_bytes - has_left)
        most = self._settings.max_backlog_bytes
        is_behind = counted > most or age_ns > self._settings.max_age_seconds * _NS_PER_SECOND
        return is_behind, not is_behind and counted <= most // 2

    def _fall_behind(self, now_ns: int, *, has_caught_up: bool) -> None:
        """Leave out what comes until the viewer has caught up.

        Who has caught up only waits for the next random access point, however long that takes.
        """
        if not self._skipping:
            self._change(skipping=True)
        self._check_at_bytes = 0
        if self._slow_since_ns is None:
            self._slow_since_ns = now_ns
        slow_ns = now_ns - self._slow_since_ns
        if slow_ns > self._settings.stuck_seconds * _NS_PER_SECOND and not has_caught_up:
            raise ReaderFailedError("slow")

    def _send(self, data: bytes) -> None:
        self._settle()
        self._bytes_sent += len(data)
        self._write(data)

    # What goes past `write`

    def _change(self, *, skipping: bool) -> None:
        self._skipping = skipping
        if skipping:
            self._count_in(None)
        if self._output is not None:
            self._output.has_changed = True

    def _count_in(self, tally: Tally | None) -> None:
        """What comes from now on is counted there, or nothing comes."""
        self._settle()
        self._tally = tally
        self._tallied_bytes = 0 if tally is None else tally.bytes

    def _settle(self) -> None:
        tally = self._tally
        if tally is not None:
            self._bytes_sent += tally.bytes - self._tallied_bytes
            self._tallied_bytes = tally.bytes

    def _ask_for_look(self) -> None:
        tally = self._tally
        if tally is not None:
            at_bytes = tally.bytes + self._check_at_bytes - self._bytes_sent
            tally.look_at_bytes = min(tally.look_at_bytes, at_bytes)
