"""HLS: playlists, and whole streams from a real HTTP server."""

import asyncio
import ipaddress
from itertools import pairwise

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st
from support.http_media import Canary, Recorder, make_hls_segments, send_and_stay, serve

from streams.errors import (
    LimitExceededError,
    ProtocolError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.sources import hls
from streams.sources.egress import EgressSettings
from streams.sources.hls import MediaPlaylist, MultivariantPlaylist, Segment, parse_playlist
from streams.sources.origin import open_origin
from streams.sources.pyav import PyavSettings, PyavSource
from streams.sources.source import CameraAddress

EGRESS = EgressSettings(allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),))
HEAD = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n"


def parse(text):
    return parse_playlist(text.encode())


def live_playlist(first, uris, *, ended=False, head=HEAD):
    lines = "".join(f"#EXTINF:1.0,\n{uri}\n" for uri in uris)
    return f"{head}#EXT-X-MEDIA-SEQUENCE:{first}\n{lines}" + ("#EXT-X-ENDLIST\n" if ended else "")


def test_a_live_playlist():
    playlist = parse(
        "\ufeff#EXTM3U\r\n#EXT-X-VERSION:7\r\n#EXT-X-TARGETDURATION:4\r\n#EXT-X-MEDIA-SEQUENCE:17\r\n"
        '#EXT-X-KEY:METHOD=NONE\r\n#EXT-X-MAP:URI="init,1.mp4"\r\n\r\n# a comment\r\n'
        "#EXTINF:4.0,\r\na.m4s\r\n#EXT-X-DISCONTINUITY\r\n#EXTINF:3.2,title\r\nhttp://h/b.m4s\r\n"
    )
    assert playlist == MediaPlaylist(
        segments=(
            Segment(sequence=17, uri="a.m4s", map_uri="init,1.mp4"),
            Segment(sequence=18, uri="http://h/b.m4s", map_uri="init,1.mp4"),
        ),
        target_duration_seconds=4.0,
        is_ended=False,
    )


def test_the_best_variant_comes_first():
    playlist = parse(
        '#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=100,CODECS="avc1,mp4a"\nlow.m3u8\n'
        "#EXT-X-STREAM-INF:AVERAGE-BANDWIDTH=1,BANDWIDTH=900\nhigh.m3u8\n"
        '#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH=999,URI="i.m3u8"\n'
    )
    assert playlist == MultivariantPlaylist(variants=("high.m3u8", "low.m3u8"))


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", ProtocolError),
        ("#EXTINF:1,\na.ts\n", ProtocolError),
        ("#EXTM3U\n#EXTINF:1,\na.ts\n", ProtocolError),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:x\n", ProtocolError),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:-1\n", ProtocolError),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:nan\n", ProtocolError),
        ("#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n", ProtocolError),
        (HEAD + "#EXT-X-MEDIA-SEQUENCE:-5\n", ProtocolError),
        (HEAD + "#EXT-X-MEDIA-SEQUENCE:" + "9" * 21, ProtocolError),
        (HEAD + "#EXT-X-MAP:X=1\n", ProtocolError),
        (HEAD + '#EXT-X-MAP:URI="a",BYTERANGE="1@0"\n', UnsupportedError),
        (HEAD + "#EXT-X-BYTERANGE:100@0\na.ts\n", UnsupportedError),
        (HEAD + '#EXT-X-KEY:METHOD=AES-128,URI="k"\na.ts\n', UnsupportedError),
        (HEAD + '#EXT-X-KEY:METHOD=SAMPLE-AES,URI="k"\na.ts\n', UnsupportedError),
        (HEAD + "#EXT-X-KEY:\na.ts\n", UnsupportedError),
    ],
)
def test_playlists_that_are_refused(text, error):
    with pytest.raises(error):
        parse(text)


@pytest.mark.parametrize(
    ("at_limit", "beyond"),
    [
        (HEAD + "a\n" * hls.MAX_PLAYLIST_SEGMENTS, HEAD + "a\n" * (hls.MAX_PLAYLIST_SEGMENTS + 1)),
        (HEAD + "\n" * (hls.MAX_PLAYLIST_BYTES - len(HEAD)), HEAD + "\n" * hls.MAX_PLAYLIST_BYTES),
        ("#EXTM3U\n#EXT-X-TARGETDURATION:60", "#EXTM3U\n#EXT-X-TARGETDURATION:60.1"),
        *[
            tuple(
                "#EXTM3U\n" + "#EXT-X-STREAM-INF:BANDWIDTH=1\na\n" * (hls.MAX_VARIANTS + more)
                for more in (0, 1)
            ),
        ],
    ],
    ids=["segments", "bytes", "duration", "variants"],
)
def test_limits_of_a_playlist(at_limit, beyond):
    parse(at_limit)
    with pytest.raises(LimitExceededError):
        parse(beyond)


