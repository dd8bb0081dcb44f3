import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import UnsupportedError
from streams.media import MAX_AUDIO_CHANNELS, MAX_SAMPLE_RATE_HZ, AudioCodec, AudioTrack, AudioUnit
from streams.wire.audio_depacketizer import MAX_UNITS_PER_PACKET, open_audio_depacketizer
from streams.wire.audio_packetizer import AudioPacketizer, audio_rtp_format
from streams.wire.packetizer import RtpSender
from streams.wire.rtp import RtpPacket, parse_rtp
from streams.wire.sdp import MediaDescription, RtpMap

AAC = AudioTrack(codec=AudioCodec.AAC, sample_rate=16_000, channels=1, configuration=bytes.fromhex("1408"))
PCMA = AudioTrack(codec=AudioCodec.PCMA, sample_rate=8_000, channels=1)
PCMU = AudioTrack(codec=AudioCodec.PCMU, sample_rate=16_000, channels=2)
HBR = {"sizelength": "13", "indexlength": "3", "indexdeltalength": "3", "mode": "AAC-hbr", "config": "1408"}


def described(track):
    sound = audio_rtp_format(track)
    return MediaDescription(
        kind="audio",
        formats=(sound.payload_type,),
        rtpmap={
            sound.payload_type: RtpMap(
                encoding=sound.encoding.upper(), clock_rate=sound.clock_rate, channels=sound.channels
            )
        },
        fmtp={sound.payload_type: sound.parameters},
    )


def aac(**parameters):
    return MediaDescription(
        kind="audio",
        formats=(97,),
        rtpmap={97: RtpMap(encoding="MPEG4-GENERIC", clock_rate=16_000)},
        fmtp={97: HBR | parameters},
    )


def rtp(payload, number=0, timestamp=0, *, marker=True, ssrc=7):
    return RtpPacket(97, marker, number, timestamp, ssrc, payload)


def units_of(*sizes):
    """One packet's payload with access units of these sizes, and the units."""
    headers = b"".join((size << 3).to_bytes(2, "big") for size in sizes)
    units = [bytes((65 + index,)) * size for index, size in enumerate(sizes)]
    return (16 * len(sizes)).to_bytes(2, "big") + headers + b"".join(units), units


