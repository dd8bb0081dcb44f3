"""Sound in the containers: FFmpeg reads it beside the video, at its times; what has no place is left out."""

import io
from fractions import Fraction
from itertools import pairwise

import av
import msgspec
import pytest
from support.units import encode_clip, encode_sound

from streams.media import TIME_BASE_HZ, AccessUnit, AudioCodec, AudioTrack, AudioUnit, Codec, Track
from streams.mux import CONTAINERS, FRAMINGS, Muxer, sample_of

SOUNDS = [
    ("flv", AudioCodec.AAC, 44_100, "aac"),
    ("flv", AudioCodec.PCMA, 8_000, "pcm_alaw"),
    ("flv", AudioCodec.PCMU, 8_000, "pcm_mulaw"),
    ("flv-12", AudioCodec.AAC, 16_000, "aac"),
    ("fmp4", AudioCodec.AAC, 48_000, "aac"),
    ("fmp4", AudioCodec.AAC, 96_000, "aac"),
]
NO_PLACE = [
    ("fmp4", AudioTrack(codec=AudioCodec.PCMA, sample_rate=8_000, channels=1)),
    ("flv", AudioTrack(codec=AudioCodec.PCMA, sample_rate=16_000, channels=1)),
    ("flv", AudioTrack(codec=AudioCodec.PCMU, sample_rate=8_000, channels=3)),
    *(
        (container, AudioTrack(codec=AudioCodec.AAC, sample_rate=48_000, channels=2, configuration=bad))
        for container in CONTAINERS
        for bad in (b"", b"\x11", b"\xff" * 64, b"\x11\x90" + bytes(63))
    ),
    *((container, None) for container in CONTAINERS),
]


def muxed_file(
    muxer: Muxer, codec: Codec, units: tuple[AccessUnit, ...], sounds: tuple[AudioUnit, ...]
) -> bytes:
    """Both as they arrive, oldest first."""
    parts = [muxer.init]
    for unit in sorted((*units, *sounds), key=lambda u: u.received_ns):
        muxed = muxer.mux_audio(unit) if isinstance(unit, AudioUnit) else muxer.mux(sample_of(codec, unit))
        parts += [muxed.head, muxed.mark, muxed.tail]
    return b"".join(parts)


def with_sound(track: Track, sound: AudioTrack | None) -> Track:
    return msgspec.structs.replace(track, audio=sound)


@pytest.mark.parametrize("codec", list(Codec))
@pytest.mark.parametrize(("container", "sound_codec", "sample_rate", "name"), SOUNDS)
def test_ffmpeg_reads_pictures_and_sound(
    container: str, sound_codec: AudioCodec, sample_rate: int, name: str, codec: Codec
) -> None:
    track, units = encode_clip(codec, 30, b_frames=2)
    sound, sounds = encode_sound(sound_codec, 1.0, sample_rate=sample_rate)
    data = muxed_file(CONTAINERS[container](with_sound(track, sound)), codec, units, sounds)
    with av.open(io.BytesIO(data)) as file:
        video, audio = file.streams
        layout = audio.codec_context
        assert (layout.name, layout.sample_rate, layout.channels) == (name, sample_rate, 1)
        packets = {video: [], audio: []}
        for packet in file.demux():
            if packet.size:
                packets[packet.stream].append(packet)
        times = [p.pts * Fraction(audio.time_base) for p in packets[audio]]
        assert [bytes(p) for p in packets[audio]] == [s.data for s in sounds]
        assert all(
            abs(time - Fraction(s.pts, TIME_BASE_HZ)) <= Fraction(1, 1000)
            for time, s in zip(times, sounds, strict=True)
        )
        if container == "fmp4":
            step = Fraction(1024, sample_rate)
            assert {later - time for time, later in pairwise(times)} == {step}
        pictures = [p.pts * Fraction(video.time_base) for p in packets[video]]
        assert pictures == [Fraction(u.pts, TIME_BASE_HZ) for u in units]
    with av.open(io.BytesIO(data)) as file:
        assert sum(frame.samples for frame in file.decode(audio=0)) >= 0.9 * sample_rate


