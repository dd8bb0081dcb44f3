"""Whatever a camera sends, containers stay well-formed; read back here without FFmpeg."""

from collections.abc import Iterator
from contextlib import suppress

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from support.interleaved import split_interleaved
from support.units import encode_clip

from streams.errors import StreamError
from streams.hub.timeline import TimeLine
from streams.media import (
    MAX_AUDIO_CHANNELS,
    MAX_AUDIO_CONFIGURATION_BYTES,
    MAX_SAMPLE_RATE_HZ,
    AccessUnit,
    AudioCodec,
    AudioTrack,
    AudioUnit,
    Codec,
    Track,
)
from streams.mux import CONTAINERS, FRAMINGS, Muxer, Piece, sample_of
from streams.mux.rtp import describe_rtp
from streams.wire.rtp import parse_rtp

any_time = st.integers(-(2**53), 2**53) | st.integers(0, 10_000_000)
any_clock = st.integers(0, 2**50)
any_sound_track = st.builds(
    AudioTrack,
    codec=st.sampled_from(AudioCodec),
    sample_rate=st.integers(1, MAX_SAMPLE_RATE_HZ) | st.just(8_000),
    channels=st.integers(1, MAX_AUDIO_CHANNELS),
    configuration=st.just(b"\x11\x90") | st.binary(max_size=MAX_AUDIO_CONFIGURATION_BYTES),
)
any_nal_unit = st.binary(min_size=1, max_size=40) | st.binary(min_size=1, max_size=3).map(lambda b: b * 1500)
any_unit = st.builds(
    AccessUnit,
    pts=any_time,
    dts=any_time,
    nal_units=st.lists(any_nal_unit, min_size=1, max_size=4).map(tuple),
    is_random_access=st.booleans(),
    received_ns=any_clock,
)
any_sound = st.builds(AudioUnit, pts=any_time, data=st.binary(max_size=3000), received_ns=any_clock)
any_container = st.sampled_from(sorted(CONTAINERS))


