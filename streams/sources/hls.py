"""HTTP Live Streaming as a client (RFC 8216): we fetch playlists and segments, the child sees only bytes.

MPEG-TS segments, and fragmented MP4 with an EXT-X-MAP. Everything must come from the playlist's own origin.
Not supported, each with an `UnsupportedError`: encrypted segments, byte ranges, more than one initialisation
segment in a playlist.
"""

import asyncio
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from streams.errors import (
    LimitExceededError,
    ProtocolError,
    SourceUnreachableError,
    UnsupportedError,
)
from streams.sources.origin import Origin, read_chunks, resolve_reference

MAX_PLAYLIST_BYTES = 1024 * 1024
MAX_PLAYLIST_SEGMENTS = 4096
MAX_VARIANTS = 64
MAX_SEGMENT_BYTES = 64 * 1024 * 1024
"""One minute at 8 Mbit/s."""
MAX_TARGET_DURATION_SECONDS = 60.0
MIN_RELOAD_SECONDS = 0.25
"""However short a playlist says its segments are, it is not asked for more often."""
START_SEGMENTS_FROM_END = 3
"""RFC 8216 §6.3.3: nearer to the end of a live playlist than three target durations playback may stall."""

RELOAD_PATIENCE = 1.5
"""RFC 8216 §6.2.2: a new segment is announced within this many target durations."""
_CONTENT_TYPES = frozenset(
    {"application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl"}
)