@pytest.mark.parametrize("track", [AAC, PCMA, PCMU])
@given(st.lists(st.binary(min_size=2, max_size=500), min_size=1, max_size=5), st.integers(8, 1400))
def test_depacketize_inverts_packetize(track, sounds, max_payload_bytes):
    sounds = [sound[: len(sound) // 2 * 2] for sound in sounds]
    payload_type, depacketizer = open_audio_depacketizer(described(track))
    assert depacketizer.track == track
    sender = RtpSender(
        payload_type=payload_type, ssrc=7, first_sequence_number=65534, timestamp_offset=2**32 - 1
    )
    packetizer = AudioPacketizer(track, sender, max_payload_bytes)
    received = []
    for number, sound in enumerate(sounds):
        for data in packetizer.packetize(AudioUnit(pts=number * 5760, data=sound, received_ns=0)):
            received += depacketizer.receive(parse_rtp(data))
    assert depacketizer.lost_packets == depacketizer.malformed_payloads == 0
    if track is AAC:
        assert [data for _, data in received] == sounds
        assert received[0][0] == 2**32 - 1
    else:
        assert b"".join(data for _, data in received) == b"".join(sounds)


def test_several_access_units_in_a_packet_have_their_own_times():
    _, depacketizer = open_audio_depacketizer(aac())
    payload, units = units_of(5, 6, 7)
    assert depacketizer.receive(rtp(payload, timestamp=2**32 - 1024)) == [
        (2**32 - 1024, units[0]),
        (0, units[1]),
        (1024, units[2]),
    ]


def test_static_payload_types_need_no_description():
    payload_type, depacketizer = open_audio_depacketizer(MediaDescription(kind="audio", formats=(8,)))
    assert (payload_type, depacketizer.track) == (8, PCMA)


def test_high_efficiency_aac_counts_in_its_output_rate():
    media = MediaDescription(
        kind="audio",
        formats=(97,),
        rtpmap={97: RtpMap(encoding="MPEG4-GENERIC", clock_rate=48_000)},
        fmtp={97: HBR | {"config": "2B098800"}},
    )
    _, depacketizer = open_audio_depacketizer(media)
    payload, units = units_of(4, 4)
    assert depacketizer.receive(rtp(payload)) == [(0, units[0]), (2048, units[1])]


@pytest.mark.parametrize(
    "media",
    [
        MediaDescription(kind="audio"),
        MediaDescription(kind="audio", formats=(98,)),
        MediaDescription(
            kind="audio", formats=(98,), rtpmap={98: RtpMap(encoding="OPUS", clock_rate=48_000)}
        ),
        MediaDescription(
            kind="audio",
            formats=(98,),
            rtpmap={98: RtpMap(encoding="PCMA", clock_rate=8_000, channels=MAX_AUDIO_CHANNELS + 1)},
        ),
        MediaDescription(
            kind="audio",
            formats=(98,),
            rtpmap={98: RtpMap(encoding="PCMU", clock_rate=MAX_SAMPLE_RATE_HZ + 1)},
        ),
        aac(config=""),
        aac(config="xyz"),
        aac(config="1400"),  # no channels
        aac(config="14" * 100),
        aac(sizelength="99"),
        aac(sizelength="0"),
        aac(sizelength="many"),
        aac(ctsdeltalength="5"),
    ],
)
def test_sound_that_we_cannot_take(media):
    with pytest.raises(UnsupportedError):
        open_audio_depacketizer(media)


@pytest.mark.parametrize(
    "payload",
    [
        b"\x00",
        b"\x00\x10",
        b"\x00\x00abc",
        b"\x00\x10\x00\x00abc",  # an empty access unit
        b"\x00\x10\x00\x19abc",  # an index other than 0: interleaved
        b"\x00\x20\x00\x18\x00\x20abc",  # the second of two is cut off
        units_of(*[1] * (MAX_UNITS_PER_PACKET + 1))[0],
    ],
)
def test_malformed_aac_is_counted_and_left_out(payload):
    _, depacketizer = open_audio_depacketizer(aac())
    assert depacketizer.receive(rtp(payload)) == []
    assert depacketizer.malformed_payloads == 1
    whole, units = units_of(*[1] * MAX_UNITS_PER_PACKET)
    assert [data for _, data in depacketizer.receive(rtp(whole, 1))] == units


def test_an_access_unit_with_a_lost_fragment_is_left_out():
    _, depacketizer = open_audio_depacketizer(aac())
    header = b"\x00\x10" + (6 << 3).to_bytes(2, "big")
    assert depacketizer.receive(rtp(header + b"abc", 0, marker=False)) == []
    assert depacketizer.receive(rtp(header + b"f", 2)) == []
    assert depacketizer.receive(rtp(header + b"ABC", 3, 1024, marker=False)) == []
    assert depacketizer.receive(rtp(header + b"DEF", 4, 1024)) == [(1024, b"ABCDEF")]
    assert depacketizer.lost_packets == 1


def test_late_and_doubled_packets_are_left_out_and_a_new_source_is_followed():
    _, depacketizer = open_audio_depacketizer(MediaDescription(kind="audio", formats=(0,)))
    assert depacketizer.receive(rtp(b"a", 5)) == [(0, b"a")]
    assert depacketizer.receive(rtp(b"a", 5)) == depacketizer.receive(rtp(b"b", 4)) == []
    assert depacketizer.receive(rtp(b"c", 900, ssrc=8)) == [(0, b"c")]


@given(
    st.lists(
        st.tuples(
            st.binary(max_size=40) | st.sampled_from([units_of(3)[0], b"\x00\x10\x00\x80ab"]),
            st.integers(0, 3),
            st.integers(0, 1),
            st.integers(0, 1),
        )
    )
)
def test_nothing_escapes(packets):
    _, depacketizer = open_audio_depacketizer(aac())
    for payload, number, timestamp, ssrc in packets:
        for _, data in depacketizer.receive(rtp(payload, number, timestamp, ssrc=ssrc)):
            assert data


@pytest.mark.parametrize(("ssrc", "lost"), [(7, 0), (8, 1)])
def test_empty_packets_hold_their_place_in_the_sequence(ssrc, lost):
    _, depacketizer = open_audio_depacketizer(aac())
    payload, (unit,) = units_of(10)
    assert depacketizer.receive(rtp(payload[:9], 0)) == []
    assert depacketizer.receive(rtp(b"", 1, ssrc=ssrc)) == []
    assert [data for _, data in depacketizer.receive(rtp(payload[:4] + payload[9:], 2))] == [unit][lost:]
    assert depacketizer.lost_packets == lost
