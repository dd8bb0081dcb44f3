"""RTSP messages, their headers and session descriptions, as a camera or a client sends them."""

from contextlib import suppress

from fuzz.targets import target

from streams.errors import ProtocolError, StreamError
from streams.sources.rtsp_url import control_url
from streams.wire.depacketizer import open_depacketizer
from streams.wire.digest import parse_authorization, parse_challenges
from streams.wire.rtsp import RtspParser, parse_session, parse_transport
from streams.wire.sdp import parse_sdp

DESCRIPTION = (
    b"v=0\r\no=- 0 0 IN IP4 10.0.0.1\r\ns=gate\r\na=control:*\r\nm=video 0 RTP/AVP 96\r\n"
    b"a=rtpmap:96 H264/90000\r\na=control:trackID=0\r\n"
    b"a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z0LAHtkDxWhAAAADAEAAAAwDxYuS,aMuMsg==\r\n"
    b"m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/16000/1\r\n"
    b"a=fmtp:97 streamtype=5; mode=AAC-hbr; config=1408; sizeLength=13; indexLength=3; indexDeltaLength=3\r\n"
)


@target(
    "rtsp",
    b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Type: application/sdp\r\nContent-Length: 5\r\n\r\nv=0\r\n",
    b"\r\nDESCRIBE rtsp://camera/live RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x00\x00\x04abcd",
)
def rtsp(data: bytes) -> None:
    with suppress(ProtocolError):
        list(RtspParser().receive_data(data))


@target(
    "rtsp-transport",
    b"RTP/AVP/TCP;unicast;interleaved=0-1",
    b"RTP/AVP;unicast;client_port=5000-5001;server_port=6970-6971",
)
def transport(data: bytes) -> None:
    with suppress(ProtocolError):
        parse_transport(data.decode("latin-1"))


@target("rtsp-session", b"12345678;timeout=60")
def session(data: bytes) -> None:
    with suppress(ProtocolError):
        parse_session(data.decode("latin-1"))


@target("rtsp-control-url", b"rtsp://10.0.0.9:554/live/trackID=1?x=y", b"trackID=0")
def control(data: bytes) -> None:
    with suppress(ProtocolError):
        control_url("rtsp://camera/live", data.decode("latin-1"), "rtsp://camera/live")


@target("sdp", DESCRIPTION)
def sdp(data: bytes) -> None:
    with suppress(StreamError):
        for media in parse_sdp(data).media:
            with suppress(StreamError):
                open_depacketizer(media)


@target("digest-challenge", b'Digest realm="r", nonce="n", algorithm=SHA-256, qop="auth", Basic realm="x"')
def challenge(data: bytes) -> None:
    with suppress(ProtocolError):
        parse_challenges([data.decode("latin-1")])


@target("digest-authorization", b'Digest username="u", realm="r", nonce="n", uri="/x", response="0f"')
def authorization(data: bytes) -> None:
    with suppress(ProtocolError):
        parse_authorization(data.decode("latin-1"))
