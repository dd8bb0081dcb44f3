"""RTMP publishers: chunks, commands, and the media in them."""

import contextlib

from fuzz.targets import target

from streams.errors import StreamError
from streams.sources.rtmp_media import RtmpMedia
from streams.wire.amf0 import parse_amf0, serialize_amf0
from streams.wire.rtmp import HANDSHAKE_BYTES, RtmpParser, serialize_message

_HELLO = b"\x03" + bytes(HANDSHAKE_BYTES) * 2


class _Nobody:
    def configure(self, track):
        pass

    def publish(self, unit):
        pass

    def publish_audio(self, unit):
        pass


@target("amf0", serialize_amf0("connect", 1.0, {"app": "publish", "flashVer": "x"}))
def fuzz_amf0(data: bytes) -> None:
    with contextlib.suppress(StreamError):
        parse_amf0(data)


@target("rtmp-chunks", serialize_message(20, b"x" * 300), serialize_message(9, b"\x17\x01" + bytes(50)))
def fuzz_chunks(data: bytes) -> None:
    parser = RtmpParser()
    try:
        for piece in (_HELLO, data):
            list(parser.receive_data(piece))
    except StreamError:
        pass


@target("rtmp-media", b"\x17\x00\x00\x00\x00\x01\x42\xc0\x1e\xff\xe1", b"\xaf\x00\x12\x10", b"\x90hvc1\x01")
def fuzz_media(data: bytes) -> None:
    media = RtmpMedia(_Nobody())
    for take in (media.video, media.audio):
        with contextlib.suppress(StreamError):
            take(data, 0, 1)
