"""Streams that are read in turns: when each has its turn, what it writes, and who ends it."""

import asyncio
from collections.abc import Callable

import pytest
from support.text_muxer import TEXT_CONTAINERS, numbers, writes
from support.units import RecordingReader, encode_clip, synthetic_unit

from streams.hub import Hub, HubSettings, Stream
from streams.hub.turns import MIN_WINDOW_SECONDS, TURNS_AT_ONCE, Turns
from streams.media import AudioUnit, Codec

WINDOW_SECONDS = 0.1


class DoneError(Exception):
    pass


class Merging:
    """Stands for the `MergeControl`: the window is the test's."""

    def __init__(self, window_seconds: float = WINDOW_SECONDS) -> None:
        self.window_seconds = window_seconds


class Member:
    """Remembers its turns, by a clock of the test. `left`: how many turns' worth it still has to read."""

    def __init__(self, beat: "Beat", left: int = 0) -> None:
        self.turns: list[float] = []
        self.steps: list[str] = []
        self.ended: list[float] = []
        self.left = left
        self._beat = beat

    def fetch(self) -> bool:
        self.turns.append(round(self._beat.now, 6))
        self._step("fetch")
        return True

    def take(self) -> bool:
        self._step("take")
        self.left = max(0, self.left - 1)
        return self.left > 0

    def write(self) -> None:
        self._step("write")

    def _step(self, name: str) -> None:
        self.steps.append(name)
        self._beat.steps.append((name, self))

    def end_turns(self) -> None:
        self.ended.append(round(self._beat.now, 6))


class Beat:
    """A clock that sleeping moves on, until `ends_at`."""

    def __init__(self, ends_at: float) -> None:
        self.now = 0.0
        self.merging = Merging()
        self.turns = Turns(self.merging, clock=lambda: self.now, sleep=self._sleep)
        self.at: dict[float, list] = {}
        self.on_pause: Callable[[], None] = lambda: None
        self.steps: list[tuple[str, Member]] = []
        self._ends_at = ends_at

    async def _sleep(self, seconds: float) -> None:
        self.on_pause()
        self.now += seconds
        for at in [at for at in self.at if at <= self.now + 1e-9]:
            for call in self.at.pop(at):
                call()
        if self.now >= self._ends_at - 1e-9:
            raise DoneError

    async def run(self) -> None:
        with pytest.raises(DoneError):
            await self.turns.run()


async def test_every_member_has_one_turn_in_a_window_at_a_steady_beat() -> None:
    beat = Beat(1.0)
    members = [Member(beat) for _ in range(3)]
    for member in members:
        beat.turns.add(member)
    await beat.run()
    for member in members:
        assert member.turns == [round(turn * WINDOW_SECONDS, 6) for turn in range(10)]


async def test_all_take_each_step_together() -> None:
    beat = Beat(WINDOW_SECONDS)
    members = [Member(beat) for _ in range(3)]
    for member in members:
        beat.turns.add(member)
    await beat.run()
    assert beat.steps == [(step, member) for step in ("fetch", "take", "write") for member in members]


async def test_who_has_nothing_to_read_takes_no_further_step() -> None:
    class Silent(Member):
        def fetch(self) -> bool:
            super().fetch()
            return False

    beat = Beat(WINDOW_SECONDS)
    silent, other = Silent(beat), Member(beat)
    beat.turns.add(silent)
    beat.turns.add(other)
    await beat.run()
    assert (silent.steps, other.steps) == (["fetch"], ["fetch", "take", "write"])


async def test_who_has_more_than_a_turns_is_read_again_before_the_others_turn_and_delays_nobody() -> None:
    beat = Beat(0.2)
    flood, calm = Member(beat, left=5), Member(beat)
    beat.turns.add(flood)
    beat.turns.add(calm)
    await beat.run()
    assert flood.turns == [0.0] * 5 + [0.1]
    assert calm.turns == [0.0, 0.1]


async def test_many_turns_at_once_let_the_loops_other_events_come() -> None:
    beat = Beat(0.05)
    members = [Member(beat) for _ in range(3 * TURNS_AT_ONCE)]
    for member in members:
        beat.turns.add(member)
    seen: list[int] = []
    beat.on_pause = lambda: seen.append(len([member for member in members if member.steps[-1:] == ["write"]]))
    await beat.run()
    assert seen == [TURNS_AT_ONCE, 2 * TURNS_AT_ONCE, 3 * TURNS_AT_ONCE]


async def test_a_beat_that_comes_late_is_not_caught_up_with() -> None:
    class Slow(Member):
        def take(self) -> bool:
            if len(self.turns) == 1:
                self._beat.now += 0.55
            return super().take()

    beat = Beat(0.9)
    slow, other = Slow(beat), Member(beat)
    beat.turns.add(slow)
    beat.turns.add(other)
    await beat.run()
    assert other.turns == [0.0, 0.55, 0.65, 0.75, 0.85]


async def test_without_a_window_nobody_has_turns_and_all_read_for_themselves_again() -> None:
    beat = Beat(2.0)
    member = Member(beat)
    beat.turns.add(member)
    beat.merging.window_seconds = MIN_WINDOW_SECONDS - 0.001
    beat.at = {
        0.5: [lambda: setattr(beat.merging, "window_seconds", MIN_WINDOW_SECONDS)],
        0.7: [lambda: setattr(beat.merging, "window_seconds", 0.0)],
    }
    await beat.run()
    assert member.turns == [0.5, 0.54, 0.58, 0.62, 0.66]
    assert len(member.ended) == 1
    assert 0.7 <= member.ended[0] < 0.73