def flv_tags(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Kind, time in ms and content of each tag. The signature and the first size are optional."""
    if data.startswith(b"FLV"):
        data = data[13:]
    while data:
        size = int.from_bytes(data[1:4])
        assert int.from_bytes(data[11 + size : 15 + size]) == 11 + size
        yield data[0], data[7] << 24 | int.from_bytes(data[4:7]), data[11 : 11 + size]
        data = data[15 + size :]


def boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    while data:
        size = int.from_bytes(data[:4])
        assert 8 <= size <= len(data)
        yield data[4:8], data[8:size]
        data = data[size:]


def fragment(data: bytes) -> tuple[int, int, bytes]:
    """Track, decode time and sample of one fragment."""
    (moof, header), (mdat, sample) = boxes(data)
    (_, _), (_, track_fragment) = boxes(header)
    fields = dict(boxes(track_fragment))
    run = fields[b"trun"]
    assert (moof, mdat) == (b"moof", b"mdat")
    assert int.from_bytes(run[4:8]) == 1
    assert data[int.from_bytes(run[8:12]) :] == sample
    size_at = 16 if run[2:4] == b"\x0f\x01" else 12
    assert int.from_bytes(run[size_at : size_at + 4]) == len(sample)
    return int.from_bytes(fields[b"tfhd"][4:8]), int.from_bytes(fields[b"tfdt"][4:12]), sample


def check(container: str, data: bytes, content: bytes, dts: int, *, is_sound: bool) -> None:
    """`content`: what the unit's bytes must be once the container is taken off."""
    match container:
        case "fmp4":
            track, time, sample = fragment(data)
            assert (track, sample) == (1 + is_sound, content)
            assert is_sound or time == dts
        case "rtp":
            packets = [(channel, parse_rtp(packet)) for channel, packet in split_interleaved(data)]
            assert {channel for channel, _ in packets} <= {2 * is_sound}
            assert all(len(packet.payload) <= 1400 for _, packet in packets)
            assert is_sound or all(packet.marker == (packet is packets[-1][1]) for _, packet in packets)
        case _:
            ((kind, time_ms, tag),) = flv_tags(data)
            assert kind == (8 if is_sound else 9)
            assert is_sound or time_ms == dts // 90 % 2**32
            assert tag.endswith(content)


def muxed_whole(muxer: Muxer, codec: Codec, unit: AccessUnit) -> tuple[bytes, bytes]:
    sample = sample_of(codec, unit)
    muxed = muxer.mux(sample)
    assert (muxed.mark, muxed.slices_hash) == (sample.mark, sample.slices_hash)
    assert bool(muxed.mark) == muxed.is_random_access == unit.is_random_access
    assert muxed.is_random_access or not muxed.head
    return muxed.head + muxed.mark + muxed.tail, sample.head + sample.mark + sample.tail


@given(
    any_container,
    st.sampled_from(Codec),
    st.none() | any_sound_track,
    st.lists(any_unit | any_sound, max_size=6),
)
def test_arbitrary_units_make_well_formed_containers(
    container: str, codec: Codec, sound: AudioTrack | None, units: list[AccessUnit | AudioUnit]
) -> None:
    track = msgspec.structs.replace(encode_clip(codec, 1)[0], audio=sound)
    muxer, time_line = CONTAINERS[container](track), TimeLine()
    if container.startswith("flv"):
        assert [time for _, time, _ in flv_tags(muxer.init)] in ([0], [0, 0])
    elif container == "fmp4":
        assert [kind for kind, _ in boxes(muxer.init)] == [b"ftyp", b"moov"]
    last_dts = -1
    for unit in units:
        if isinstance(unit, AudioUnit):
            muxed = muxer.mux_audio(unit)
            if muxed is not None:
                check(container, muxed.tail, unit.data, unit.pts, is_sound=True)
            continue
        placed = time_line.place(unit)
        assert placed.dts > last_dts
        last_dts = placed.dts
        data, content = muxed_whole(muxer, codec, placed)
        check(container, data, content, placed.dts, is_sound=False)


@given(any_container, st.sampled_from(Codec), st.lists(any_unit, max_size=6))
def test_a_group_is_its_units_one_after_the_other(
    container: str, codec: Codec, units: list[AccessUnit]
) -> None:
    track = encode_clip(codec, 1)[0]
    grouping, single, time_line = CONTAINERS[container](track), CONTAINERS[container](track), TimeLine()
    for unit in units:
        placed = msgspec.structs.replace(time_line.place(unit), is_random_access=False)
        pieces: list[Piece] = [b"earlier"]
        size = grouping.append(placed, pieces)
        muxed = single.mux(sample_of(codec, placed))
        assert (b"".join(pieces), size) == (b"earlier" + muxed.tail, muxed.size_bytes)


@given(
    any_container,
    st.sampled_from(sorted(FRAMINGS)),
    st.builds(
        Track,
        codec=st.sampled_from(Codec),
        parameter_sets=st.lists(
            st.sampled_from([b"\x67", b"\x68", b"\x40\x01", b"\x42\x01", b"\x44\x01"]).flatmap(
                lambda header: st.binary(max_size=60).map(lambda rest: header + rest)
            ),
            min_size=1,
            max_size=6,
        ).map(tuple),
        width=st.integers(1, 16_384),
        height=st.integers(1, 16_384),
        audio=st.none() | any_sound_track,
    ),
    any_unit,
)
def test_an_arbitrary_track_is_carried_or_refused(
    container: str, framing: str, track: Track, unit: AccessUnit
) -> None:
    with suppress(StreamError):
        describe_rtp(track)
    try:
        muxer = CONTAINERS[container](track)
    except StreamError:
        return
    placed = TimeLine().place(unit)
    muxed = muxer.mux(sample_of(track.codec, placed))
    framed = FRAMINGS[framing].frame_unit(muxed)
    assert framed.size_bytes >= muxed.size_bytes
    assert len(FRAMINGS[framing].frame(muxer.init)) >= len(muxer.init)
