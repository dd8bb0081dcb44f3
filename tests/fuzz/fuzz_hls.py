"""Playlists of cameras that are pulled over HTTP Live Streaming."""

import contextlib

from fuzz.targets import target

from streams.errors import StreamError
from streams.sources.hls import parse_playlist

_MEDIA = b"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:2.0,\nsegment-7.ts\n"
_VARIANTS = b'#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1000000,CODECS="avc1.42c01e"\nlive.m3u8\n'


@target("hls-playlist", _MEDIA, _VARIANTS)
def fuzz_playlist(data: bytes) -> None:
    with contextlib.suppress(StreamError):
        parse_playlist(data)
