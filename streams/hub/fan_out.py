"""What a reader of a stream is, and the set of readers that share the same objects."""

import sys
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import structlog

from streams.media import AccessUnit, AudioUnit, Track
from streams.mux import MuxedUnit

_log = structlog.get_logger(__name__)


class ReaderFailedError(Exception):
    """Raised by a reader's method to leave the stream; `reason` is what its `end` is called with."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Tally:
    """What the readers of one output were given past their `write`, counted once for all of them.

    `look_at_bytes`: as soon as `bytes` is more, their `check` is called. `has_changed`: a reader's
    `plain_write` would answer otherwise now.
    """

    __slots__ = ("bytes", "has_changed", "look_at_bytes")

    def __init__(self) -> None:
        self.bytes = 0
        self.look_at_bytes = sys.maxsize
        self.has_changed = False


class Reader(Protocol):
    """A viewer's end of the fan-out. All methods are called from the stream's loop and must not block.

    `start` comes first, once the track is known; `restart` when the track changes; `write` once for each
    access unit, or group of merged ones, from a random access point on; `check` about once a second,
    whether anything is written or not; `end` last and once, unless the reader was unsubscribed.

    `plain_write` may return what takes the bytes of units without a mark instead of `write`: for thousands of
    viewers, a call of Python each is a third of the work that is not the kernel's. What goes there is counted
    in `tally` first, and the answer is good until the reader says there that it has changed. If it raises,
    `write` gets the same unit, and says why. None for a tally: the reader is out, nothing more is its own.
    """

    def start(self, init: bytes, mime: str) -> None: ...

    def restart(self, init: bytes, mime: str) -> None: ...

    def write(self, unit: MuxedUnit) -> None: ...

    def check(self) -> None: ...

    def plain_write(self, tally: Tally | None) -> Callable[[bytes], None] | None: ...

    def end(self, reason: str) -> None: ...


class UnitReader(Protocol):
    """A reader of the access units themselves: a publisher that can be told the end.

    `configure` comes first and when the track changes, `publish` from a random access point on.
    """

    def configure(self, track: Track) -> None: ...

    def publish(self, unit: AccessUnit) -> None: ...

    def end(self, reason: str) -> None: ...


class MediaReader(UnitReader, Protocol):
    """A reader of the access units and of the sound, in the order of their arrival."""

    def publish_audio(self, unit: AudioUnit) -> None: ...


AnyReader = TypeVar("AnyReader", Reader, UnitReader, MediaReader)


class FanOut(Generic[AnyReader]):
    """Readers that get the same objects: those who do, and those who came when nothing was cached.

    The latter wait for the next random access point. By identity, so that one of thousands leaves at once.
    """

    def __init__(self) -> None:
        self.active: tuple[AnyReader, ...] = ()
        """A loop over it stays valid when a reader comes or goes meanwhile: it is another tuple then."""
        self._active: dict[int, AnyReader] = {}
        self._waiting: dict[int, AnyReader] = {}

    def __len__(self) -> int:
        return len(self._active) + len(self._waiting)

    @property
    def all(self) -> tuple[AnyReader, ...]:
        return self.active + tuple(self._waiting.values())

    def add(self, reader: AnyReader, *, at_once: bool) -> None:
        if at_once:
            self._active[id(reader)] = reader
            self.active = tuple(self._active.values())
        else:
            self._waiting[id(reader)] = reader

    def admit(self) -> None:
        """A random access point is about to be delivered to `active`."""
        if self._waiting:
            self._active |= self._waiting
            self._waiting = {}
            self.active = tuple(self._active.values())

    def remove(self, reader: object) -> AnyReader | None:
        """It, if it was there."""
        removed = self._active.pop(id(reader), None)
        if removed is None:
            return self._waiting.pop(id(reader), None)
        self.active = tuple(self._active.values())
        return removed


def end_failed(reader: Reader | UnitReader, error: Exception, camera_id: str) -> None:
    """End the reader that raised `error`, and that the caller has removed.

    Whatever goes wrong in one reader is that reader's end, and must reach neither the camera nor the other
    readers: hence the broad `except` around every call into one.
    """
    if isinstance(error, ReaderFailedError):
        end_reader(reader, error.reason, camera_id)
    else:
        _log.error("reader_failed", camera=camera_id, exc_info=error)
        end_reader(reader, "internal_error", camera_id)


def end_reader(reader: Reader | UnitReader, reason: str, camera_id: str) -> None:
    try:
        reader.end(reason)
    except Exception:  # noqa: BLE001 - as in end_failed
        _log.exception("reader_end_failed", camera=camera_id)
