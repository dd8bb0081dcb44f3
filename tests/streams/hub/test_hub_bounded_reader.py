"""A bounded reader against a transport whose drain the test controls."""

from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip, synthetic_unit

from streams.hub import BoundedReader, Hub, HubSettings, ReaderFailedError, ReaderSettings, Stream
from streams.media import Codec
from streams.mux import FRAMINGS, Marker, MuxedUnit, sample_of
from streams.mux.mark import MARK_PLACEHOLDER, find_marks

SECOND = 1_000_000_000
SETTINGS = ReaderSettings(
    max_backlog_bytes=10_000, max_age_seconds=4, stuck_seconds=20, check_interval_bytes=1000
)


MARKER = Marker(b"k" * 32, bytes(16), "cam")


class Peer:
    """A transport and the clock beside it; nothing leaves until `drain`."""

    def __init__(self) -> None:
        self.now_ns = 0
        self.written: list[bytes] = []
        self.backlog = 0
        self.drains = False

    def clock_ns(self) -> int:
        return self.now_ns

    def backlog_bytes(self) -> int:
        return self.backlog

    def write(self, data: bytes) -> None:
        self.written.append(data)
        if not self.drains:
            self.backlog += len(data)

    plain_write = write

    def write_marked(self, head: bytes, tail: bytes) -> None:
        self.write(head)
        self.write(tail)

    def drain(self, size: int | None = None) -> None:
        self.backlog = 0 if size is None else max(0, self.backlog - size)


@pytest.fixture
def peer() -> Peer:
    return Peer()


def open_reader(peer: Peer, settings: ReaderSettings = SETTINGS, marker: Marker = MARKER) -> BoundedReader:
    return BoundedReader(peer, marker, settings, peer.clock_ns, lambda _reason: None)


def watch(stream: Stream, peer: Peer, ended: list[str] | None = None) -> BoundedReader:
    on_end = [].append if ended is None else ended.append
    reader = BoundedReader(peer, MARKER, SETTINGS, peer.clock_ns, on_end)
    stream.subscribe(reader, "flv", "chunked")
    return reader


def unit(number: int, *, random_access: bool = False, size: int = 1000) -> MuxedUnit:
    sample = sample_of(Codec.H264, synthetic_unit(number, random_access=random_access, size=size - 4))
    return FRAMINGS["unframed"].frame_unit(sample)


def test_the_mark_is_written_with_the_head_and_the_picture_is_shared(peer: Peer) -> None:
    key, session = b"k" * 32, bytes(16)
    reader = open_reader(peer, marker=Marker(key, session, "cam"))
    keyframe, other = unit(0, random_access=True), unit(1)
    reader.start(b"init", "video/x-flv")
    reader.write(keyframe)
    reader.write(other)
    init, marked_head, picture, tail = peer.written
    assert init == b"init"
    assert picture is keyframe.tail
    assert tail is other.tail
    assert MARK_PLACEHOLDER not in marked_head
    sei = marked_head[4:] + b"\x80"
    (mark,) = find_marks(Codec.H264, [sei, picture[5:]])
    assert mark.is_authentic(key, "cam")
    assert reader.bytes_sent == sum(map(len, peer.written))


def test_a_reader_over_the_byte_bound_skips_to_the_next_random_access_point(peer: Peer) -> None:
    reader = open_reader(peer)
    reader.write(unit(0, random_access=True))
    for number in range(1, 20):
        reader.write(unit(number))
    bound = SETTINGS.max_backlog_bytes + SETTINGS.check_interval_bytes + 1000
    assert SETTINGS.max_backlog_bytes < peer.backlog <= bound
    dropped = reader.dropped_access_units
    assert dropped == 20 - (len(peer.written) - 1)
    peer.drain()
    reader.write(unit(20))
    assert reader.dropped_access_units == dropped + 1
    written = len(peer.written)
    reader.write(unit(21, random_access=True))
    reader.write(unit(22))
    assert len(peer.written) == written + 3
    assert reader.dropped_access_units == dropped + 1


