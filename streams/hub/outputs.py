"""What a stream writes to its viewers: media in containers and framings, each made once for all of them."""

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple, Protocol

import msgspec

from streams.hub.fan_out import FanOut, Reader, Tally, end_failed, end_reader
from streams.hub.group import by_picture, group_of, random_access_of
from streams.hub.merging import MergeControl
from streams.media import AccessUnit, AudioUnit, Codec, Track
from streams.mux import Framing, MuxedUnit, Muxer, Sample, sample_of

MAX_GROUP_BYTES = 256 * 1024
"""A group that has grown beyond this is written at once: a viewer's socket takes no more in one go."""
MAX_SOUND_WAIT_SECONDS = 0.2
"""Sound leaves with the next access unit; if there is none for so long, by itself."""
_EARLY_NS = 2_000_000
"""A timer may fire so much before its time: event loops round theirs to 1 ms."""
_NS_PER_SECOND = 1_000_000_000


class Timer(Protocol):
    def cancel(self) -> None: ...


class _Recipients(NamedTuple):
    """Who gets a unit without a mark: `readers` by their `plain_writes`, `others` by `write`."""

    readers: tuple[Reader, ...]
    plain_writes: tuple[Callable[[bytes], None], ...]
    others: tuple[Reader, ...]


class _Output:
    """The readers of one container in one framing, and the groups of the GOP so far for those who come.

    `cached` is None while there is but one reader, who has them: most cameras have one viewer, and what is
    not kept is written where the last group was, in memory that the processor's caches still hold.
    """

    __slots__ = ("_asked", "_recipients", "cached", "framing", "readers", "tally")

    def __init__(self, framing: Framing) -> None:
        self.framing = framing
        self.readers: FanOut[Reader] = FanOut()
        self.cached: list[MuxedUnit] | None = None
        self.tally = Tally()
        self._asked: tuple[Reader, ...] = ()
        self._recipients = _Recipients((), (), ())

    def keep(self, group: MuxedUnit, *, at_any_rate: bool) -> _Recipients:
        """Who is to get it; whoever comes later finds it among the cached."""
        if group.is_random_access:
            self.cached = [group] if at_any_rate or len(self.readers) > 1 else None
            self.readers.admit()
        elif self.cached:
            self.cached.append(group)
        if group.mark:
            return _Recipients((), (), self.readers.active)
        if self.tally.has_changed or self._asked is not self.readers.active:
            self._recipients = self._ask()
        return self._recipients

    def _ask(self) -> _Recipients:
        self.tally.has_changed = False
        self._asked = self.readers.active
        readers, plain_writes, others = [], [], []
        for reader in self._asked:
            plain_write = reader.plain_write(self.tally)
            if plain_write is None:
                others.append(reader)
            else:
                readers.append(reader)
                plain_writes.append(plain_write)
        return _Recipients(tuple(readers), tuple(plain_writes), tuple(others))


