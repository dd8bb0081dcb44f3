"""What RTSP viewers and encoders send to a relay worker, beside the messages themselves."""

from contextlib import suppress

from fuzz.targets import target

from gateway.relay.rtsp_login import Nonces
from gateway.relay.rtsp_publisher import announced_tracks
from streams.errors import StreamError
from streams.wire.rtsp import parse_transport_offers


@target(
    "rtsp-transport-offers",
    b"RTP/AVP;unicast;client_port=5000-5001;mode=record,RTP/AVP/TCP;unicast;interleaved=0-1",
    b'RTP/AVP/UDP;multicast;mode="PLAY"',
)
def transport_offers(data: bytes) -> None:
    parse_transport_offers(data.decode("latin-1"))


@target(
    "rtsp-announcement",
    b"v=0\r\ns=-\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:streamid=0\r\n"
    b"m=audio 0 RTP/AVP 8\r\na=control:streamid=1\r\n",
)
def announcement(data: bytes) -> None:
    with suppress(StreamError):
        announced_tracks(data)


@target("rtsp-nonce", b"0123456789abcdef" * 3, b"0" * 47 + "é".encode())
def nonce(data: bytes) -> None:
    Nonces(bytes(32), clock=lambda: 1.0).use(data.decode("latin-1"))