def test_it_does_not_resume_with_half_a_backlog(peer: Peer) -> None:
    reader = open_reader(peer)
    peer.backlog = SETTINGS.max_backlog_bytes + 1
    reader.write(unit(0, random_access=True))
    peer.backlog = SETTINGS.max_backlog_bytes // 2 + 1
    reader.write(unit(1, random_access=True))
    assert peer.written == []
    peer.backlog -= 1
    reader.write(unit(2, random_access=True))
    assert len(peer.written) == 2


def test_the_byte_bound_itself_is_allowed(peer: Peer) -> None:
    reader = open_reader(peer)
    peer.backlog = SETTINGS.max_backlog_bytes
    reader.write(unit(0, random_access=True))
    assert peer.written


def test_a_reader_over_the_age_bound_skips(peer: Peer) -> None:
    """A slow trickle: never many bytes, but the first of them has been waiting for too long."""
    reader = open_reader(peer)
    reader.write(unit(0, random_access=True, size=1100))
    peer.drain(500)
    for second, skips in ((4, False), (5, True)):
        peer.now_ns = second * SECOND + (second == 5)
        reader.write(unit(second, random_access=True, size=100))
        assert bool(reader.dropped_access_units) == skips
    peer.drain()
    reader.write(unit(6, random_access=True))
    assert reader.dropped_access_units == 1


def test_a_silent_camera_makes_nobody_old(peer: Peer) -> None:
    reader = open_reader(peer)
    reader.write(unit(0, random_access=True))
    peer.drain()
    peer.now_ns = 3600 * SECOND
    reader.write(unit(1, random_access=True))
    reader.write(unit(2))
    assert reader.dropped_access_units == 0


def test_a_reader_that_stays_slow_leaves(peer: Peer) -> None:
    reader = open_reader(peer)
    peer.backlog = SETTINGS.max_backlog_bytes + 1
    peer.now_ns = SECOND
    reader.write(unit(0, random_access=True))
    peer.now_ns = 21 * SECOND
    reader.write(unit(1))
    peer.now_ns += 1
    with pytest.raises(ReaderFailedError) as raised:
        reader.write(unit(2))
    assert raised.value.reason == "slow"
    assert peer.written == []


def test_waiting_for_a_random_access_point_is_not_slow(peer: Peer) -> None:
    reader = open_reader(peer)
    peer.backlog = SETTINGS.max_backlog_bytes + 1
    reader.write(unit(0, random_access=True))
    peer.drain()
    peer.now_ns = 60 * SECOND
    reader.write(unit(1))
    assert peer.written == []
    reader.write(unit(2, random_access=True))
    assert len(peer.written) == 2


def test_catching_up_for_a_moment_is_not_enough(peer: Peer) -> None:
    """Slow again before the next random access point: still slow since the first time."""
    reader = open_reader(peer)
    for second in range(0, 22, 2):
        peer.now_ns = second * SECOND
        peer.backlog = SETTINGS.max_backlog_bytes + 1
        reader.write(unit(second, size=5000))
        peer.drain()
        peer.now_ns += 1
        reader.write(unit(second, random_access=True))
    peer.backlog = SETTINGS.max_backlog_bytes + 1
    peer.now_ns = 20 * SECOND + 2
    with pytest.raises(ReaderFailedError):
        reader.write(unit(30, size=5000))


def test_a_whole_good_gop_is_forgiveness(peer: Peer) -> None:
    reader = open_reader(peer)
    peer.backlog = SETTINGS.max_backlog_bytes + 1
    reader.write(unit(0, random_access=True))
    peer.drains, peer.backlog = True, 0
    for number in range(1, 4):
        peer.now_ns = number * SECOND
        reader.write(unit(number, random_access=True))
    peer.backlog = SETTINGS.max_backlog_bytes + 1
    for second in (30, 50):
        peer.now_ns = second * SECOND
        reader.write(unit(second, random_access=True))
    assert reader.dropped_access_units == 3