@pytest.mark.parametrize(("container", "sound"), NO_PLACE)
def test_what_has_no_place_is_neither_declared_nor_carried(container: str, sound: AudioTrack | None) -> None:
    track, _ = encode_clip(Codec.H264)
    muxer = CONTAINERS[container](with_sound(track, sound))
    silent = CONTAINERS[container](track)
    assert muxer.mux_audio(AudioUnit(pts=0, data=b"sound", received_ns=0)) is None
    assert (muxer.init, muxer.mime) == (silent.init, silent.mime)


def test_flv_declares_what_is_there() -> None:
    track, _ = encode_clip(Codec.H264)
    sound, _ = encode_sound(AudioCodec.AAC)
    assert CONTAINERS["flv"](track).init[:9] == b"FLV\x01\x01\x00\x00\x00\x09"
    muxer = CONTAINERS["flv"](with_sound(track, sound))
    assert muxer.init[:9] == b"FLV\x01\x05\x00\x00\x00\x09"
    assert muxer.init.endswith(muxer.restart)
    header = b"\xaf\x00" + sound.configuration
    assert muxer.restart.endswith(header + (11 + len(header)).to_bytes(4))


def test_codec_id_12_has_the_layout_of_avc() -> None:
    track, units = encode_clip(Codec.H265, 2)
    muxer = CONTAINERS["flv-12"](track)
    start = muxer.restart.index(b"\x1c\x00\x00\x00\x00\x01")
    assert start == 11
    muxed = muxer.mux(sample_of(Codec.H265, units[0]))
    assert muxed.head[11:16] == b"\x1c\x01\x00\x00\x00"
    assert muxer.mux(sample_of(Codec.H265, units[1])).tail[11:16] == b"\x2c\x01\x00\x00\x00"
    h264, _ = encode_clip(Codec.H264)
    assert CONTAINERS["flv-12"](h264).init == CONTAINERS["flv"](h264).init


def test_mime_names_the_sound() -> None:
    track, _ = encode_clip(Codec.H264)
    sound, _ = encode_sound(AudioCodec.AAC)
    mime = CONTAINERS["fmp4"](with_sound(track, sound)).mime
    assert mime.startswith('video/mp4; codecs="avc1.')
    assert mime.endswith(',mp4a.40.2"')


@pytest.mark.parametrize("container", ["flv", "fmp4", "rtp"])
@pytest.mark.parametrize("framing", sorted(FRAMINGS))
def test_sound_is_framed_like_any_unit(container: str, framing: str) -> None:
    track, _ = encode_clip(Codec.H264)
    sound, sounds = encode_sound(AudioCodec.AAC)
    muxed = CONTAINERS[container](with_sound(track, sound)).mux_audio(sounds[1])
    assert (muxed.head, muxed.mark, muxed.slices_hash) == (b"", b"", None)
    assert not muxed.is_random_access
    assert (muxed.pts, muxed.dts, muxed.received_ns) == (
        sounds[1].pts,
        sounds[1].pts,
        sounds[1].received_ns,
    )
    framed = FRAMINGS[framing].frame_unit(muxed)
    assert framed.tail == FRAMINGS[framing].frame(muxed.tail)


@pytest.mark.parametrize("container", ["flv", "fmp4"])
def test_sound_from_before_the_time_line_begins_with_it(container: str) -> None:
    track, _ = encode_clip(Codec.H264)
    sound, sounds = encode_sound(AudioCodec.AAC)
    early = msgspec.structs.replace(sounds[0], pts=-1)
    at_start = CONTAINERS[container](with_sound(track, sound)).mux_audio(sounds[0])
    assert CONTAINERS[container](with_sound(track, sound)).mux_audio(early).tail == at_start.tail