@pytest.mark.parametrize("failing", ["fetch", "take", "write"])
async def test_one_members_failure_is_not_the_others(failing: str) -> None:
    class Broken(Member):
        def _step(self, name: str) -> None:
            super()._step(name)
            if name == failing:
                raise ZeroDivisionError

    beat = Beat(0.3)
    broken, other = Broken(beat), Member(beat)
    beat.turns.add(broken)
    beat.turns.add(other)
    await beat.run()
    assert broken.steps == (["fetch"] * 3 if failing == "fetch" else ["fetch", "take", "write"] * 3)
    assert other.steps == ["fetch", "take", "write"] * 3


async def test_who_is_removed_has_no_more_turns() -> None:
    beat = Beat(0.3)
    member = Member(beat, left=1000)
    beat.turns.add(member)
    beat.at = {0.0: [lambda: beat.turns.remove(member)]}
    await beat.run()
    assert len(member.turns) == 1


async def test_who_is_removed_in_his_turn_is_not_read_again() -> None:
    class Leaving(Member):
        def take(self) -> bool:
            beat.turns.remove(self)
            return super().take()

    beat = Beat(0.3)
    member = Leaving(beat, left=1000)
    beat.turns.add(member)
    await beat.run()
    assert member.steps == ["fetch", "take", "write"]


# A stream that has turns


class Reading:
    """A source's bytes: each turn publishes the next of `bursts` to the stream."""

    def __init__(self, stream: Stream, *bursts: tuple[int, ...]) -> None:
        self.has_ended = 0
        self._stream = stream
        self._bursts = list(bursts)

    def fetch(self) -> bool:
        return bool(self._bursts)

    def take(self) -> bool:
        for number in self._bursts.pop(0):
            self._stream.publish(synthetic_unit(number, random_access=number % 10 == 0))
        return bool(self._bursts)

    def end_turns(self) -> None:
        self.has_ended += 1


class NoTimer:
    def cancel(self) -> None: ...


def open_stream() -> tuple[Stream, list[float]]:
    """A stream whose writes are merged, and the times for which it has set timers."""
    timers: list[float] = []

    def schedule(seconds: float, _call) -> NoTimer:
        timers.append(seconds)
        return NoTimer()

    settings = HubSettings(merge_seconds=WINDOW_SECONDS, merge_above_load=0)
    stream = Hub(settings, TEXT_CONTAINERS, clock_ns=lambda: 0, schedule=schedule).open("cam")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    return stream, timers


def turn_of(stream: Stream) -> bool:
    """All three steps; whether there may be more."""
    if not stream.fetch():
        return False
    more = stream.take()
    stream.write()
    return more


async def test_what_a_turn_reads_is_written_at_once_as_one_group() -> None:
    stream, timers = open_stream()
    reader = RecordingReader()
    stream.subscribe(reader, "flv", "chunked")
    stream.offer_turns(Reading(stream, (0, 1, 2), (3, 4), (), (9, 10, 11)))
    more = [turn_of(stream) for _ in range(4)]
    assert more == [True, True, True, False]
    assert writes(reader) == ["K0 v1 v2", "v3 v4", "v9", "K10 v11"]
    assert timers == []


async def test_what_was_pending_before_the_turn_goes_first() -> None:
    stream, timers = open_stream()
    reader = RecordingReader()
    stream.subscribe(reader, "flv", "chunked")
    stream.publish(synthetic_unit(0, random_access=True))
    stream.publish_audio(AudioUnit(pts=0, data=b"sound", received_ns=0))
    assert len(timers) == 1
    stream.offer_turns(Reading(stream, (1, 2)))
    turn_of(stream)
    assert numbers(reader) == [0, 1, 2]
    assert len(reader.units) == 1


async def test_a_failure_while_reading_loses_nothing_that_was_read() -> None:
    class Broken(Reading):
        def take(self) -> bool:
            super().take()
            raise ZeroDivisionError

    stream, _ = open_stream()
    reader = RecordingReader()
    stream.subscribe(reader, "flv", "chunked")
    stream.offer_turns(Broken(stream, (0, 1)))
    assert stream.fetch()
    with pytest.raises(ZeroDivisionError):
        stream.take()
    stream.write()
    assert numbers(reader) == [0, 1]


async def test_readers_of_media_get_everything_at_once_so_there_are_no_turns() -> None:
    stream, _ = open_stream()
    reader = RecordingReader()
    stream.subscribe(reader, "flv", "chunked")
    first, second = Reading(stream, (0,)), Reading(stream, (1,))

    class Listener(RecordingReader):
        def publish(self, unit) -> None: ...

        def configure(self, track) -> None: ...

    listeners = [Listener(), Listener()]
    stream.subscribe_media(listeners[0])
    stream.offer_turns(first)
    assert not turn_of(stream)
    stream.unsubscribe(listeners[0])
    assert not turn_of(stream)
    assert numbers(reader) == [0]
    assert first.has_ended == 0
    stream.subscribe_media(listeners[1])
    assert first.has_ended == 1
    stream.unsubscribe(listeners[1])
    stream.offer_turns(second)
    turn_of(stream)
    assert numbers(reader) == [0, 1]
    stream.end_turns()
    assert second.has_ended == 1
    stream.end("closed")
    assert second.has_ended == 2
    assert not turn_of(stream)


async def test_a_hubs_streams_have_turns_while_it_runs() -> None:
    hub = Hub(HubSettings(merge_seconds=WINDOW_SECONDS, merge_above_load=0), TEXT_CONTAINERS)
    stream = hub.open("cam")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    has_turn = asyncio.Event()

    class Noticed(Reading):
        def fetch(self) -> bool:
            has_turn.set()
            return False

    stream.offer_turns(Noticed(stream))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        running = group.create_task(hub.run())
        await has_turn.wait()
        has_turn.clear()
        await has_turn.wait()
        running.cancel()
