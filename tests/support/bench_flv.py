"""What an HTTP-FLV server answers, up to and beyond its first keyframe, for the benchmark's viewers."""

from support.units import encode_clip

from gateway.bench.clip import Clip
from streams.media import Codec

_TAG_HEADER_BYTES = 11


def small_clip(gops=2) -> Clip:
    """GOPs of 50 pictures, 320x240."""
    track, units = encode_clip(Codec.H264, 50 * gops, gop=50)
    return Clip(track=track, units=list(units))


def tag(body: bytes, kind: int = 9) -> bytes:
    return (
        bytes((kind,)) + len(body).to_bytes(3) + bytes(7) + body + (_TAG_HEADER_BYTES + len(body)).to_bytes(4)
    )


def answer(*tags: bytes, chunk_bytes: int | None = None, status: str = "200 OK") -> bytes:
    """An HTTP answer with these tags behind an FLV header; in chunks of `chunk_bytes`, or as it is."""
    content = b"FLV\x01\x01\x00\x00\x00\x09" + bytes(4) + b"".join(tags)
    head = f"HTTP/1.1 {status}\r\nContent-Type: video/x-flv\r\n"
    if chunk_bytes is None:
        return head.encode() + b"\r\n" + content
    pieces = [content[start : start + chunk_bytes] for start in range(0, len(content), chunk_bytes)]
    chunks = b"".join(b"%X;x=y\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    return head.encode() + b"Transfer-Encoding: Chunked\r\n\r\n" + chunks
