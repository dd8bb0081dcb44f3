import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.wire.reordering import MAX_HELD_PACKETS, MAX_WAIT_NS, ReorderBuffer
from streams.wire.rtp import MAX_MISORDER, RtpPacket


def packet(number, ssrc=7):
    return RtpPacket(96, False, number & 0xFFFF, 0, ssrc, b"")


def numbers(packets):
    return [packet.sequence_number for packet in packets]


@given(st.integers(0, 0xFFFF), st.permutations(range(12)))
def test_what_overtakes_comes_out_in_order(first, order):
    buffer = ReorderBuffer()
    released = numbers(buffer.receive(packet(first), 0))
    for offset in order:
        released += numbers(buffer.receive(packet(first + 1 + offset), 0))
    assert released == [(first + offset) & 0xFFFF for offset in range(13)]
    assert buffer.deadline_ns is None


@pytest.mark.parametrize("beyond", [0, 1])
def test_so_many_packets_wait_and_no_more(beyond):
    buffer = ReorderBuffer()
    buffer.receive(packet(0), 0)
    released = []
    for number in range(2, 2 + MAX_HELD_PACKETS + beyond):
        released += numbers(buffer.receive(packet(number), 0))
    assert released == (list(range(2, 3 + MAX_HELD_PACKETS)) if beyond else [])


@pytest.mark.parametrize("beyond", [-1, 0])
def test_so_long_packets_wait_and_no_longer(beyond):
    buffer = ReorderBuffer()
    buffer.receive(packet(0), 0)
    assert buffer.receive(packet(2), 10) == []
    assert buffer.deadline_ns == 10 + MAX_WAIT_NS
    assert numbers(buffer.expire(10 + MAX_WAIT_NS + beyond)) == ([] if beyond else [2])


def test_several_gaps_expire_each_in_its_time():
    buffer = ReorderBuffer()
    buffer.receive(packet(0), 0)
    buffer.receive(packet(2), 1)
    buffer.receive(packet(5), 2)
    assert numbers(buffer.expire(1 + MAX_WAIT_NS)) == [2]
    assert numbers(buffer.receive(packet(3), 5)) == [3]
    assert numbers(buffer.receive(packet(4), 5)) == [4, 5]


def test_late_packets_go_through_and_doubles_that_wait_do_not():
    buffer = ReorderBuffer()
    buffer.receive(packet(10), 0)
    assert numbers(buffer.receive(packet(9), 0)) == [9]
    assert buffer.receive(packet(12), 0) == buffer.receive(packet(12), 0) == []
    assert numbers(buffer.receive(packet(11), 0)) == [11, 12]


def test_another_source_starts_afresh():
    buffer = ReorderBuffer()
    buffer.receive(packet(0), 0)
    buffer.receive(packet(2), 0)
    assert numbers(buffer.receive(packet(500, ssrc=8), 0)) == [2, 500]
    assert numbers(buffer.receive(packet(501, ssrc=8), 0)) == [501]


@pytest.mark.parametrize(
    ("behind", "is_restart"), [(MAX_MISORDER + 1, False), (MAX_MISORDER + 2, True), (20_000, True)]
)
def test_two_consecutive_packets_far_behind_are_a_new_beginning(behind, is_restart):
    buffer = ReorderBuffer()
    buffer.receive(packet(30_000), 0)
    buffer.receive(packet(30_002), 0)
    first = 30_001 - behind
    assert numbers(buffer.receive(packet(first), 0)) == [first]
    assert numbers(buffer.receive(packet(first + 1), 0)) == [30_002] * is_restart + [first + 1]
    swapped = numbers(buffer.receive(packet(first + 3), 0)) + numbers(buffer.receive(packet(first + 2), 0))
    assert swapped == ([first + 2, first + 3] if is_restart else [first + 3, first + 2])


def test_packets_far_behind_that_are_not_consecutive_change_nothing():
    buffer = ReorderBuffer()
    buffer.receive(packet(30_000), 0)
    for number in (10, 12, 500, 10):
        assert numbers(buffer.receive(packet(number), 0)) == [number]
    assert buffer.receive(packet(30_002), 0) == []
    assert numbers(buffer.receive(packet(30_001), 0)) == [30_001, 30_002]


@given(st.lists(st.tuples(st.integers(0, 300), st.integers(1, 2), st.integers(0, 2 * MAX_WAIT_NS))))
def test_nothing_is_invented_and_what_waits_is_bounded(arrivals):
    buffer, now_ns, released = ReorderBuffer(), 0, 0
    for number, ssrc, pause_ns in arrivals:
        now_ns += pause_ns
        released += len(buffer.receive(packet(number, ssrc), now_ns)) + len(buffer.expire(now_ns))
        assert len(buffer._held) <= MAX_HELD_PACKETS
    released += len(buffer.expire(now_ns + MAX_WAIT_NS))
    assert released <= len(arrivals)
    assert buffer.deadline_ns is None