@pytest.mark.parametrize("pause_seconds", [0.04, 1, 7, 1000])
def test_a_stuck_viewer_is_ended_in_time_however_rarely_the_camera_sends(
    peer: Peer, pause_seconds: float
) -> None:
    """With the settings that we ship, and a look every second: within ten seconds."""
    reader = open_reader(peer, ReaderSettings())
    reader.start(b"init", "video/x-flv")
    reader.write(unit(0, random_access=True))
    stuck_ns = peer.now_ns

    def go_on() -> None:
        number = 0
        while True:
            peer.now_ns += SECOND // 25
            if peer.now_ns > (number + 1) * pause_seconds * SECOND:
                number += 1
                reader.write(unit(number))
            if peer.now_ns % SECOND == 0:
                reader.check()

    with pytest.raises(ReaderFailedError, match="slow"):
        go_on()
    assert peer.now_ns - stuck_ns <= 10 * SECOND


def test_looking_at_a_viewer_who_reads_changes_nothing(peer: Peer) -> None:
    reader = open_reader(peer)
    peer.drains = True
    for number in range(20):
        peer.now_ns = number * SECOND
        reader.check()
        reader.write(unit(number, random_access=number == 0))
        reader.check()
    assert reader.dropped_access_units == 0
    assert len(peer.written) == 21


def test_a_viewer_found_behind_by_a_look_skips_to_the_next_random_access_point(peer: Peer) -> None:
    reader = open_reader(peer)
    reader.write(unit(0, random_access=True))
    peer.now_ns = 4 * SECOND + 1
    reader.check()
    reader.write(unit(1))
    assert reader.dropped_access_units == 1
    peer.drain()
    reader.check()
    reader.write(unit(2))
    assert reader.dropped_access_units == 2
    reader.write(unit(3, random_access=True))
    reader.write(unit(4))
    assert reader.dropped_access_units == 2


def test_a_start_may_be_larger_than_any_backlog(peer: Peer) -> None:
    """What comes after it may not: as soon as that is too much, the viewer is behind."""
    peer.now_ns = SECOND
    reader = open_reader(peer)
    reader.start(b"init", "video/x-flv")
    for number in range(20):
        reader.write(unit(number, random_access=number == 0, size=5000))
    assert reader.dropped_access_units == 0
    assert peer.backlog > 9 * SETTINGS.max_backlog_bytes
    for number in range(30, 50):
        reader.write(unit(number))
    assert reader.dropped_access_units > 0
    bound = SETTINGS.max_backlog_bytes + SETTINGS.check_interval_bytes + 1000
    assert peer.backlog - 100_000 <= bound + 1000


def test_in_a_stream_a_stuck_reader_ends_and_the_others_go_on() -> None:
    track, _ = encode_clip(Codec.H264, 1)
    stream = Hub(HubSettings()).open("cam")
    stream.configure(track)
    stuck, healthy = Peer(), Peer()
    healthy.drains = True
    ended: list[str] = []
    for peer in (stuck, healthy):
        watch(stream, peer, ended)
    for number in range(100):
        stuck.now_ns = healthy.now_ns = number * SECOND
        stream.publish(synthetic_unit(number, random_access=number % 10 == 0, size=1000))
    assert ended == ["slow"]
    assert stream.readers == 1
    assert len(healthy.written) == 1 + 100 + 10
    assert stuck.backlog < 15_000


@given(
    st.lists(
        st.tuples(
            st.booleans(), st.integers(60, 3000), st.integers(0, 3000), st.booleans(), st.integers(0, 1)
        ),
        max_size=80,
    )
)
def test_in_a_stream_all_is_counted_by_each_whatever_a_peer_does(
    steps: list[tuple[bool, int, int, bool, int]],
) -> None:
    """What is written to all of them at once, too; and who has left counts nothing more."""
    track, _ = encode_clip(Codec.H264, 1)
    stream = Hub(HubSettings(merge_seconds=0)).open("cam")
    stream.configure(track)
    peers = [Peer() for _ in range(3)]
    readers = [watch(stream, peer) for peer in peers]
    peers[0].drains = True
    largest, left_with = 0, None
    for number, (random_access, size, drained, looks, seconds) in enumerate(steps):
        largest = max(largest, size + 300)
        stream.publish(synthetic_unit(number, random_access=random_access or number == 0, size=size))
        peers[1].drain(drained)
        peers[2].drain()
        for peer in peers:
            peer.now_ns += seconds * SECOND
        if looks:
            stream.check_readers()
        if number == len(steps) // 2:
            left_with = readers[2].bytes_sent
            stream.unsubscribe(readers[2])
        bound = SETTINGS.max_backlog_bytes + SETTINGS.check_interval_bytes + 2 * largest
        assert peers[1].backlog <= bound
    assert [reader.bytes_sent for reader in readers[:2]] == [sum(map(len, p.written)) for p in peers[:2]]
    assert readers[0].dropped_access_units == 0
    if left_with is not None:
        assert readers[2].bytes_sent == left_with == sum(map(len, peers[2].written))


