"""Access units that are written together: what a viewer gets, and when, by a clock and timers of the test."""

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.text_muxer import TEXT_CONTAINERS, numbers, text, writes
from support.units import FRAME_TICKS, RecordingReader, encode_clip, synthetic_unit

from streams.hub import BoundedReader, Hub, HubSettings, MergeControl, ReaderSettings, Stream
from streams.hub.outputs import MAX_GROUP_BYTES, MAX_SOUND_WAIT_SECONDS
from streams.media import AudioUnit, Codec
from streams.mux import FRAMINGS, Marker

MERGED = HubSettings(merge_seconds=0.1, merge_above_load=0)
AT_ONCE = HubSettings(merge_seconds=0)
OUTPUT = ("flv", "chunked")


class Timers:
    """A clock, and timers that go off when it is moved."""

    def __init__(self) -> None:
        self.now = 0.0
        self.set: list[_Timer] = []

    def clock_ns(self) -> int:
        return round(self.now * 1e9)

    def schedule(self, seconds: float, call: Callable[[], None]) -> "_Timer":
        timer = _Timer(self, self.now + seconds, call)
        self.set.append(timer)
        return timer

    def advance(self, seconds: float) -> None:
        end = self.now + seconds
        while due := [timer for timer in self.set if timer.at <= end + 1e-9]:
            timer = min(due, key=lambda timer: timer.at)
            self.set.remove(timer)
            self.now = timer.at
            timer.call()
        self.now = end


class _Timer:
    def __init__(self, timers: Timers, at: float, call: Callable[[], None]) -> None:
        self._timers = timers
        self.at = at
        self.call = call

    def cancel(self) -> None:
        if self in self._timers.set:
            self._timers.set.remove(self)


@pytest.fixture
def timers() -> Timers:
    return Timers()


def open_stream(timers: Timers, settings: HubSettings = MERGED) -> Stream:
    hub = Hub(settings, TEXT_CONTAINERS, clock_ns=timers.clock_ns, schedule=timers.schedule)
    stream = hub.open("cam")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    return stream


def watch(stream: Stream, container: str = "flv", framing: str = "chunked") -> RecordingReader:
    reader = RecordingReader()
    stream.subscribe(reader, container, framing)
    return reader


def show(stream: Stream, first: int, count: int = 1, **fields) -> None:
    """Pictures, every tenth of them a keyframe."""
    for number in range(first, first + count):
        stream.publish(synthetic_unit(number, random_access=number % 10 == 0, **fields))


def sound(stream: Stream, number: int, size: int = 10) -> None:
    stream.publish_audio(AudioUnit(pts=number * FRAME_TICKS, data=bytes(size), received_ns=0))