def test_a_control_character_beside_a_number_is_no_bug_of_ours():
    assert parse("#EXTM3U\n#EXT-X-TARGETDURATION:\x1f2\n").target_duration_seconds == 2


LINES = st.sampled_from(
    [
        "#EXT-X-TARGETDURATION:",
        "#EXT-X-MEDIA-SEQUENCE:",
        "#EXT-X-MAP:",
        "#EXT-X-KEY:",
        "#EXT-X-STREAM-INF:",
        "#",
        "",
    ]
)


@given(st.lists(st.tuples(LINES, st.text(max_size=12))), st.binary(max_size=40))
def test_only_our_own_error_escapes(lines, data):
    for playlist in (data, b"#EXTM3U\n" + data, ("#EXTM3U\n" + "\n".join(a + b for a, b in lines)).encode()):
        try:
            parse_playlist(playlist)
        except StreamError:
            continue


class Camera:
    """A live HLS server whose window slides by one segment with each reload."""

    def __init__(self, segments, *, window=3, total=None, **playlist):
        self.segments = segments
        self.window = window
        self.total = total or len(segments)
        self.reloads = 0
        self.requests = []
        self.playlist = playlist

    async def __call__(self, request):
        name = request.path.removeprefix("/")
        self.requests.append(name)
        if name == "index.m3u8":
            first = min(self.reloads, self.total - self.window)
            self.reloads += 1
            uris = [f"seg{index}" for index in range(first, first + self.window)]
            ended = first + self.window == self.total
            return web.Response(text=live_playlist(first, uris, ended=ended, **self.playlist))
        if name == "init":
            return web.Response(body=self.segments[0])
        return web.Response(body=self.segments[int(name.removeprefix("seg"))])


class Sink:
    def __init__(self):
        self.data = []

    def write(self, data):
        self.data.append(data)

    async def drain(self):
        pass


async def play(base, url="/index.m3u8"):
    """Play without a child; returns what it would be fed, and the waits."""
    waits = []
    sink = Sink()

    async def sleep(seconds):
        waits.append(seconds)

    async with open_origin(CameraAddress(url=base), EGRESS, timeout_seconds=5) as origin:
        data = await origin.read(base + url, hls.MAX_PLAYLIST_BYTES)
        media_url, playlist = await hls.open_playlist(origin, base + url, data)
        await hls.play(origin, media_url, playlist, sink, sleep=sleep)
    return sink.data, waits


async def test_every_segment_is_fetched_once_and_in_order():
    camera = Camera([b"%d" % index for index in range(8)], window=4)
    async with serve(camera) as base:
        fed, waits = await play(base)
    # The first playlist is [0, 1, 2, 3]: three segments from the end is where a live stream starts.
    assert fed == [b"1", b"2", b"3", b"4", b"5", b"6", b"7"]
    assert len(waits) == 4
    assert all(0.5 < wait <= 1.0 for wait in waits)


async def test_an_unchanged_playlist_is_asked_for_after_half_the_time():
    answers = iter(
        [
            live_playlist(0, ["seg0"]),
            live_playlist(0, ["seg0"]),
            live_playlist(0, ["seg0", "seg1"], ended=True),
        ]
    )

    async def camera(request):
        return web.Response(text=next(answers) if request.path == "/index.m3u8" else request.path)

    async with serve(camera) as base:
        fed, waits = await play(base)
    assert fed == [b"/seg0", b"/seg1"]
    assert 0.5 < waits[0] <= 1.0
    assert 0.25 < waits[1] <= 0.5


async def test_a_tiny_target_duration_does_not_become_a_busy_loop():
    head = "#EXTM3U\n#EXT-X-TARGETDURATION:0\n"
    async with serve(Camera([b"x"] * 5, head=head)) as base:
        _, waits = await play(base)
    assert all(0.9 * hls.MIN_RELOAD_SECONDS < wait <= hls.MIN_RELOAD_SECONDS for wait in waits)


async def test_a_playlist_that_begins_anew_is_opened_again():
    answers = iter([live_playlist(100, ["a", "b"]), live_playlist(0, ["a"])])

    async def camera(request):
        return web.Response(text=next(answers) if request.path == "/index.m3u8" else "x")

    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError, match="anew"):
            await play(base)


async def test_a_changed_initialisation_segment_ends_the_stream():
    text = HEAD + '#EXT-X-MAP:URI="i"\na\n#EXT-X-MAP:URI="j"\nb\n#EXT-X-ENDLIST\n'

    async def camera(request):
        return web.Response(text=text if request.path == "/index.m3u8" else "x")

    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError, match="initialisation"):
            await play(base)


