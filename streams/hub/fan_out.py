"""What a reader of a stream is, and the set of readers that share the same objects."""

from typing import Generic, Protocol, TypeVar

from streams.media import AccessUnit, AudioUnit, Track
from streams.mux import MuxedUnit


class ReaderFailedError(Exception):
    """Raised by a reader's method to leave the stream; `reason` is what its `end` is called with."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Reader(Protocol):
    """A viewer's end of the fan-out. All methods are called from the stream's loop and must not block.

    `start` comes first, once the track is known; `restart` when the track changes; `write` once for each
    access unit, from a random access point on; `end` last and once, unless the reader was unsubscribed.
    """

    def start(self, init: bytes, mime: str) -> None: ...

    def restart(self, init: bytes, mime: str) -> None: ...

    def write(self, unit: MuxedUnit) -> None: ...

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


AnyReader = TypeVar("AnyReader", Reader, UnitReader)
Unit = TypeVar("Unit", MuxedUnit, AccessUnit)


class FanOut(Generic[AnyReader, Unit]):
    """Readers that get the same objects, and those objects of the GOP so far.

    `active` is replaced, never changed: a loop over it stays valid when a reader comes or goes meanwhile.
    A reader that comes in the middle of a GOP which is not cached waits for the next random access point.
    """

    def __init__(self) -> None:
        self.active: tuple[AnyReader, ...] = ()
        self.waiting: tuple[AnyReader, ...] = ()
        self.cached: list[Unit] = []

    def __len__(self) -> int:
        return len(self.active) + len(self.waiting)

    @property
    def all(self) -> tuple[AnyReader, ...]:
        return self.active + self.waiting

    def add(self, reader: AnyReader) -> None:
        """The caller gives it what is cached."""
        if self.cached:
            self.active += (reader,)
        else:
            self.waiting += (reader,)

    def remove(self, reader: object) -> None:
        self.active = tuple(r for r in self.active if r is not reader)
        self.waiting = tuple(r for r in self.waiting if r is not reader)

    def advance(self, unit: Unit, *, is_random_access: bool) -> None:
        """The next access unit is about to be delivered to `active`."""
        if is_random_access:
            self.cached = [unit]
            if self.waiting:
                self.active, self.waiting = self.active + self.waiting, ()
        elif self.cached:
            self.cached.append(unit)
