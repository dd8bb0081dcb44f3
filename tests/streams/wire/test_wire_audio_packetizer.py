"""Sound in RTP: payload formats, their limits, and the clock that keeps units adjacent."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip, encode_sound, synthetic_unit

from streams.errors import LimitExceededError, StreamError, UnsupportedError
from streams.media import (
    MAX_AUDIO_CHANNELS,
    MAX_AUDIO_CONFIGURATION_BYTES,
    MAX_SAMPLE_RATE_HZ,
    TIME_BASE_HZ,
    AudioCodec,
    AudioTrack,
    AudioUnit,
    Codec,
)
from streams.wire.aac import parse_audio_specific_config
from streams.wire.audio_packetizer import (
    MAX_AAC_UNIT_BYTES,
    AudioPacketizer,
    AudioPayloadFormat,
    audio_rtp_format,
)
from streams.wire.packetizer import Packetizer, RtpSender
from streams.wire.rtp import parse_rtp
from streams.wire.sample_clock import SampleClock

AAC_LC_48K_STEREO = b"\x11\x90"
SENDER = RtpSender(payload_type=97, ssrc=7, first_sequence_number=65535, timestamp_offset=2**32 - 1000)


def aac(configuration: bytes = AAC_LC_48K_STEREO) -> AudioTrack:
    return AudioTrack(codec=AudioCodec.AAC, sample_rate=48_000, channels=2, configuration=configuration)


def g711(codec: AudioCodec = AudioCodec.PCMA, sample_rate: int = 8_000, channels: int = 1) -> AudioTrack:
    return AudioTrack(codec=codec, sample_rate=sample_rate, channels=channels)


def unit(data: bytes, pts: int = 0) -> AudioUnit:
    return AudioUnit(pts=pts, data=data, received_ns=0)


@given(st.integers(1, MAX_AAC_UNIT_BYTES), st.integers(5, 1400))
def test_aac_units_come_back_from_their_fragments(size: int, max_payload_bytes: int) -> None:
    data = bytes(index % 251 for index in range(size))
    payloads = list(AudioPayloadFormat(aac(), max_payload_bytes).payloads(unit(data)))
    assert all(len(p.header) + len(p.body) <= max_payload_bytes for p in payloads)
    assert b"".join(p.body for p in payloads) == data
    assert [p.marker for p in payloads] == [False] * (len(payloads) - 1) + [True]
    assert {p.header for p in payloads} == {b"\x00\x10" + (size << 3).to_bytes(2)}
    assert {p.timestamp for p in payloads} == {0}


def test_an_aac_unit_has_at_most_13_bits_of_size() -> None:
    payloads = AudioPayloadFormat(aac()).payloads
    assert sum(len(p.body) for p in payloads(unit(bytes(MAX_AAC_UNIT_BYTES)))) == MAX_AAC_UNIT_BYTES
    assert list(payloads(unit(bytes(MAX_AAC_UNIT_BYTES + 1)))) == []


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_g711_is_cut_between_samples(channels: int) -> None:
    data = bytes(4000 * channels)
    sound = g711(AudioCodec.PCMU, channels=channels)
    payloads = list(AudioPayloadFormat(sound).payloads(unit(data, TIME_BASE_HZ)))
    assert b"".join(p.body for p in payloads) == data
    assert all(len(p.body) <= 1400 and len(p.body) % channels == 0 for p in payloads)
    time = 8_000
    for payload in payloads:
        assert (payload.timestamp, payload.marker, payload.header) == (time, False, b"")
        time += len(payload.body) // channels


def test_packets_are_numbered_and_timed_from_the_senders_start() -> None:
    packetizer = AudioPacketizer(aac(), SENDER)
    packets = [parse_rtp(p) for p in packetizer.packetize(unit(bytes(3000), 1920))]
    assert [p.sequence_number for p in packets] == [65535, 0, 1]
    assert {p.timestamp for p in packets} == {24}
    assert {(p.payload_type, p.ssrc) for p in packets} == {(97, 7)}


@pytest.mark.parametrize(
    ("audio", "payload_type", "encoding"),
    [
        (g711(), 8, "PCMA"),
        (g711(AudioCodec.PCMU), 0, "PCMU"),
        (g711(sample_rate=16_000), 97, "PCMA"),
        (g711(channels=2), 97, "PCMA"),
        (aac(), 97, "mpeg4-generic"),
    ],
)
def test_static_payload_types_are_for_8_khz_mono(audio: AudioTrack, payload_type: int, encoding: str) -> None:
    described = audio_rtp_format(audio)
    assert (described.payload_type, described.encoding) == (payload_type, encoding)


@pytest.mark.parametrize(
    "audio",
    [
        g711(channels=0),
        g711(channels=MAX_AUDIO_CHANNELS + 1),
        g711(sample_rate=0),
        g711(sample_rate=MAX_SAMPLE_RATE_HZ + 1),
    ],
)
def test_what_no_receiver_could_play(audio: AudioTrack) -> None:
    with pytest.raises(UnsupportedError):
        audio_rtp_format(audio)


@pytest.mark.parametrize(
    ("configuration", "expected"),
    [
        (AAC_LC_48K_STEREO, (2, 48_000, 1024)),
        (b"\x11\x94", (2, 48_000, 960)),
        (b"\x17\x80\x5d\xc0\x08", (2, 48_000, 1024)),  # the rate in 24 bits
        (b"\x2b\x09\x88\x00", (5, 24_000, 1024)),  # HE-AAC, 48 kHz after SBR
    ],
)
def test_audio_specific_config(configuration: bytes, expected: tuple[int, int, int]) -> None:
    found = parse_audio_specific_config(configuration)
    assert (found.object_type, found.sample_rate, found.samples_per_unit) == expected


@pytest.mark.parametrize("sample_rate", [8_000, 16_000, 44_100, 48_000, 96_000])
def test_the_config_of_ffmpegs_encoder(sample_rate: int) -> None:
    sound, _ = encode_sound(AudioCodec.AAC, 0.2, sample_rate=sample_rate)
    found = parse_audio_specific_config(sound.configuration)
    assert (found.object_type, found.sample_rate, found.samples_per_unit) == (2, sample_rate, 1024)


def test_audio_specific_config_limits() -> None:
    longest = AAC_LC_48K_STEREO.ljust(MAX_AUDIO_CONFIGURATION_BYTES, b"\0")
    assert parse_audio_specific_config(longest).sample_rate == 48_000
    with pytest.raises(LimitExceededError):
        parse_audio_specific_config(longest + b"\0")
    with pytest.raises(UnsupportedError):
        parse_audio_specific_config(b"\xb9\x90\x00")  # ER AAC LD


@given(st.binary(max_size=80))
def test_only_our_error_escapes(configuration: bytes) -> None:
    with suppress(StreamError):
        parse_audio_specific_config(configuration)


@given(st.sampled_from([44_100, 48_000, 8_000]), st.lists(st.integers(-90, 90), max_size=50))
def test_rounded_times_leave_no_gap(sample_rate: int, errors: list[int]) -> None:
    clock = SampleClock(sample_rate)
    first = clock.advance(TIME_BASE_HZ, 1024)
    for number, error in enumerate(errors, start=1):
        exact = TIME_BASE_HZ + number * 1024 * TIME_BASE_HZ // sample_rate
        assert clock.advance(exact + error, 1024) == first + number * 1024


def test_a_real_gap_stays_one() -> None:
    clock = SampleClock(48_000)
    assert clock.advance(0, 1024) == 0
    assert clock.advance(TIME_BASE_HZ, 1024) == 48_000
    assert clock.advance(0, 1024) == 0


@pytest.mark.parametrize("codec", list(Codec))
def test_nal_units_without_a_header_are_left_out(codec: Codec) -> None:
    _, (coded, *_) = encode_clip(codec, 1)
    too_short = {Codec.H264: b"", Codec.H265: b"\x02"}[codec]
    broken = synthetic_unit(0, nal_units=(too_short, *coded.nal_units))
    whole = synthetic_unit(0, nal_units=coded.nal_units)
    assert Packetizer(codec, SENDER).packetize(broken) == Packetizer(codec, SENDER).packetize(whole)