async def test_a_multivariant_playlist_is_followed_once():
    async def camera(request):
        if request.path == "/index.m3u8":
            return web.Response(text="#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nhigh/media.m3u8\n")
        if request.path == "/high/media.m3u8":
            return web.Response(text=live_playlist(0, ["seg"], ended=True))
        if request.path == "/loop.m3u8":
            return web.Response(text="#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\nloop.m3u8\n")
        return web.Response(text=request.path)

    async with serve(camera) as base:
        fed, _ = await play(base)
        assert fed == [b"/high/seg"]
        with pytest.raises(ProtocolError):
            await play(base, "/loop.m3u8")


@pytest.mark.parametrize("kind", ["segment", "map", "variant", "redirect"])
async def test_nothing_is_fetched_from_another_origin(kind):
    async with Canary().listen() as canary:
        elsewhere = f"http://127.0.0.1:{canary.port}/x"
        texts = {
            "segment": live_playlist(0, [elsewhere], ended=True),
            "map": HEAD + f'#EXT-X-MAP:URI="{elsewhere}"\na\n#EXT-X-ENDLIST\n',
            "variant": f"#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{elsewhere}\n",
            "redirect": live_playlist(0, ["seg"], ended=True),
        }

        async def camera(request):
            if request.path == "/index.m3u8":
                return web.Response(text=texts[kind])
            return web.Response(status=302, headers={"Location": elsewhere})

        async with serve(camera) as base:
            with pytest.raises(SourceRefusedError):
                await play(base)
    assert canary.connections == 0


@pytest.mark.parametrize(
    "uri",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/",
        "http://[::1",
        "//u:p@127.0.0.1/x",
        "http://2130706433/",
        "data:,x",
    ],
)
async def test_segments_with_tricky_addresses_are_refused(uri):
    async def camera(_):
        return web.Response(text=live_playlist(0, [uri], ended=True))

    async with serve(camera) as base:
        with pytest.raises((UnsupportedError, SourceRefusedError)):
            await play(base)


async def test_the_largest_segment_and_one_byte_more(monkeypatch):
    monkeypatch.setattr(hls, "MAX_SEGMENT_BYTES", 1000)
    sizes = iter([1000, 1001])

    async def camera(request):
        if request.path == "/index.m3u8":
            return web.Response(text=live_playlist(0, ["seg"], ended=True))
        return web.Response(body=bytes(next(sizes)))

    async with serve(camera) as base:
        fed, _ = await play(base)
        assert sum(map(len, fed)) == 1000
        with pytest.raises(LimitExceededError):
            await play(base)


async def test_an_endless_playlist_is_cut_off():
    async def camera(request):
        return await send_and_stay(request, b"#EXTM3U\n" + b"#" * (hls.MAX_PLAYLIST_BYTES + 1), "text/plain")

    async with asyncio.timeout(10), serve(camera) as base:
        with pytest.raises(LimitExceededError):
            await play(base)


@pytest.mark.parametrize("container", ["mpegts", "mp4"])
async def test_access_units_of_a_live_stream_arrive_in_real_time(container):
    segments = make_hls_segments(container)
    head = HEAD + ('#EXT-X-MAP:URI="init"\n' if container == "mp4" else "")
    camera = Camera(segments, window=1, total=len(segments), head=head)
    camera.reloads = 1 if container == "mp4" else 0
    recorder = Recorder()
    loop = asyncio.get_running_loop()
    async with asyncio.timeout(10), serve(camera) as base, asyncio.TaskGroup() as tasks:
        address = CameraAddress(url=base + "/index.m3u8")
        task = tasks.create_task(PyavSource(address, PyavSettings(egress=EGRESS)).run(recorder))
        await recorder.wait_for(1)
        start = loop.time()
        await recorder.wait_for(40)
        elapsed = loop.time() - start
        task.cancel()
    assert elapsed > 1.0
    assert len(recorder.tracks) == 1
    assert all(later.dts > earlier.dts for earlier, later in pairwise(recorder.units))
    assert not any(unit.discontinuity for unit in recorder.units)


async def test_a_playlist_is_told_by_its_media_type_too():
    async def camera(request):
        if request.path == "/live":
            text = live_playlist(0, ["seg0"], ended=True)
            return web.Response(text=text, content_type="application/vnd.apple.mpegurl")
        return web.Response(body=make_hls_segments("mpegts")[0])

    recorder = Recorder()
    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError, match="ended"):
            await PyavSource(CameraAddress(url=base + "/live"), PyavSettings(egress=EGRESS)).run(recorder)
    assert len(recorder.units) == 25