_ATTRIBUTE = re.compile(r'([A-Z0-9-]+)=("[^"\r\n]*"|[^",\s][^,]*)')
_DECIMAL = re.compile(r"[0-9]{1,20}(\.[0-9]{1,20})?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """`sequence`: the media sequence number. `map_uri`: of its initialisation segment, if it needs one."""

    sequence: int
    uri: str
    map_uri: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaPlaylist:
    segments: tuple[Segment, ...]
    target_duration_seconds: float
    is_ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class MultivariantPlaylist:
    """`variants`: URI references of media playlists, the highest bit rate first."""

    variants: tuple[str, ...]


class Sink(Protocol):
    """Where the container's bytes go; an `asyncio.StreamWriter` is one."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...


def is_playlist(url: str, content_type: str) -> bool:
    """Tell a playlist by its path or media type (RFC 8216 §4)."""
    return urlsplit(url).path.endswith((".m3u8", ".m3u")) or content_type.lower() in _CONTENT_TYPES


def parse_playlist(data: bytes) -> MediaPlaylist | MultivariantPlaylist:
    """Parse either kind of playlist (RFC 8216 §4.3). References stay relative.

    Raises `ProtocolError`, `LimitExceededError` or `UnsupportedError`.
    """
    if len(data) > MAX_PLAYLIST_BYTES:
        raise LimitExceededError(f"a playlist of more than {MAX_PLAYLIST_BYTES} bytes")
    try:
        lines = [line.strip() for line in data.decode().removeprefix("\ufeff").splitlines()]
    except UnicodeDecodeError as error:
        raise ProtocolError("the playlist is not UTF-8") from error
    if not lines or lines[0] != "#EXTM3U":
        raise ProtocolError("the playlist does not begin with #EXTM3U")
    lines = [line for line in lines if line]
    if any(line.startswith("#EXT-X-STREAM-INF") for line in lines):
        return _parse_multivariant(lines)
    return _parse_media(lines)


def _parse_multivariant(lines: list[str]) -> MultivariantPlaylist:
    variants: list[tuple[float, str]] = []
    bandwidth: float | None = None
    for line in lines:
        tag, _, value = line.partition(":")
        if tag == "#EXT-X-STREAM-INF":
            bandwidth = _decimal(_attributes(value).get("BANDWIDTH", "0"))
        elif not line.startswith("#") and bandwidth is not None:
            variants.append((bandwidth, line))
            bandwidth = None
    if not variants:
        raise ProtocolError("the playlist offers no variant")
    if len(variants) > MAX_VARIANTS:
        raise LimitExceededError(f"a playlist of more than {MAX_VARIANTS} variants")
    variants.sort(key=lambda variant: variant[0], reverse=True)
    return MultivariantPlaylist(variants=tuple(uri for _, uri in variants))


def _parse_media(lines: list[str]) -> MediaPlaylist:
    sequence = 0
    target_duration = math.nan
    map_uri: str | None = None
    segments: list[Segment] = []
    for line in lines:
        tag, _, value = line.partition(":")
        if tag == "#EXT-X-TARGETDURATION":
            target_duration = _decimal(value)
        elif tag == "#EXT-X-MEDIA-SEQUENCE":
            sequence = int(_decimal(value))
        elif tag == "#EXT-X-MAP":
            map_uri = _map_uri(value)
        elif tag in ("#EXT-X-KEY", "#EXT-X-SESSION-KEY"):
            if _attributes(value).get("METHOD") != "NONE":
                raise UnsupportedError("encrypted HLS is not supported")
        elif tag == "#EXT-X-BYTERANGE":
            raise UnsupportedError("HLS with byte ranges is not supported")
        elif not line.startswith("#"):
            if len(segments) == MAX_PLAYLIST_SEGMENTS:
                raise LimitExceededError(f"a playlist of more than {MAX_PLAYLIST_SEGMENTS} segments")
            segments.append(Segment(sequence=sequence + len(segments), uri=line, map_uri=map_uri))
    if math.isnan(target_duration):
        raise ProtocolError("the playlist lacks its target duration")
    if target_duration > MAX_TARGET_DURATION_SECONDS:
        raise LimitExceededError(f"HLS segments of {target_duration} s")
    return MediaPlaylist(
        segments=tuple(segments),
        target_duration_seconds=target_duration,
        is_ended="#EXT-X-ENDLIST" in lines,
    )


def _map_uri(value: str) -> str:
    attributes = _attributes(value)
    if "BYTERANGE" in attributes:
        raise UnsupportedError("HLS with byte ranges is not supported")
    if not attributes.get("URI"):
        raise ProtocolError("the playlist's EXT-X-MAP lacks its URI")
    return attributes["URI"]


def _attributes(value: str) -> dict[str, str]:
    """An attribute list (RFC 8216 §4.2), quotes removed."""
    return {name: text.strip('"') for name, text in _ATTRIBUTE.findall(value)}


def _decimal(value: str) -> float:
    number = value.strip()
    if not _DECIMAL.fullmatch(number):
        raise ProtocolError("the playlist holds a malformed number")
    return float(number)


async def open_playlist(origin: Origin, url: str, data: bytes) -> tuple[str, MediaPlaylist]:
    """Return the media playlist's URL and first state, following a multivariant playlist once."""
    playlist = parse_playlist(data)
    if isinstance(playlist, MultivariantPlaylist):
        url = resolve_reference(url, playlist.variants[0])
        playlist = parse_playlist(await origin.read(url, MAX_PLAYLIST_BYTES))
    if isinstance(playlist, MultivariantPlaylist):
        raise ProtocolError("a multivariant playlist leads to another one")
    return url, playlist


async def play(
    origin: Origin,
    url: str,
    playlist: MediaPlaylist,
    sink: Sink,
    *,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> None:
    """Write initialisation segment and segments to `sink`, in order, until the playlist ends.

    Raises `StreamError` as `Origin.get` does, and `SourceUnreachableError` when the playlist begins anew or
    changes its initialisation segment: opening it again is the cure.
    """
    current_map: str | None = None
    is_first = True
    async for segment in _segments(origin, url, playlist, sleep):
        if segment.map_uri is not None and segment.map_uri != current_map:
            if not is_first:
                raise SourceUnreachableError("the HLS initialisation segment changed")
            current_map = segment.map_uri
            await _copy(origin, resolve_reference(url, segment.map_uri), sink)
        is_first = False
        await _copy(origin, resolve_reference(url, segment.uri), sink)


async def _segments(
    origin: Origin, url: str, playlist: MediaPlaylist, sleep: Callable[[float], Awaitable[None]]
) -> AsyncIterator[Segment]:
    """Yield each segment once, reloading as RFC 8216 §6.3.4 says."""
    loop = asyncio.get_running_loop()
    loaded_at = loop.time()
    start = 0 if playlist.is_ended else max(len(playlist.segments) - START_SEGMENTS_FROM_END, 0)
    upcoming = playlist.segments[start].sequence if playlist.segments else 0
    while True:
        changed = False
        for segment in playlist.segments:
            if segment.sequence >= upcoming:
                changed = True
                upcoming = segment.sequence + 1
                yield segment
        if playlist.is_ended:
            return
        wait = playlist.target_duration_seconds * (1.0 if changed else 0.5)
        await sleep(max(loaded_at + max(wait, MIN_RELOAD_SECONDS) - loop.time(), 0.0))
        loaded_at = loop.time()
        reloaded = parse_playlist(await origin.read(url, MAX_PLAYLIST_BYTES))
        if isinstance(reloaded, MultivariantPlaylist):
            raise ProtocolError("a media playlist turned into a multivariant one")
        if reloaded.segments and reloaded.segments[-1].sequence + 1 < upcoming:
            raise SourceUnreachableError("the HLS playlist began anew")
        playlist = reloaded


async def _copy(origin: Origin, url: str, sink: Sink) -> None:
    copied = 0
    async with origin.get(url) as response:
        async for chunk in read_chunks(response):
            copied += len(chunk)
            if copied > MAX_SEGMENT_BYTES:
                raise LimitExceededError(f"an HLS segment of more than {MAX_SEGMENT_BYTES} bytes")
            sink.write(chunk)
            await sink.drain()
