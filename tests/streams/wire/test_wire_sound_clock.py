import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.media import AccessUnit
from streams.wire.rtcp import SenderReport
from streams.wire.sound_clock import MAX_SKEW_TICKS, SoundClock

SECOND = 1_000_000_000


def picture(pts, received_ns, *, discontinuity=False):
    return AccessUnit(
        pts=pts,
        dts=pts,
        nal_units=(b"x",),
        is_random_access=True,
        received_ns=received_ns,
        discontinuity=discontinuity,
    )


def report(seconds, rtp_timestamp):
    return SenderReport(
        ssrc=1,
        ntp_timestamp=int(seconds * 2**32),
        rtp_timestamp=rtp_timestamp & 0xFFFFFFFF,
        packet_count=0,
        octet_count=0,
    )


def test_sound_before_the_first_picture_has_no_place():
    assert SoundClock(8000).place(0, 0) is None


def test_without_reports_sound_starts_at_its_arrival_and_goes_on_by_its_own_clock():
    clock = SoundClock(8000)
    clock.take_picture(picture(1000, 0))
    assert clock.place(500, SECOND) == 1000 + 90_000
    assert clock.place(500 + 800, 3 * SECOND) == 1000 + 90_000 + 9_000


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(-60_000, 60_000))
def test_with_both_reports_sound_has_its_place_among_the_pictures(video, sound, ahead):
    """The sound's timestamp `sound` was sampled `ahead` ticks after the picture's `video`."""
    clock = SoundClock(16_000)
    clock.take_picture(picture(video, 0))
    clock.place(sound, 0)
    clock.take_video_report(report(100, video - 180_000))
    clock.take_sound_report(report(100 + ahead / 90_000, sound - 32_000))
    assert abs(clock.place(sound, 0) - (video + ahead)) <= (0 if abs(ahead) < 1 else 3600)
    if abs(ahead) > 3700:
        assert abs(clock.place(sound, 0) - (video + ahead)) <= 2


@pytest.mark.parametrize("beyond", [0, 1])
def test_reports_that_contradict_the_arrival_are_not_believed(beyond):
    clock = SoundClock(90_000)
    clock.take_picture(picture(0, 0))
    clock.take_video_report(report(100, 0))
    clock.take_sound_report(report(100, -(MAX_SKEW_TICKS + beyond)))
    assert clock.place(0, 0) == (0 if beyond else MAX_SKEW_TICKS)


def test_after_a_discontinuity_the_old_reports_mean_nothing():
    clock = SoundClock(90_000)
    clock.take_picture(picture(0, 0))
    clock.take_video_report(report(100, 0))
    clock.take_sound_report(report(100, -9_000))
    assert clock.place(0, 0) == 9_000
    clock.take_picture(picture(10**9, SECOND, discontinuity=True))
    assert clock.place(90_000, SECOND) == 10**9


def test_a_sound_clock_that_jumps_starts_again_at_its_arrival():
    clock = SoundClock(8000)
    clock.take_picture(picture(0, 0))
    clock.place(0, 0)
    clock.take_picture(picture(90_000, SECOND))
    assert clock.place(10**9, SECOND) == 90_000