class Outputs:
    """The containers of one stream, and the group of media that waits to be written together.

    Nothing is muxed that nobody reads. While writes are merged, groups end at a steady beat, once in a merge
    window: if their pictures ended them, the time between two would be a multiple of the pictures' own, and
    longer than the window. Besides, a group ends at MAX_GROUP_BYTES, before a random access unit, and before
    anything that makes what is pending wrong: a new track, the end.

    `cached` is the stream's: the access units and sound of the GOP so far, what is pending included.
    """

    def __init__(
        self,
        camera_id: str,
        containers: Mapping[str, Callable[[Track], Muxer]],
        framings: Mapping[str, Framing],
        merging: MergeControl,
        schedule: Callable[[float, Callable[[], None]], Timer],
        clock_ns: Callable[[], int],
    ) -> None:
        """`schedule` calls a function after so many seconds, as `call_later` of an event loop does."""
        self._camera_id = camera_id
        self._containers = containers
        self._framings = framings
        self._merging = merging
        self._schedule = schedule
        self._clock_ns = clock_ns
        self._track: Track | None = None
        self._codec = Codec.H264
        self._has_sound = True
        self._muxers: dict[str, Muxer] = {}
        self._outputs: dict[tuple[str, str], _Output] = {}
        self._routes: tuple[tuple[Muxer, tuple[_Output, ...]], ...] = ()
        self._pending: list[AccessUnit | AudioUnit] = []
        self._pending_bytes = 0
        self._has_picture = False
        self._deadline_ns = 0
        self._timer: Timer | None = None
        self._is_turn = False

    def __len__(self) -> int:
        """The number of readers."""
        return sum(len(output.readers) for output in self._outputs.values())

    # Media

    def configure(self, track: Track, *, has_sound: bool) -> None:
        """A track, new or changed. `has_sound`: whether what it declares of sound is there.

        Raises ProtocolError, changing nothing, if no container can hold it.
        """
        muxers = {name: self._muxer(name, track, has_sound=has_sound) for name in self._containers}
        is_first = not self._muxers
        self.flush()
        self._track, self._codec, self._has_sound, self._muxers = track, track.codec, has_sound, muxers
        self._begin_anew(muxers.keys(), is_first=is_first)

    def declare_sound(self, *, is_there: bool) -> None:
        """The track's sound is gone, or back, and a random access unit comes next.

        Players show no picture without the sound that a container declares: those that declare some begin
        anew without it, and again with it.
        """
        if self._track is None:
            return
        self.flush()
        self._has_sound = is_there
        anew = {name: self._muxer(name, self._track, has_sound=is_there) for name in self._containers}
        anew = {
            n: muxer for n, muxer in anew.items() if muxer.declares_sound != self._muxers[n].declares_sound
        }
        self._muxers |= anew
        self._begin_anew(anew.keys(), is_first=False)

    def end_group(self) -> None:
        """A random access unit comes next: it begins a group of its own, with only sound before it."""
        if self._has_picture:
            self.flush()

    def publish(self, unit: AccessUnit, size_bytes: int) -> None:
        """Write it now, or keep it for as long as the merge window lasts."""
        if not self._routes:
            return
        seconds = self._merging.window_seconds
        if not seconds and not self._pending:
            self._write_group((unit,), sample_of(self._codec, unit) if unit.is_random_access else None)
            return
        self._append(unit, size_bytes, seconds)
        self._has_picture = True
        if not seconds or self._pending_bytes > MAX_GROUP_BYTES:
            self.flush()

    def publish_audio(self, unit: AudioUnit) -> None:
        """Keep it for the next access unit's write."""
        if self._routes:
            self._append(unit, len(unit.data), self._merging.window_seconds or MAX_SOUND_WAIT_SECONDS)
            if self._pending_bytes > MAX_GROUP_BYTES:
                self.flush()

    def begin_turn(self) -> None:
        """From now on all is kept, until `end_turn` writes it as one group."""
        self._is_turn = True

    def end_turn(self) -> None:
        self._is_turn = False
        self.flush()

    def flush(self) -> None:
        """Write what is pending."""
        if self._pending:
            # Before the first call: readers come and go in the middle of it, and must find nothing pending.
            units, self._pending = self._pending, []
            self._pending_bytes, self._has_picture = 0, False
            self._write_group(units, random_access_of(self._codec, units))

    def drop_cache(self) -> None:
        """What is pending goes out first: its readers go on, and must not find their group half cached."""
        self.flush()
        for output in self._outputs.values():
            output.cached = []

    # Readers

    def subscribe(
        self, reader: Reader, container: str, framing: str, cached: Sequence[AccessUnit | AudioUnit]
    ) -> None:
        """Raises KeyError for a container or framing that the hub does not have."""
        output = self._outputs.get((container, framing)) or self._open(container, framing)
        if output.cached is None:
            output.cached = self._muxed_again(container, output.framing, cached)
        groups = tuple(output.cached)
        output.readers.add(reader, at_once=bool(groups))
        if not self._muxers:
            return
        muxer = self._muxers[container]
        if self._call(reader, reader.start, output.framing.frame(muxer.init), muxer.mime):
            for group in groups:
                if not self._call(reader, reader.write, group):
                    return

    def remove(self, reader: object) -> bool:
        """Whether it was there."""
        was_there = False
        for key, output in tuple(self._outputs.items()):
            removed = output.readers.remove(reader)
            if removed is not None:
                removed.plain_write(None)
                was_there = True
            if not output.readers:
                del self._outputs[key]
                self._find_routes()
        if not self._outputs:
            self._forget_pending()
        return was_there

    def check_readers(self) -> None:
        for output in tuple(self._outputs.values()):
            self._check(output, output.readers.all)

    def end(self, reason: str) -> None:
        self.flush()
        readers = [reader for output in self._outputs.values() for reader in output.readers.all]
        self._outputs, self._routes = {}, ()
        self._forget_pending()
        for reader in readers:
            end_reader(reader, reason, self._camera_id)

    # Inside

    def _muxer(self, container: str, track: Track, *, has_sound: bool) -> Muxer:
        muxer = self._containers[container](track)
        if has_sound or not muxer.declares_sound:
            return muxer
        return self._containers[container](msgspec.structs.replace(track, audio=None))

    def _begin_anew(self, containers: Collection[str], *, is_first: bool) -> None:
        """Tell the readers of these containers, whose muxers are new."""
        self._find_routes()
        for (container, framing), output in tuple(self._outputs.items()):
            if container not in containers:
                continue
            muxer = self._muxers[container]
            init = self._framings[framing].frame(muxer.init if is_first else muxer.restart)
            output.cached = []
            for reader in output.readers.all:
                self._call(reader, reader.start if is_first else reader.restart, init, muxer.mime)

    def _open(self, container: str, framing: str) -> _Output:
        if container not in self._containers:
            raise KeyError(container)
        output = self._outputs[container, framing] = _Output(self._framings[framing])
        self._find_routes()
        return output

    def _muxed_again(
        self, container: str, framing: Framing, cached: Sequence[AccessUnit | AudioUnit]
    ) -> list[MuxedUnit]:
        """What is cached, rather than keep it for every output and every container that might be wanted.

        Not as one group: readers that cut by time could not cut it any more.
        """
        written = cached[: max(0, len(cached) - len(self._pending))]
        if self._track is None or not written:
            return []
        groups, muxer = [], self._muxers[container]
        if muxer.counts and sum(name == container for name, _ in self._outputs) > 1:
            # the readers of other framings need that one's count
            muxer = self._muxer(container, self._track, has_sound=self._has_sound)
        for units in by_picture(written):
            group = group_of(muxer, units, random_access_of(self._codec, units))
            if group is not None:
                groups.append(framing.frame_unit(group))
        return groups

    def _find_routes(self) -> None:
        """The outputs by muxer, found when they change instead of for each access unit."""
        self._routes = tuple(
            (muxer, outputs)
            for name, muxer in self._muxers.items()
            if (outputs := tuple(o for (container, _), o in self._outputs.items() if container == name))
        )

    def _append(self, unit: AccessUnit | AudioUnit, size_bytes: int, wait_seconds: float) -> None:
        if not self._pending and not self._is_turn:
            now_ns, wait_ns = self._clock_ns(), int(wait_seconds * _NS_PER_SECOND)
            beat_ns = self._deadline_ns + wait_ns
            self._deadline_ns = beat_ns if now_ns < beat_ns <= now_ns + wait_ns else now_ns + wait_ns
            # One timer is enough, however often a group ends before it: it looks at the deadline.
            if self._timer is None:
                wait_seconds = (self._deadline_ns - now_ns) / _NS_PER_SECOND
                self._timer = self._schedule(wait_seconds, self._flush_if_due)
        self._pending.append(unit)
        self._pending_bytes += size_bytes

    def _flush_if_due(self) -> None:
        self._timer = None
        if self._pending:
            remaining_ns = self._deadline_ns - self._clock_ns()
            if remaining_ns > _EARLY_NS:
                self._timer = self._schedule(remaining_ns / _NS_PER_SECOND, self._flush_if_due)
            else:
                self.flush()

    def _forget_pending(self) -> None:
        self._pending, self._pending_bytes, self._has_picture = [], 0, False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write_group(self, units: Sequence[AccessUnit | AudioUnit], random_access: Sample | None) -> None:
        # All are kept before any is written: who comes from within a write finds them cached, in each output.
        kept: list[tuple[_Output, MuxedUnit, _Recipients]] = []
        for muxer, outputs in self._routes:
            group = group_of(muxer, units, random_access)
            if group is not None:
                for output in outputs:
                    framed = output.framing.frame_unit(group)
                    kept.append((output, framed, output.keep(framed, at_any_rate=muxer.counts)))
        for output, framed, recipients in kept:
            self._write(output, framed, recipients)

    def _write(self, output: _Output, framed: MuxedUnit, recipients: _Recipients) -> None:
        readers, plain_writes, others = recipients
        tally, tail = output.tally, framed.tail
        if framed.mark:
            tally.look_at_bytes = sys.maxsize
        for reader in others:
            self._call(reader, reader.write, framed)
        if not readers:
            return
        tally.bytes += len(tail)
        for index, plain_write in enumerate(plain_writes):
            try:
                plain_write(tail)
            except Exception:  # noqa: BLE001 - whatever it is, `write` finds it too
                self._call(readers[index], readers[index].write, framed)
        if tally.bytes > tally.look_at_bytes:
            self._check(output, output.readers.active)

    def _check(self, output: _Output, readers: Sequence[Reader]) -> None:
        output.tally.look_at_bytes = sys.maxsize  # each reader says anew when it wants to look
        for reader in readers:
            self._call(reader, reader.check)

    def _call(self, reader: Reader, method: Callable[..., None], *arguments: object) -> bool:
        try:
            method(*arguments)
        except Exception as error:  # noqa: BLE001 - see end_failed
            if self.remove(reader):
                end_failed(reader, error, self._camera_id)
            return False
        return True
