"""RTP as a container: our depacketizer and FFmpeg get back what went in, whoever joins and whenever."""

import asyncio
from fractions import Fraction
from itertools import pairwise

import av
import msgspec
import pytest
from support.interleaved import split_interleaved
from support.rtsp_replay import replay_rtsp
from support.units import encode_clip, encode_sound, synthetic_unit

from streams.errors import ProtocolError
from streams.media import TIME_BASE_HZ, AccessUnit, AudioCodec, AudioTrack, AudioUnit, Codec, Track
from streams.mux import CONTAINERS, Marker, MuxedUnit, sample_of
from streams.mux.mark import MARK_PLACEHOLDER, find_marks
from streams.mux.rtp import RtpMuxer, describe_rtp
from streams.wire.depacketizer import H264Depacketizer, H265Depacketizer, open_depacketizer
from streams.wire.rtp import HEADER_BYTES, RtpPacket, parse_rtp
from streams.wire.sdp import parse_sdp, serialize_media

KEY = b"k" * 32
SESSION = bytes(range(16))
DEPACKETIZERS = {Codec.H264: H264Depacketizer, Codec.H265: H265Depacketizer}

codecs = pytest.mark.parametrize("codec", list(Codec))


def whole(muxed: MuxedUnit, marker: Marker | None = None) -> bytes:
    mark = marker.mark(muxed.pts, muxed.slices_hash) if marker and muxed.slices_hash else muxed.mark
    return muxed.head + mark + muxed.tail


def packets_of(data: bytes, channel: int = 0) -> list[RtpPacket]:
    found = list(split_interleaved(data))
    assert all(len(packet) <= HEADER_BYTES + 1400 for _, packet in found)
    return [parse_rtp(packet) for c, packet in found if c == channel]


def without_marks(codec: Codec, unit: AccessUnit) -> tuple[bytes, ...]:
    return tuple(n for n in unit.nal_units if not find_marks(codec, [n]) and MARK_PLACEHOLDER not in n)


def in_the_second_hour(unit: AccessUnit | AudioUnit) -> AccessUnit | AudioUnit:
    """FFmpeg takes an RTP timestamp of 0 for none."""
    hour = 3600 * TIME_BASE_HZ
    times = {"pts": unit.pts + hour} | ({"dts": unit.dts + hour} if isinstance(unit, AccessUnit) else {})
    return msgspec.structs.replace(unit, **times)


def described(track: Track) -> str:
    return f"v=0\r\n{serialize_media(describe_rtp(track))}"


@codecs
@pytest.mark.parametrize("slices", [1, 4])
def test_our_depacketizer_gives_back_equal_access_units(codec: Codec, slices: int) -> None:
    track, units = encode_clip(codec, 30, gop=10, slices=slices)
    muxer, marker = RtpMuxer(track), Marker(KEY, SESSION, "cam")
    depacketizer = DEPACKETIZERS[codec]()
    packets = [p for u in units for p in packets_of(whole(muxer.mux(sample_of(codec, u)), marker))]
    first, *received = [event for packet in packets for event in depacketizer.receive(packet, 5)]
    assert first == track
    assert [without_marks(codec, r) for r in received] == [u.nal_units for u in units]
    assert [r.is_random_access for r in received] == [u.is_random_access for u in units]
    assert [r.pts - received[0].pts for r in received] == [u.pts - units[0].pts for u in units]
    for unit in received:
        marks = find_marks(codec, unit.nal_units)
        assert [mark.is_authentic(KEY, "cam") for mark in marks] == [True] * unit.is_random_access
    assert depacketizer.lost_packets == depacketizer.malformed_payloads == 0
    assert {p.payload_type for p in packets} == {96}
    assert len({p.ssrc for p in packets}) == 1


@codecs
def test_the_mark_lies_in_a_packet_of_its_own(codec: Codec) -> None:
    track, units = encode_clip(codec, 1)
    muxed = RtpMuxer(track).mux(sample_of(codec, units[0]))
    assert muxed.mark == MARK_PLACEHOLDER
    (packet,) = [p for p in packets_of(whole(muxed)) if MARK_PLACEHOLDER in p.payload]
    assert packet.payload.endswith(MARK_PLACEHOLDER + b"\x80")
    assert not packet.marker


@codecs
def test_a_random_access_unit_without_slices_ends_with_the_mark(codec: Codec) -> None:
    track, _ = encode_clip(codec, 1)
    delimiter = {Codec.H264: b"\x09\xf0", Codec.H265: b"\x46\x01\x50"}[codec]
    unit = synthetic_unit(0, random_access=True, nal_units=(delimiter,))
    packets = packets_of(whole(RtpMuxer(track).mux(sample_of(codec, unit))))
    assert [p.marker for p in packets] == [False] * (len(packets) - 1) + [True]


