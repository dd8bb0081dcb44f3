import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.errors import LimitExceededError, ProtocolError
from streams.wire.sdp import (
    MAX_ATTRIBUTES,
    MAX_FORMATS,
    MAX_LINE_BYTES,
    MAX_MEDIA_DESCRIPTIONS,
    MediaDescription,
    RtpMap,
    SessionDescription,
    decode_sprop,
    encode_sprop,
    parse_sdp,
    serialize_sdp,
)

WORDS = st.text(st.sampled_from("abcxyz019-/:"), min_size=1, max_size=12)
PAYLOAD_TYPES = st.integers(0, 127)
MEDIA = st.builds(
    MediaDescription,
    kind=st.sampled_from(["video", "audio", "application"]),
    formats=st.lists(PAYLOAD_TYPES, min_size=1, max_size=3).map(tuple),
    rtpmap=st.dictionaries(
        PAYLOAD_TYPES,
        st.builds(RtpMap, encoding=st.sampled_from(["H264", "H265"]), clock_rate=st.integers(1, 90000)),
        max_size=2,
    ),
    fmtp=st.dictionaries(
        PAYLOAD_TYPES,
        st.dictionaries(st.sampled_from(["sprop-vps", "mode"]), WORDS, min_size=1),
        max_size=2,
    ),
    control=st.none() | WORDS,
)
DESCRIPTIONS = st.builds(
    SessionDescription, name=WORDS, control=st.none() | WORDS, media=st.lists(MEDIA, max_size=3).map(tuple)
)

HIKVISION = b"""v=0\r
o=- 1109162014219182 1109162014219192 IN IP4 x.y.z.w\r
s=Media Presentation\r
e=NONE\r
b=AS:5100\r
t=0 0\r
a=control:rtsp://10.0.0.2:554/Streaming/Channels/101/\r
m=video 0 RTP/AVP 96\r
c=IN IP4 0.0.0.0\r
b=AS:5000\r
a=recvonly\r
a=x-dimensions:1920,1080\r
a=control:rtsp://10.0.0.2:554/Streaming/Channels/101/trackID=1\r
a=rtpmap:96 H264/90000\r
a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z00AKp2oHgCJ+WbgICAgQA==,aO48gA==\r
m=audio 0 RTP/AVP 0\r
a=control:rtsp://10.0.0.2:554/Streaming/Channels/101/trackID=2\r
a=rtpmap:0 PCMU/8000\r
a=Media_header:MEDIAINFO=494D4B4801;\r
"""


@given(DESCRIPTIONS)
def test_parse_inverts_serialize(description):
    assert parse_sdp(serialize_sdp(description, "127.0.0.1")) == description


@pytest.mark.parametrize("line_end", [b"\r\n", b"\n", b"\r"])
def test_a_camera_of_the_field(line_end):
    """After the form that Hikvision firmware 5.x sends: absolute controls, vendor attributes."""
    description = parse_sdp(HIKVISION.replace(b"\r\n", line_end))
    video, audio = description.media
    assert description.control == "rtsp://10.0.0.2:554/Streaming/Channels/101/"
    assert (video.kind, video.formats) == ("video", (96,))
    assert video.control.endswith("trackID=1")
    assert video.rtpmap == {96: RtpMap(encoding="H264", clock_rate=90000)}
    assert video.fmtp[96]["packetization-mode"] == "1"
    sps, pps = decode_sprop(video.fmtp[96]["sprop-parameter-sets"])
    assert (sps[0] & 0x1F, pps[0] & 0x1F) == (7, 8)
    assert audio.rtpmap[0].encoding == "PCMU"


@given(
    st.binary(max_size=300) | st.lists(st.sampled_from(HIKVISION.splitlines()), max_size=12).map(b"\n".join)
)
def test_only_our_error_escapes(data):
    for sdp in (data, b"v=0\n" + data):
        try:
            parse_sdp(sdp)
        except ProtocolError:
            continue


@pytest.mark.parametrize("data", [b"", b"\r\n\r\n", b"<html>", b"m=video 0 RTP/AVP 96", b"v=0\nm=video"])
def test_what_is_no_description(data):
    with pytest.raises(ProtocolError):
        parse_sdp(data)


@pytest.mark.parametrize(
    "body",
    [
        lambda extra: b"a=" + b"x" * (MAX_LINE_BYTES - 2 + extra),
        lambda extra: b"m=video 0 RTP/AVP 96\n" * (MAX_MEDIA_DESCRIPTIONS + extra),
        lambda extra: b"a=x\n" * (MAX_ATTRIBUTES + extra),
        lambda extra: b"m=video 0 RTP/AVP" + b" 96" * (MAX_FORMATS + extra),
    ],
)
def test_limits(body):
    parse_sdp(b"v=0\n" + body(0))
    with pytest.raises(LimitExceededError):
        parse_sdp(b"v=0\n" + body(1))


def test_unreadable_attributes_are_left_out():
    sdp = b"v=0\nm=video 0 RTP/AVP 96 128 x\na=rtpmap:96 H264/fast\na=rtpmap:x H264/1\na=fmtp:999 a=b\n"
    (media,) = parse_sdp(sdp).media
    assert (media.formats, media.rtpmap, media.fmtp) == ((96,), {}, {})


@given(st.lists(st.binary(min_size=1), min_size=1))
def test_sprop_round_trip(nal_units):
    assert decode_sprop(encode_sprop(*nal_units)) == nal_units


def test_careless_sprop():
    assert decode_sprop("Z00AKp2o, aO48gA ,!!,,é") == [b"g\x4d\x00\x2a\x9d\xa8", b"\x68\xee\x3c\x80"]
