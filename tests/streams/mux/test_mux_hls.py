"""Segments, parts and playlists after RFC 8216 and draft-pantos-hls-rfc8216bis."""

import re
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.hls_playlists import parse_playlist
from support.units import encode_clip

from streams.media import TIME_BASE_HZ, Codec
from streams.mux import CONTAINERS, FRAMINGS, MARK_LENGTH, Marker, MuxedUnit, sample_of
from streams.mux.hls import Segmenter, SegmenterSettings, marked, multivariant_playlist

START = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def wall_clock(received_ns):
    return START + timedelta(microseconds=received_ns // 1000)


def unit(dts, *, key=False, size=100):
    return MuxedUnit(
        b"h" * 10 if key else b"",
        b"." * MARK_LENGTH if key else b"",
        b"t" * size,
        is_random_access=key,
        pts=dts,
        dts=dts,
        received_ns=dts * 100_000 // 9,
        slices_hash=b"s" * 32 if key else None,
    )


def segmented(seconds, *, rate=25, gop=2.0, **settings):
    """A segmenter after so many seconds of a steady camera."""
    segmenter = Segmenter(SegmenterSettings(**settings), wall_clock)
    segmenter.restart(b"init")
    for index in range(round(seconds * rate)):
        segmenter.write(
            unit(round(index * TIME_BASE_HZ / rate), key=index % round(gop * rate) == 0, size=100), epoch=0
        )
    return segmenter


def test_segments_begin_at_random_access_points_and_parts_have_their_length():
    playlist = parse_playlist(segmented(7.0).playlist())
    assert playlist.target_seconds == 3
    assert [segment.duration for segment in playlist.segments] == [2.0, 2.0, 2.0]
    for segment in playlist.segments:
        assert [part.duration for part in segment.parts] == [0.32] * 6 + [0.08]
        assert [part.independent for part in segment.parts] == [True] + [False] * 6
    assert [part.uri for part in playlist.open_parts] == [f"segment-3.{n}.mp4" for n in range(3)]
    assert playlist.hint == "segment-3.3.mp4"
    assert (playlist.part_target, playlist.part_hold_back, playlist.hold_back) == (0.34, 1.02, 9.0)


@pytest.mark.parametrize("rate", [5, 8, 10, 12, 15, 20, 25, 30, 50, 60])
@pytest.mark.parametrize("gop", [0.5, 1.0, 1.4, 2.0, 4.0, 10.0])
def test_any_camera_keeps_the_promises_of_the_playlist(rate, gop):
    playlist = parse_playlist(segmented(31.0, rate=rate, gop=gop).playlist())
    assert playlist.target_seconds == 3
    assert sum(segment.duration for segment in playlist.segments) >= 3 * playlist.target_seconds
    for segment in playlist.segments:
        assert round(segment.duration) <= playlist.target_seconds
        assert not segment.parts or abs(sum(p.duration for p in segment.parts) - segment.duration) < 0.001
        for part in segment.parts:
            assert part.duration <= playlist.part_target
        for part in segment.parts[:-1]:
            assert part.duration >= 0.85 * playlist.part_target


def test_a_picture_per_second_makes_longer_parts_and_says_so():
    playlist = parse_playlist(segmented(20, rate=1, gop=5).playlist())
    assert playlist.part_target == 1.0
    assert playlist.part_hold_back == 3.0


@pytest.mark.parametrize("seconds", [2.0, 2.04, 4.0, 7.0])
def test_a_picture_every_few_seconds_is_the_camera_s_pace_and_no_pause(seconds):
    """Hikvision offers 1/4 of a picture per second: each was a discontinuity and a segment without length."""
    playlist = parse_playlist(segmented(12 * seconds, rate=1 / seconds, gop=4 * seconds).playlist())
    assert {segment.duration for segment in playlist.segments} == {seconds}
    assert not any(segment.discontinuity for segment in playlist.segments)
    assert playlist.target_seconds == max(3, round(seconds))


def test_a_camera_that_becomes_slow_pauses_once():
    segmenter = segmented(3.0)
    for index in range(1, 5):
        segmenter.write(unit((2 + 5 * index) * TIME_BASE_HZ, key=True), epoch=0)
    playlist = parse_playlist(segmenter.playlist())
    assert [segment.discontinuity for segment in playlist.segments] == [False, False, True, False, False]
    assert [segment.duration for segment in playlist.segments] == [2.0, 1.0, 5.0, 5.0, 5.0]


def test_numbers_go_on_and_old_segments_stay_for_a_while():
    segmenter = segmented(41.0)
    playlist = parse_playlist(segmenter.playlist())
    assert playlist.media_sequence == 14
    assert [segment.uri for segment in playlist.segments] == [f"segment-{n}.mp4" for n in range(14, 20)]
    assert segmenter.segment(12) is not None
    assert segmenter.segment(11) is None
    assert segmenter.segment(20) is None
    assert segmenter.part(11, 0) is None
    assert segmenter.part(20, 0) is not None
    assert segmenter.part(20, 9) is None
    # parts older than three target durations are of no use to anybody
    assert [bool(segment.parts) for segment in playlist.segments] == [False, True, True, True, True, True]


def test_dates_are_when_the_pictures_came():
    playlist = parse_playlist(segmented(5.0).playlist())
    assert [segment.date for segment in playlist.segments] == [START, START + timedelta(seconds=2)]


def test_a_new_track_is_a_discontinuity_with_a_map_of_its_own():
    segmenter = segmented(4.4)
    segmenter.restart(b"other")
    playlist = parse_playlist(segmenter.playlist())
    assert playlist.hint is None
    assert [round(segment.duration, 3) for segment in playlist.segments] == [2.0, 2.0, 0.4]
    at = 5 * TIME_BASE_HZ
    segmenter.write(unit(at, key=True), epoch=0)
    assert parse_playlist(segmenter.playlist()).hint is None
    for index in range(1, 60):
        segmenter.write(unit(at + index * 3600, key=index == 50), epoch=0)
    playlist = parse_playlist(segmenter.playlist())
    assert [segment.map for segment in playlist.segments] == ["init-0.mp4"] * 3 + ["init-1.mp4"]
    assert [segment.discontinuity for segment in playlist.segments] == [False, False, False, True]
    assert (segmenter.init(0), segmenter.init(1), segmenter.init(2)) == (b"init", b"other", None)


def test_after_another_set_of_tracks_nobody_begins_before_it():
    segmenter = segmented(4.4)
    segmenter.restart(b"other", keeps_earlier=False)
    assert not segmenter.is_ready
    assert segmenter.init(0) is None
    for index in range(101):
        segmenter.write(unit(5 * TIME_BASE_HZ + index * 3600, key=index % 50 == 0), epoch=0)
    playlist = parse_playlist(segmenter.playlist())
    assert playlist.media_sequence == 3
    assert [(segment.map, segment.duration) for segment in playlist.segments] == [("init-1.mp4", 2.0)] * 2
    assert playlist.segments[0].discontinuity


def test_init_segments_are_kept_as_long_as_they_are_needed():
    segmenter = segmented(1.0)
    for number in range(100):
        segmenter.restart(b"%d" % number)
    assert [segmenter.init(n) is not None for n in range(101)] == [True] + [False] * 99 + [True]
    for number in range(20):
        segmenter.restart(b"%d" % number)
        segmenter.write(unit(number * 90_000, key=True), epoch=0)
    assert sum(segmenter.init(n) is not None for n in range(200)) == 9


@pytest.mark.parametrize(("step_seconds", "epoch"), [(0.04, 1), (30.0, 0), (30.0, 1)])
def test_a_new_time_line_or_a_pause_is_a_discontinuity(step_seconds, epoch):
    segmenter = segmented(3.0)
    at = 3 * TIME_BASE_HZ + round(step_seconds * TIME_BASE_HZ)
    for index in range(60):
        segmenter.write(unit(at + index * 3600, key=index % 50 == 0), epoch=epoch)
    playlist = parse_playlist(segmenter.playlist())
    assert [segment.discontinuity for segment in playlist.segments] == [False, False, True]
    assert [segment.duration for segment in playlist.segments] == [2.0, 1.0, 2.0]
    assert playlist.target_seconds == 3


def test_the_discontinuity_sequence_counts_those_that_left_the_playlist():
    segmenter = Segmenter(SegmenterSettings(), wall_clock)
    segmenter.restart(b"init")
    for epoch in range(20):
        segmenter.write(unit(epoch * 90_000, key=True), epoch=epoch)
    text = segmenter.playlist()
    # segments 13 to 18 are listed; that of segment n is the n-th discontinuity
    assert "#EXT-X-MEDIA-SEQUENCE:13\n#EXT-X-DISCONTINUITY-SEQUENCE:12\n" in text
    assert text.count("#EXT-X-DISCONTINUITY\n") == 6


def test_memory_is_bounded_in_bytes():
    settings = SegmenterSettings(max_bytes=600_000)
    segmenter = Segmenter(settings, wall_clock)
    segmenter.restart(b"init")
    largest = 0
    for index in range(1000):
        segmenter.write(unit(index * 3600, key=index % 50 == 0, size=20_000), epoch=0)
        largest = max(largest, segmenter.size_bytes)
    assert largest <= settings.max_bytes + settings.max_bytes // settings.segments + 2 * 21_000
    assert largest > settings.max_bytes // 2
    assert segmenter.is_ready


def test_sound_alone_stays_with_the_pictures_around_it():
    segmenter = Segmenter(SegmenterSettings(), wall_clock)
    segmenter.restart(b"init")
    for index in range(120):
        segmenter.write(unit(index * 3600, key=index % 50 == 0), epoch=0)
        segmenter.write(unit(index * 3600 - 400, size=7), epoch=0)
    playlist = parse_playlist(segmenter.playlist())
    assert [segment.duration for segment in playlist.segments] == [2.0, 2.0]
    assert sum(u.size_bytes == 7 for u in segmenter.segment(0).units) == 50


def test_sound_ahead_of_the_pictures_hides_no_random_access_point():
    segmenter = Segmenter(SegmenterSettings(), wall_clock)
    segmenter.restart(b"init")
    for index in range(0, 151, 2):
        if index % 50 == 0:
            segmenter.write(unit(index * 3600, key=True), epoch=0)
            segmenter.write(unit(index * 3600 + 12_000), epoch=0)
        else:  # merged, and the sound that comes first is 130 ms ahead
            segmenter.write(unit(index * 3600 + 12_000), epoch=0)
    playlist = parse_playlist(segmenter.playlist())
    assert len(playlist.segments) == 3
    for segment in playlist.segments:
        assert segment.duration == pytest.approx(2.0, abs=0.15)
        assert segment.parts[0].independent
        assert all(part.duration <= playlist.part_target for part in segment.parts)


def test_when_a_blocking_reload_is_answered():
    segmenter = segmented(2 + 3 * 0.32 + 0.04)  # segment 0 whole, three parts of segment 1
    assert segmenter.has_reached(0, None)
    assert segmenter.has_reached(0, 6)
    assert segmenter.has_reached(0, 7)  # counts as the first part of segment 1
    assert segmenter.has_reached(1, 2)
    assert not segmenter.has_reached(1, 3)
    assert not segmenter.has_reached(1, None)
    assert not segmenter.has_reached(2, 0)
    assert not segmenter.is_too_far(2)
    assert segmenter.is_too_far(3)
    assert segmenter.is_hinted(1, 3)
    assert not segmenter.is_hinted(1, 4)
    segmenter.restart(b"other")
    assert segmenter.has_reached(1, None)
    assert not segmenter.has_reached(1, 9)
    assert not segmenter.has_reached(2, 0)


def test_a_viewer_s_keyframes_carry_his_own_mark_and_large_parts_are_shared():
    track, units = encode_clip(Codec.H264)
    muxer = CONTAINERS["fmp4"](track)
    frame_unit = FRAMINGS["unframed"].frame_unit
    muxed = [frame_unit(muxer.mux(sample_of(track.codec, unit))) for unit in units]
    marker = Marker(b"k" * 32, b"i" * 16, "camera")
    pieces = list(marked(muxed, marker))
    assert sum(map(len, pieces)) == sum(unit.size_bytes for unit in muxed)
    keyframes = [unit for unit in muxed if unit.is_random_access]
    assert len(pieces) == len(muxed) + len(keyframes)
    assert pieces[0] == muxed[0].head + marker.mark(muxed[0].pts, muxed[0].slices_hash)
    assert all(any(piece is unit.tail for piece in pieces) for unit in muxed)


def test_the_multivariant_playlist_names_codecs_size_and_rate():
    text = multivariant_playlist(
        "x/live.m3u8", mime='video/mp4; codecs="avc1.42c01e"', width=320, height=240, bit_rate_bps=1000
    )
    assert text.splitlines()[2:] == [
        '#EXT-X-STREAM-INF:BANDWIDTH=1000,CODECS="avc1.42c01e",RESOLUTION=320x240',
        "x/live.m3u8",
    ]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["unit", "key", "restart", "anew", "epoch"]),
            st.integers(-5000, 400_000),
            st.integers(1, 4000),
        ),
        max_size=80,
    )
)
def test_whatever_comes_the_playlist_is_consistent(happenings):
    settings = SegmenterSettings(max_bytes=30_000)
    segmenter = Segmenter(settings, wall_clock)
    segmenter.restart(b"init")
    dts, epoch, last, bytes_in = 0, 0, -1, 0
    for kind, step, size in happenings:
        if kind in ("restart", "anew"):
            segmenter.restart(b"init", keeps_earlier=kind == "restart")
            assert kind == "restart" or not segmenter.is_ready
            continue
        epoch += kind == "epoch"
        dts = max(0, dts + step)
        segmenter.write(unit(dts, key=kind != "unit", size=size), epoch=epoch)
        bytes_in += size
        text = segmenter.playlist()
        assert text == segmenter._written_playlist()
        playlist = parse_playlist(text)
        assert playlist.media_sequence >= last
        last = playlist.media_sequence
        assert segmenter.size_bytes <= settings.max_bytes + settings.max_bytes // settings.segments + 2 * 4100
        for number, segment in enumerate(playlist.segments, playlist.media_sequence):
            assert segment.uri == f"segment-{number}.mp4"
            kept = segmenter.segment(number)
            assert segmenter.init(kept.init) is not None
            assert segment.duration >= 0
            assert round(segment.duration) <= playlist.target_seconds
            assert segmenter.has_reached(number, None)
            for index, part in enumerate(segment.parts):
                assert segmenter.part(number, index).duration == pytest.approx(part.duration * 90_000, abs=1)
        if playlist.hint is not None:
            number, index = map(int, re.fullmatch(r"segment-(\d+)\.(\d+)\.mp4", playlist.hint).groups())
            assert segmenter.is_hinted(number, index)
            assert not segmenter.has_reached(number, index)