def test_timestamps_and_sequence_numbers_wrap() -> None:
    track, _ = encode_clip(Codec.H264)
    muxer = RtpMuxer(track)
    sequence = []
    for number in range(3):
        pts = 2**32 - 3600 + 3600 * number
        unit = synthetic_unit(0, size=30_000_000 // 1000, pts=pts, dts=pts)
        packets = packets_of(whole(muxer.mux(sample_of(Codec.H264, unit))))
        assert {p.timestamp for p in packets} == {pts % 2**32}
        sequence += [p.sequence_number for p in packets]
    for _ in range(3000):
        muxed = muxer.mux(sample_of(Codec.H264, unit))
        sequence += [p.sequence_number for p in packets_of(muxed.tail)]
    assert len(sequence) > 2**16
    assert all((after - before) % 2**16 == 1 for before, after in pairwise(sequence))


def test_another_track_is_another_source() -> None:
    small, _ = encode_clip(Codec.H264)
    large, _ = encode_clip(Codec.H264, 2, width=640, height=360)
    unit = synthetic_unit(0)

    def source(muxer: RtpMuxer) -> tuple[int, int]:
        (packet,) = packets_of(whole(muxer.mux(sample_of(Codec.H264, unit))))
        return packet.ssrc, packet.sequence_number

    assert source(RtpMuxer(small)) == source(RtpMuxer(small))
    assert source(RtpMuxer(small)) != source(RtpMuxer(large))


@codecs
def test_a_viewer_that_joins_between_keyframes_misses_nothing(codec: Codec) -> None:
    """Cached units as they were made, and units muxed again when the output opens: both go on live."""
    track, units = encode_clip(codec, 20, gop=10)
    muxer = RtpMuxer(track)
    live = [muxer.mux(sample_of(codec, u)) for u in units[:8]]
    cached = live[:]
    live += [muxer.mux(sample_of(codec, u)) for u in units[8:10]]
    reopened = [muxer.mux(sample_of(codec, u)) for u in units[:10]]
    later = [muxer.mux(sample_of(codec, u)) for u in units[10:]]
    for joined in (cached + live[8:], reopened + later):
        depacketizer = DEPACKETIZERS[codec]()
        for muxed in joined:
            for packet in packets_of(whole(muxed)):
                depacketizer.receive(packet, 0)
        assert depacketizer.lost_packets == 0
        assert depacketizer.dropped_access_units == 0


@codecs
@pytest.mark.parametrize("sound_codec", list(AudioCodec))
async def test_ffmpeg_plays_it_over_rtsp(codec: Codec, sound_codec: AudioCodec) -> None:
    track, units = encode_clip(codec, 30)
    sound, sounds = encode_sound(sound_codec, 1.0, channels=2 if sound_codec is AudioCodec.AAC else 1)
    track = msgspec.structs.replace(track, audio=sound)
    muxer, marker = CONTAINERS["rtp"](track), Marker(KEY, SESSION, "cam")
    pieces = []
    for unit in sorted((*units, *sounds), key=lambda u: u.received_ns):
        is_sound = isinstance(unit, AudioUnit)
        later = in_the_second_hour(unit)
        muxed = muxer.mux_audio(later) if is_sound else muxer.mux(sample_of(codec, later))
        pieces.append(whole(muxed, marker))

    def play(url: str) -> tuple[list[Fraction], list[bytes], int]:
        with av.open(url, options={"rtsp_transport": "tcp"}, timeout=10) as file:
            video, audio = file.streams.video[0], file.streams.audio[0]
            assert video.codec_context.name == {Codec.H264: "h264", Codec.H265: "hevc"}[codec]
            assert (audio.codec_context.sample_rate, audio.codec_context.channels) == (
                sound.sample_rate,
                sound.channels,
            )
            times, heard, frames = [], [], 0
            for packet in file.demux():
                if packet.size and packet.stream is video:
                    # FFmpeg's parser loses the first picture's.
                    times.append((packet.pts or 0) * Fraction(video.time_base))
                    frames += len(packet.decode())
                elif packet.size:
                    heard.append(bytes(packet))
            return times, heard, frames + len(video.codec_context.decode(None))

    async with asyncio.timeout(20), replay_rtsp(serialize_media(describe_rtp(track)), pieces) as url:
        times, heard, frames = await asyncio.to_thread(play, url)
    assert [time - times[0] for time in times] == [Fraction(u.pts - units[0].pts, 90_000) for u in units]
    assert b"".join(heard) == b"".join(s.data for s in sounds)
    assert frames == len(units)


@codecs
@pytest.mark.parametrize("sound_codec", [*AudioCodec, None])
def test_the_description_primes_a_receiver(codec: Codec, sound_codec: AudioCodec | None) -> None:
    track, _ = encode_clip(codec, 1)
    sound = encode_sound(sound_codec)[0] if sound_codec else None
    media = parse_sdp(described(msgspec.structs.replace(track, audio=sound)).encode()).media
    assert [m.control for m in media] == ["track0", "track1"][: 1 + bool(sound)]
    payload_type, _ = open_depacketizer(media[0])
    assert payload_type == 96
    if sound is not None:
        expected = {"aac": (97, 48_000), "pcma": (8, 8_000), "pcmu": (0, 8_000)}[sound.codec]
        (audio_type,) = media[1].formats
        assert (audio_type, media[1].rtpmap[audio_type].clock_rate) == expected
        if sound.codec is AudioCodec.AAC:
            assert media[1].fmtp[97]["config"] == sound.configuration.hex()


def test_a_sound_that_rtp_cannot_carry_is_not_described() -> None:
    track, _ = encode_clip(Codec.H264)
    unusable = AudioTrack(codec=AudioCodec.AAC, sample_rate=48_000, channels=2)
    assert describe_rtp(msgspec.structs.replace(track, audio=unusable)) == describe_rtp(track)
    with pytest.raises(ProtocolError):
        describe_rtp(msgspec.structs.replace(track, parameter_sets=track.parameter_sets[1:]))


def test_times_of_the_time_base_are_those_of_the_packets() -> None:
    track, _ = encode_clip(Codec.H264)
    sound, _ = encode_sound(AudioCodec.AAC)
    muxer = RtpMuxer(msgspec.structs.replace(track, audio=sound))
    late = AudioUnit(pts=10 * TIME_BASE_HZ, data=b"x" * 100, received_ns=0)
    (packet,) = packets_of(muxer.mux_audio(late).tail, channel=2)
    assert (packet.timestamp, packet.marker, packet.payload_type) == (480_000, True, 97)
    assert muxer.mux_audio(msgspec.structs.replace(late, data=bytes(8192))) is None