class Listener(RecordingReader):
    """A `MediaReader`: remembers pictures and sound in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[str] = []

    def publish(self, unit) -> None:
        self.heard.append(f"v{unit.pts // FRAME_TICKS}")

    def publish_audio(self, unit: AudioUnit) -> None:
        self.heard.append(f"a{unit.pts // FRAME_TICKS}")


def test_all_that_comes_within_the_window_is_one_write(timers: Timers) -> None:
    stream = open_stream(timers)
    reader, other = watch(stream), watch(stream)
    for number in range(6):
        show(stream, number)
        timers.advance(0.04)
    assert writes(reader) == ["K0 v1 v2", "v3 v4"]
    assert all(a is b for a, b in zip(reader.units, other.units, strict=True))


def test_a_window_begins_with_the_first_access_unit_and_not_with_a_timer_that_is_left(timers: Timers) -> None:
    stream = open_stream(timers)
    reader = watch(stream)
    show(stream, 8)
    show(stream, 9)
    show(stream, 10)
    timers.advance(0.09)
    stream.publish(synthetic_unit(11, random_access=True))
    assert writes(reader) == ["K10"]
    timers.advance(0.05)
    assert writes(reader) == ["K10"]
    show(stream, 12)
    timers.advance(0.05)
    assert writes(reader) == ["K10", "K11 v12"]
    assert timers.set == []


def test_a_group_is_a_unit_with_the_keyframes_mark(timers: Timers) -> None:
    stream = open_stream(timers)
    reader = watch(stream, framing="unframed")
    show(stream, 0, 3)
    timers.advance(0.1)
    (group,) = reader.units
    assert (group.head, group.tail) == (b"<K0:", b"><v1><v2>")
    assert (group.is_random_access, group.pts, group.slices_hash is not None) == (True, 0, True)


@pytest.mark.parametrize("framing", FRAMINGS)
def test_a_group_is_one_frame_of_the_transfer(timers: Timers, framing: str) -> None:
    stream = open_stream(timers)
    plain, framed = watch(stream, framing="unframed"), watch(stream, framing=framing)
    show(stream, 0, 3)
    timers.advance(0.1)
    show(stream, 3, 2)
    timers.advance(0.1)
    for group, content in zip(framed.units, plain.units, strict=True):
        whole = FRAMINGS[framing].frame(content.head + content.mark + content.tail)
        assert group.head + group.mark + group.tail == whole


def test_a_viewer_of_a_group_gets_his_mark(timers: Timers) -> None:
    written: list[bytes] = []

    class Peer:
        def backlog_bytes(self) -> int:
            return 0

        def write(self, data: bytes) -> None:
            written.append(data)

        plain_write = write

        def write_marked(self, head: bytes, tail: bytes) -> None:
            written.extend((head, tail))

    stream = open_stream(timers)
    marker = Marker(b"k" * 32, bytes(16), "cam")
    reader = BoundedReader(Peer(), marker, ReaderSettings(), timers.clock_ns, lambda _reason: None)
    stream.subscribe(reader, "flv", "unframed")
    show(stream, 0, 3)
    timers.advance(0.1)
    assert len(written) == 3
    assert written[1].startswith(b"<K0:")
    assert b"." not in written[1]
    assert written[2] == b"><v1><v2>"


def test_a_keyframe_ends_the_group_before_it(timers: Timers) -> None:
    stream = open_stream(timers)
    reader = watch(stream)
    show(stream, 0, 8)
    timers.advance(0.1)
    show(stream, 8, 4)
    whole = ["K0 v1 v2 v3 v4 v5 v6 v7", "v8 v9"]
    assert writes(reader) == whole
    timers.advance(0.1)
    assert writes(reader) == [*whole, "K10 v11"]


def test_groups_end_at_a_steady_beat_whatever_the_time_between_pictures(timers: Timers) -> None:
    stream = open_stream(timers)
    reader = watch(stream)
    ends: list[float] = []
    for _ in range(600):
        if (milliseconds := round(timers.now * 1000)) % 40 == 0:
            stream.publish(synthetic_unit(milliseconds // 40, random_access=milliseconds == 0))
        written = len(reader.units)
        timers.advance(0.001)
        if len(reader.units) > written:
            ends.append(round(timers.now, 3))
    assert ends == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6]


def test_the_beat_begins_anew_after_a_pause(timers: Timers) -> None:
    stream = open_stream(timers)
    reader = watch(stream)
    show(stream, 0)
    timers.advance(0.1)
    timers.advance(0.13)
    show(stream, 1)
    timers.advance(0.09)
    assert writes(reader) == ["K0"]
    timers.advance(0.01)
    assert writes(reader) == ["K0", "v1"]


@pytest.mark.parametrize(
    ("size", "is_written"), [(MAX_GROUP_BYTES // 2, False), (MAX_GROUP_BYTES // 2 + 1, True)]
)
def test_a_group_is_bounded_in_bytes(timers: Timers, size: int, is_written: bool) -> None:
    stream = open_stream(timers)
    reader = watch(stream)
    show(stream, 0, 2, size=size)
    assert bool(reader.units) == is_written


def test_who_comes_in_the_middle_of_a_group_misses_nothing_and_gets_nothing_twice(timers: Timers) -> None:
    stream = open_stream(timers)
    readers = [watch(stream)]
    for number in range(25):
        show(stream, number)
        readers += [watch(stream), watch(stream, "fmp4", "websocket"), watch(stream, "fmp4", "chunked")]
        if number % 3 == 0:
            sound(stream, number)
        if number % 7 == 0:
            stream.unsubscribe(readers.pop())
        timers.advance(0.04)
    timers.advance(1)
    for reader in readers:
        assert numbers(reader) == list(range(numbers(reader)[0], 25))
        assert numbers(reader)[0] % 10 == 0


def test_who_comes_from_within_a_write_before_a_keyframe_gets_nothing_twice(timers: Timers) -> None:
    joined: list[RecordingReader] = []

    class Inviting(RecordingReader):
        def write(self, unit) -> None:
            super().write(unit)
            if not joined:
                joined.extend((watch(stream), watch(stream, "fmp4", "websocket")))

    stream = open_stream(timers)
    stream.subscribe(Inviting(), *OUTPUT)
    show(stream, 0, 12)
    timers.advance(0.1)
    assert [numbers(reader) for reader in joined] == [list(range(12))] * 2


def test_who_finds_nothing_cached_gets_the_group_if_it_begins_with_a_keyframe(timers: Timers) -> None:
    stream = open_stream(timers)
    watch(stream)
    show(stream, 0)
    late = watch(stream)
    other = watch(stream, "fmp4", "websocket")
    show(stream, 1)
    timers.advance(0.1)
    assert writes(late) == writes(other) == ["K0 v1"]


def test_who_comes_when_the_cache_was_too_large_waits_for_a_keyframe(timers: Timers) -> None:
    stream = open_stream(timers, HubSettings(merge_above_load=0, gop_cache_access_units=3))
    early = watch(stream)
    show(stream, 0, 4)
    # the cache cannot be dropped under a group that is to become its beginning
    assert writes(early) == ["K0 v1 v2 v3"]
    late = watch(stream)
    show(stream, 4, 2)
    timers.advance(0.1)
    assert writes(late) == []
    show(stream, 10)
    timers.advance(0.1)
    assert writes(late) == ["K10"]
    assert writes(early)[1:] == ["v4 v5", "K10"]


def test_units_are_never_kept_from_their_readers(timers: Timers) -> None:
    stream = open_stream(timers)
    watch(stream)
    reader, listener = RecordingReader(), Listener()
    stream.subscribe_units(reader)
    stream.subscribe_media(listener)
    show(stream, 0, 2)
    sound(stream, 1)
    assert len(reader.units) == 2
    assert listener.heard == ["v0", "v1", "a1"]


@pytest.mark.parametrize("event", ["interrupt", "configure", "end"])
def test_what_is_pending_goes_out_before_it_becomes_wrong(timers: Timers, event: str) -> None:
    stream = open_stream(timers)
    reader = watch(stream)
    show(stream, 0, 2)
    sound(stream, 2)
    if event == "configure":
        stream.configure(encode_clip(Codec.H264, 1, width=160, height=128)[0])
        assert reader.names[-2:] == ["write", "restart"]
    elif event == "interrupt":
        stream.interrupt()
    else:
        stream.end("closed")
        assert reader.names[-2:] == ["write", "end"]
        assert timers.set == []
    assert writes(reader) == ["K0 v1 a2"]
    timers.advance(1)
    assert writes(reader) == ["K0 v1 a2"]


def test_nothing_waits_for_nobody(timers: Timers) -> None:
    stream = open_stream(timers)
    reader = watch(stream)
    show(stream, 0, 2)
    stream.unsubscribe(reader)
    assert timers.set == []
    show(stream, 2)
    late = watch(stream)
    assert writes(late) == ["K0", "v1", "v2"]
    timers.advance(1)
    assert writes(late) == ["K0", "v1", "v2"]


def test_an_output_that_opens_in_mid_gop_has_it_picture_by_picture(timers: Timers) -> None:
    stream = open_stream(timers)
    listener = Listener()
    stream.subscribe_media(listener)
    for number in range(3):
        show(stream, number)
        sound(stream, number)
    assert writes(watch(stream)) == ["K0", "a0 v1", "a1 v2", "a2"]
    assert writes(watch(stream, "fmp4")) == ["K0", "v1", "v2"]


def test_a_window_that_closes_lets_out_what_waits(timers: Timers) -> None:
    merging = MergeControl(HubSettings(merge_above_load=0.5))
    hub = Hub(
        HubSettings(), TEXT_CONTAINERS, clock_ns=timers.clock_ns, merging=merging, schedule=timers.schedule
    )
    stream = hub.open("cam")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    reader = watch(stream)
    show(stream, 0)
    merging.window_seconds = 0.1
    show(stream, 1, 2)
    assert writes(reader) == ["K0"]
    merging.window_seconds = 0.0
    show(stream, 3, 2)
    assert writes(reader) == ["K0", "v1 v2 v3", "v4"]


# Sound


@pytest.mark.parametrize(
    ("settings", "expected"),
    [(AT_ONCE, ["K0", "a0 v1", "v2", "a1 a2 v3"]), (MERGED, ["K0 a0 v1 v2 a1 a2 v3"])],
)
def test_sound_leaves_with_the_pictures(timers: Timers, settings: HubSettings, expected: list[str]) -> None:
    stream = open_stream(timers, settings)
    reader, mute = watch(stream), watch(stream, "fmp4")
    sound(stream, 0)
    show(stream, 0)
    sound(stream, 0)
    show(stream, 1, 2)
    sound(stream, 1)
    sound(stream, 2)
    show(stream, 3)
    timers.advance(0.1)
    assert writes(reader) == expected
    # sound does not lend a group its time: HLS cuts by the pictures'
    for unit in reader.units:
        assert unit.dts == FRAME_TICKS * int(re.search(r"[Kv](\d+)", text(unit))[1])
    assert numbers(mute) == [0, 1, 2, 3]
    assert "a" not in "".join(writes(mute))


@pytest.mark.parametrize("settings", [AT_ONCE, MERGED])
def test_sound_before_a_keyframe_is_written_with_it(timers: Timers, settings: HubSettings) -> None:
    stream = open_stream(timers, settings)
    reader, _ = watch(stream, framing="unframed"), watch(stream, framing="unframed")
    show(stream, 0)
    timers.advance(0.1)
    sound(stream, 9)
    show(stream, 10)
    timers.advance(0.1)
    assert writes(reader) == ["K0", "a9 K10"]
    group = reader.units[1]
    assert (group.head, group.is_random_access, group.pts) == (b"<a9><K10:", True, 10 * FRAME_TICKS)
    late = watch(stream, framing="unframed")
    assert writes(late) == ["a9 K10"]


def test_sound_alone_waits_no_longer_than_its_bound(timers: Timers) -> None:
    stream = open_stream(timers, AT_ONCE)
    reader, mute = watch(stream), watch(stream, "fmp4")
    show(stream, 0)
    sound(stream, 1)
    timers.advance(MAX_SOUND_WAIT_SECONDS - 0.01)
    assert writes(reader) == ["K0"]
    timers.advance(0.01)
    assert writes(reader) == ["K0", "a1"]
    sound(stream, 2, MAX_GROUP_BYTES)
    assert writes(reader) == ["K0", "a1"]
    sound(stream, 3, 1)
    assert writes(reader) == ["K0", "a1", "a2 a3"]
    assert writes(mute) == ["K0"]
    assert timers.now < 0.21


def test_sound_has_no_place_far_from_the_pictures_nor_back(timers: Timers) -> None:
    stream = open_stream(timers, AT_ONCE)
    listener = Listener()
    stream.subscribe_media(listener)
    show(stream, 0)
    for number in (0, 250, 251, 250, 249):
        sound(stream, number)
    assert listener.heard == ["v0", "a0", "a250"]


def test_sound_follows_the_pictures_to_their_new_place(timers: Timers) -> None:
    stream = open_stream(timers, AT_ONCE)
    listener = Listener()
    stream.subscribe_media(listener)
    show(stream, 1000)
    sound(stream, 1001)
    stream.interrupt()
    sound(stream, 2)
    stream.publish(synthetic_unit(0, random_access=True, received_ns=synthetic_unit(1100).received_ns))
    sound(stream, 1)
    assert listener.heard == ["v1000", "a1001", "v1100", "a1101"]


def test_the_cached_gop_of_a_media_reader_has_its_sound(timers: Timers) -> None:
    stream = open_stream(timers)
    for number in range(3):
        show(stream, number)
        sound(stream, number)
    listener, reader = Listener(), RecordingReader()
    stream.subscribe_media(listener)
    stream.subscribe_units(reader)
    assert listener.heard == ["v0", "a0", "v1", "a1", "v2", "a2"]
    assert listener.names == ["configure"]
    assert len(reader.units) == 3
    stream.unsubscribe(listener)
    sound(stream, 3)
    assert len(listener.heard) == 6
    assert stream.readers == 1


def test_small_sounds_are_bounded_too(timers: Timers) -> None:
    stream = open_stream(timers, HubSettings(gop_cache_bytes=10_000))
    show(stream, 0)
    for number in range(100):
        stream.publish_audio(AudioUnit(pts=number, data=b"1", received_ns=0))
    listener = Listener()
    stream.subscribe_media(listener)
    assert listener.heard == []


def test_a_media_reader_that_fails_leaves(timers: Timers) -> None:
    class Broken(Listener):
        def publish_audio(self, unit: AudioUnit) -> None:
            raise RuntimeError

    stream = open_stream(timers)
    show(stream, 0)
    listener, broken = Listener(), Broken()
    stream.subscribe_media(broken)
    stream.subscribe_media(listener)
    sound(stream, 1)
    late = Broken()
    stream.subscribe_media(late)
    assert broken.ended == late.ended == "internal_error"
    assert listener.heard == ["v0", "a1"]
    assert stream.readers == 1


@given(st.lists(st.sampled_from(["v", "K", "a", "wait", "join", "join other", "leave"]), max_size=60))
def test_every_reader_gets_every_picture_from_a_keyframe_on_once_and_in_order(steps: list[str]) -> None:
    timers = Timers()
    stream = open_stream(timers)
    readers, left, number = [watch(stream)], [], 0
    for step in steps:
        if step in "vK":
            number += 1
            stream.publish(synthetic_unit(number, random_access=step == "K"))
        elif step == "a":
            sound(stream, number)
        elif step == "wait":
            timers.advance(0.06)
        elif step == "leave" and readers:
            left.append(readers.pop(0))
            stream.unsubscribe(left[-1])
        elif step.startswith("join"):
            readers.append(watch(stream, *(("fmp4", "websocket") if "other" in step else OUTPUT)))
    timers.advance(1)
    for reader in readers + left:
        got = numbers(reader)
        assert got == list(range(got[0], got[0] + len(got))) if got else True
        assert not got or reader.units[0].is_random_access
        assert all(text(unit).count("K") == unit.is_random_access for unit in reader.units[1:])
    for reader in readers:
        got = numbers(reader)
        assert not got or got[-1] == number