def test_a_viewer_behind_goes_on_when_he_has_caught_up_and_what_he_missed_is_counted() -> None:
    track, _ = encode_clip(Codec.H264, 1)
    stream = Hub(HubSettings(merge_seconds=0)).open("cam")
    stream.configure(track)
    slow, healthy = Peer(), Peer()
    healthy.drains = True
    reader, other = watch(stream, slow), watch(stream, healthy)
    for number in range(40):
        if number == 25:
            slow.drain()
        stream.publish(synthetic_unit(number, random_access=number % 10 == 0, size=1000))
    # The container's beginning comes first, and the two keyframes that he got were two pieces each.
    written = len(slow.written) - 1 - 2
    assert reader.dropped_access_units == 40 - written > 10
    assert other.dropped_access_units == 0
    assert slow.written[-1] is healthy.written[-1]


def test_pictures_written_as_one_are_missed_as_many() -> None:
    timers: list[Callable[[], None]] = []

    class Timer:
        def cancel(self) -> None: ...

    def schedule(seconds: float, call: Callable[[], None]) -> Timer:
        timers.append(call)
        return Timer()

    peer = Peer()
    hub = Hub(HubSettings(merge_above_load=0, merge_seconds=0.1), clock_ns=peer.clock_ns, schedule=schedule)
    stream = hub.open("cam")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    reader = watch(stream, peer)
    peer.backlog = SETTINGS.max_backlog_bytes + 1
    for number in range(5):
        stream.publish(synthetic_unit(number, random_access=number == 0))
    peer.now_ns = SECOND
    timers[0]()
    assert reader.dropped_access_units == 5


def test_a_connection_that_breaks_in_the_middle_of_all_is_named_and_the_others_go_on() -> None:
    class Broken(Peer):
        is_broken = False

        def write(self, data: bytes) -> None:
            if self.is_broken:
                raise ReaderFailedError("lost")
            super().write(data)

        def plain_write(self, data: bytes) -> None:
            if self.is_broken:
                raise RuntimeError("the handler is closed")
            super().write(data)

    stream = Hub(HubSettings(merge_seconds=0)).open("cam")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    peers = Peer(), Broken(), Peer()
    ended: list[str] = []
    for peer in peers:
        peer.drains = True
        watch(stream, peer, ended)
    for number in range(4):
        stream.publish(synthetic_unit(number, random_access=number == 0))
        peers[1].is_broken = number > 0
    assert ended == ["lost"]
    assert [len(peer.written) for peer in peers] == [6, 4, 6]


@given(
    st.lists(
        st.tuples(st.booleans(), st.integers(60, 3000), st.integers(0, 3000), st.integers(0, 2)), max_size=80
    )
)
def test_bounded_decodable_and_counted_whatever_the_peer_does(
    steps: list[tuple[bool, int, int, int]],
) -> None:
    peer = Peer()
    reader = open_reader(peer)
    given_units, largest = 0, 0
    sent: list[int] = []
    try:
        for number, (random_access, size, drained, seconds) in enumerate(steps):
            before = len(peer.written)
            largest = max(largest, size + 200)
            given_units += 1
            reader.write(unit(number, random_access=random_access, size=size))
            if len(peer.written) > before:
                sent.append(number)
            peer.drain(drained)
            peer.now_ns += seconds * SECOND
            assert peer.backlog <= SETTINGS.max_backlog_bytes + SETTINGS.check_interval_bytes + largest
    except ReaderFailedError:
        assert reader.dropped_access_units >= 2
    assert len(sent) + reader.dropped_access_units == given_units
    assert reader.bytes_sent == sum(map(len, peer.written))
    for previous, number in pairwise(sent):
        assert number == previous + 1 or steps[number][0]
