"""A camera that sends, and sends what is wrong: by units made for it and a clock of the test."""

import pytest
from support.text_muxer import TEXT_CONTAINERS
from support.units import FRAME_TICKS, encode_clip, synthetic_unit

from streams.hub import Hub, HubSettings, Stream
from streams.hub.faults import FAULT_KEPT_SECONDS, FrozenPicture
from streams.media import AccessUnit, Codec

SECOND = 1_000_000_000
SEI = b"\x06\x05\x01"


def keyframe(picture: int, second: float, *, sei: bytes = SEI) -> AccessUnit:
    ticks = int(second * 25) * FRAME_TICKS
    return AccessUnit(
        pts=ticks,
        dts=ticks,
        nal_units=(sei, b"\x65\x88" + picture.to_bytes(4)),
        is_random_access=True,
        received_ns=int(second * SECOND),
    )


def see(pictures: list[int], interval: float = 2.0) -> list[bool]:
    frozen = FrozenPicture()
    seen = []
    for number, picture in enumerate(pictures):
        frozen.see(Codec.H264, keyframe(picture, number * interval, sei=SEI + bytes([number % 256])))
        seen.append(frozen.is_frozen)
    return seen


def test_a_moving_picture_is_not_frozen() -> None:
    assert not any(see(list(range(100))))


@pytest.mark.parametrize("period", [1, 2, 8])
def test_the_same_keyframes_for_fifteen_seconds_are_a_frozen_camera(period: int) -> None:
    """Also if idr_pic_id makes two of one picture."""
    last_new = period - 1
    seen = see([number % period for number in range(40)])
    assert seen.index(True) == last_new + 8
    assert all(seen[last_new + 8 :])


def test_a_clip_that_is_longer_than_the_memory_is_not_a_frozen_camera() -> None:
    assert not any(see([number % 9 for number in range(40)]))


def test_the_first_new_picture_ends_it() -> None:
    seen = see([0] * 20 + [1, 1, 1])
    assert seen[-4:] == [True, False, False, False]


def test_rare_keyframes_must_be_repeated_twice() -> None:
    assert see([0] * 4, interval=20.0) == [False, False, True, True]


@pytest.mark.parametrize(("interval", "ids"), [(1, 1), (2, 2), (4, 2), (6, 2), (8, 1), (10, 1)])
def test_a_frozen_camera_is_named_within_thirty_seconds(interval: int, ids: int) -> None:
    """Frozen right after a keyframe at 0 s: the next ones show another picture than that, always the same."""
    seen = see([99, *(number % ids for number in range(40))], interval)
    assert seen.index(True) * interval <= 30


@pytest.fixture
def clock() -> list[int]:
    return [0]


@pytest.fixture
def stream(clock: list[int]) -> Stream:
    stream = Hub(HubSettings(), TEXT_CONTAINERS, clock_ns=lambda: clock[0]).open("cam")
    stream.configure(encode_clip(Codec.H264, 1)[0])
    return stream


def test_the_stream_names_a_frozen_picture(stream: Stream) -> None:
    for number in range(9):
        assert stream.fault is None
        stream.publish(keyframe(7, 2.0 * number))
    assert stream.fault == "frozen"
    stream.publish(keyframe(8, 20.0))
    assert stream.fault is None


def test_a_jump_of_the_time_stamps_is_named_for_a_while(stream: Stream, clock: list[int]) -> None:
    stream.publish(synthetic_unit(0, random_access=True))
    stream.publish(synthetic_unit(1))
    assert stream.fault is None
    stream.publish(synthetic_unit(2, pts=10**9, dts=10**9))
    assert stream.fault == "timestamp_jump"
    jumped = synthetic_unit(2).received_ns
    clock[0] = jumped + int(FAULT_KEPT_SECONDS * SECOND) - 1
    assert stream.fault == "timestamp_jump"
    clock[0] += 1
    assert stream.fault is None


def test_a_reconnection_is_no_jump(stream: Stream) -> None:
    stream.publish(synthetic_unit(1000, random_access=True))
    stream.interrupt()
    stream.publish(synthetic_unit(0, random_access=True))
    assert (stream.epoch, stream.fault) == (1, None)
