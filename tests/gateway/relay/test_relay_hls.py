import asyncio
import contextlib
import json
import time
from itertools import pairwise

import aiohttp
import av
import msgspec
import pytest
from support.clip_source import ClipSource, SilentSource
from support.fake_control import MARK_KEY
from support.hls_playlists import attributes, parse_playlist
from support.relay_worker import running_relay
from support.units import FRAME_TICKS, encode_clip, encode_sound

from gateway.messages import Claim, End, Redeem, SessionOver, Usage
from gateway.relay.hls_sessions import MAX_REQUESTS_AT_ONCE, HlsSettings
from gateway.relay.viewer import ViewerSettings
from policies.access import Action, Obligations
from streams.media import TIME_BASE_HZ, AudioCodec, AudioUnit, Codec
from streams.mux.hls import SegmenterSettings
from streams.mux.mark import find_marks

QUICK = HlsSettings(segmenter=SegmenterSettings(segment_seconds=1.0))
"""Clips play at four times their speed, with a keyframe per second of theirs."""


class Player:
    """What a player does with a session's address."""

    def __init__(self, relay, client, session):
        self.relay, self.client, self.session = relay, client, session
        self.base = self.codecs = ""

    async def open(self):
        async with self.client.get(self.relay.media(self.session, "index.m3u8")) as answer:
            assert answer.status == 200, await answer.text()
            assert answer.headers["Content-Type"] == "application/vnd.apple.mpegurl"
            assert answer.headers["Cache-Control"] == "no-store"
            lines = (await answer.text()).splitlines()
        rendition = attributes(lines[2].partition(":")[2])
        assert rendition["RESOLUTION"] == "320x240"
        assert rendition["CODECS"].startswith("avc1.")
        self.codecs = rendition["CODECS"]
        self.base = f"/media/{self.session[0]}/{lines[3].rpartition('/')[0]}"
        return self

    @property
    def capability(self):
        return self.base.rpartition("/")[2]

    def get(self, name):
        return self.client.get(self.relay.url(f"{self.base}/{name}"))

    async def status(self, name):
        async with self.get(name) as answer:
            body = await answer.read()
            if answer.status >= 400:
                assert answer.content_type == "application/problem+json"
                return answer.status, json.loads(body)["code"]
            return answer.status, ""

    async def fetch(self, name):
        async with self.get(name) as answer:
            assert answer.status == 200, (name, await answer.text())
            assert answer.headers["Cache-Control"] == "no-store"
            return await answer.read()

    async def playlist(self, query=""):
        return parse_playlist((await self.fetch(f"live.m3u8{query}")).decode())


def nal_units(mp4):
    """Of all fragments, as far as `mdat` boxes hold length-prefixed NAL units."""
    found = []
    while mp4:
        size, kind = int.from_bytes(mp4[:4]), mp4[4:8]
        if kind == b"mdat":
            data = mp4[8:size]
            while data:
                length = int.from_bytes(data[:4])
                found.append(data[4 : 4 + length])
                data = data[4 + length :]
        mp4 = mp4[size:]
    return found


async def test_ffmpeg_plays_it_like_any_hls(tmp_path):
    def play(url):
        with av.open(url, timeout=10) as container:
            stream = container.streams.video[0]
            times = []
            for frame in container.decode(stream):
                times.append(frame.pts * stream.time_base)
                if len(times) == 60:
                    break
            return stream.codec_context.name, (frame.width, frame.height), times

    encode_clip(Codec.H265)
    source = lambda: ClipSource(Codec.H265)  # noqa: E731
    async with running_relay(tmp_path, source=source, hls=QUICK) as relay:
        url = relay.media(relay.control.ticket(1), "index.m3u8")
        name, size, times = await asyncio.to_thread(play, url)
    assert (name, size) == ("hevc", (320, 240))
    steps = {round(float(b - a), 3) for a, b in pairwise(times)}
    assert steps == {0.04}


class SoundSource:
    """A clip with its sound, both of them of two seconds, at four times their speed."""

    is_mute = False

    async def run(self, publisher):
        track, pictures = encode_clip(Codec.H264)
        sound, tones = encode_sound(AudioCodec.AAC)
        publisher.configure(msgspec.structs.replace(track, audio=sound))
        for shift in range(0, 1 << 40, 2 * TIME_BASE_HZ):
            for unit in sorted((*pictures, *tones), key=lambda unit: unit.pts):
                times = {"pts": unit.pts + shift, "received_ns": time.monotonic_ns()}
                if isinstance(unit, AudioUnit):
                    if unit.pts < 2 * TIME_BASE_HZ and not self.is_mute:
                        publisher.publish_audio(msgspec.structs.replace(unit, **times))
                    continue
                publisher.publish(msgspec.structs.replace(unit, dts=unit.dts + shift, **times))
                await asyncio.sleep(0.01)


async def test_ffmpeg_hears_the_sound_too(tmp_path):
    def play(url):
        with av.open(url, timeout=10) as container:
            counts = {"video": 0, "audio": 0}
            for frame in container.decode():
                counts["video" if isinstance(frame, av.VideoFrame) else "audio"] += 1
                if min(counts.values()) >= 50:
                    break
            return container.streams.audio[0].codec_context.name

    async with running_relay(tmp_path, source=SoundSource, hls=QUICK) as relay:
        async with aiohttp.ClientSession() as client:
            session = relay.control.ticket(1)
            player = await Player(relay, client, session).open()
            playlist = await player.playlist()
            assert all(segment.parts[0].independent for segment in playlist.segments)
        url = relay.media(relay.control.ticket(2), "index.m3u8")
        assert await asyncio.to_thread(play, url) == "aac"


class MuteSource(SoundSource):
    """Declares sound and sends none."""

    is_mute = True


async def test_nobody_begins_with_sound_that_does_not_come(tmp_path):
    """hls.js shows nothing without declared sound, and takes no other tracks than its first."""
    settings = HlsSettings(segmenter=SegmenterSettings(segment_seconds=2.0))
    async with running_relay(tmp_path, source=MuteSource, hls=settings) as relay:
        async with aiohttp.ClientSession() as client:
            player = await Player(relay, client, relay.control.ticket(1)).open()
            assert player.codecs == "avc1.42C00D"
            playlist = await player.playlist()
            assert {segment.map for segment in playlist.segments} == {"init-1.mp4"}
            assert b"mp4a" not in await player.fetch("init-1.mp4")
            assert await player.status("init-0.mp4") == (404, "not_found")


async def test_low_latency_reload_waits_for_the_next_part_only(tmp_path):
    async with running_relay(tmp_path, hls=QUICK) as relay, aiohttp.ClientSession() as client:
        player = await Player(relay, client, relay.control.ticket(1)).open()
        playlist = await player.playlist()
        assert playlist.segments
        for _ in range(6):
            number, part = playlist.next_part
            hinted, playlist = await asyncio.gather(
                player.fetch(playlist.hint), player.playlist(f"?_HLS_msn={number}&_HLS_part={part}")
            )
            assert playlist.next_part > (number, part)
            assert nal_units(hinted)
        number, part = playlist.next_part
        playlist = await player.playlist(f"?_HLS_msn={number}")
        assert playlist.next_part[0] > number
        assert (await player.status(f"live.m3u8?_HLS_msn={playlist.next_part[0] + 20}"))[0] == 400
        for query in ("_HLS_part=1", "_HLS_msn=x", "_HLS_msn=-1", "_HLS_msn=" + "9" * 30):
            assert await player.status(f"live.m3u8?{query}") == (400, "bad_request")


async def test_a_segment_is_its_parts_and_each_viewer_s_keyframes_carry_his_own_mark(tmp_path):
    async with running_relay(tmp_path, hls=QUICK) as relay, aiohttp.ClientSession() as client:
        sources = []
        for number in (1, 2):
            player = await Player(relay, client, relay.control.ticket(number)).open()
            listed = (await player.playlist()).segments[-1]
            segment = await player.fetch(listed.uri)
            parts = [await player.fetch(part.uri) for part in listed.parts]
            assert b"".join(parts) == segment
            init = await player.fetch(listed.map)
            assert init[4:8] == b"ftyp"
            keyframe = nal_units(segment)[: len(encode_clip(Codec.H264)[1][0].nal_units) + 1]
            (mark,) = find_marks(Codec.H264, keyframe)
            assert mark.session_id == number.to_bytes(16)
            assert mark.is_authentic(MARK_KEY, "camera-1")
            sources.append(segment)
        usage = await relay.control.wait_for(
            Usage, lambda m: len(m.sessions) == 2 and all(s.bytes_sent > len(sources[0]) for s in m.sessions)
        )
        assert usage.cameras[0].readers == 1
    assert [m.stream for m in relay.control.received if isinstance(m, Claim)] == ["camera-1"]
    assert {m.protocol for m in relay.control.received if isinstance(m, Redeem)} == {"hls"}


async def test_no_address_works_without_its_own_capability(tmp_path):
    async with running_relay(tmp_path, hls=QUICK) as relay, aiohttp.ClientSession() as client:
        one = await Player(relay, client, relay.control.ticket(1)).open()
        other = await Player(relay, client, relay.control.ticket(2)).open()
        segment = (await one.playlist()).segments[-1].uri
        assert len(one.capability) >= 24
        assert one.capability != other.capability
        swapped = f"/media/{other.session[0]}/hls/{one.capability}"
        own = one.base
        almost = own[:-1] + ("A" if own[-1] != "A" else "B")
        for base, expected in (
            (swapped, (410, "address_gone")),
            (almost, (410, "address_gone")),
            (f"/media/{3:032x}/hls/{one.capability}", (410, "address_gone")),
            (own + "x", (404, "not_found")),
            (f"/media/{one.session[0]}/hls/", (404, "not_found")),
            (f"/media/{one.session[0]}/hls", (404, "not_found")),
            (own.replace("/0-", "/1-"), (404, "not_found")),
            (own.replace("/0-", "/99-"), (404, "not_found")),
        ):
            one.base = base
            for name in ("live.m3u8", "init-0.mp4", segment):
                assert await one.status(name) == expected, base
        one.base = own
        for name in (
            "segment-999.mp4",
            "segment-0.99.mp4",
            "segment-01.mp4",
            "init-9.mp4",
            "x",
            "live.m3u8/x",
        ):
            assert await one.status(name) == (404, "not_found")
        async with client.get(relay.url(f"/media/{1:032x}/index.m3u8")) as answer:
            assert answer.status == 401
        async with client.get(relay.media(one.session, "index.m3u8")) as answer:
            assert answer.status == 403
        assert not relay.control.requests


async def test_the_end_of_a_session_reaches_every_address_and_whoever_waits(tmp_path):
    async with running_relay(tmp_path, hls=QUICK) as relay, aiohttp.ClientSession() as client:
        player = await Player(relay, client, relay.control.ticket(1)).open()
        playlist = await player.playlist()
        names = ["live.m3u8", "init-0.mp4", playlist.segments[-1].uri, playlist.segments[-1].parts[0].uri]
        number, _ = playlist.next_part

        async def revoke():
            await player.fetch("init-0.mp4")
            relay.control.send(End(session=player.session[0], reason="revoked"))

        waited, _ = await asyncio.gather(player.status(f"live.m3u8?_HLS_msn={number + 1}"), revoke())
        assert waited == (410, "address_gone")
        over = await relay.control.over(player.session[0])
        for name in names:
            assert await player.status(name) == (410, "address_gone")
    assert (over.reason, over.lost) == ("revoked", False)
    assert over.bytes_sent > 0


async def test_one_request_more_than_players_have_is_refused(tmp_path):
    async with running_relay(tmp_path, hls=QUICK) as relay, aiohttp.ClientSession() as client:
        player = await Player(relay, client, relay.control.ticket(1)).open()
        viewer = relay.worker._hls.find(player.session[0], player.capability)
        with contextlib.ExitStack() as others:
            for _ in range(MAX_REQUESTS_AT_ONCE - 1):
                others.enter_context(viewer.asking())
            assert await player.status("init-0.mp4") == (200, "")
            with viewer.asking():
                assert await player.status("init-0.mp4") == (503, "connection_limit")
        assert await player.status("init-0.mp4") == (200, "")


async def test_who_asks_no_more_is_lost_and_leaves_no_segmenter(tmp_path):
    settings = HlsSettings(lost_seconds=0.2, segmenter=QUICK.segmenter)
    async with running_relay(tmp_path, hls=settings) as relay, aiohttp.ClientSession() as client:
        player = await Player(relay, client, relay.control.ticket(1)).open()
        await player.playlist()
        over = await relay.control.over(player.session[0])
        assert (over.reason, over.lost) == ("lost", True)
        await relay.control.wait_for(Usage, lambda m: not m.sessions and m.cameras[0].readers == 0)
        assert await player.status("live.m3u8") == (410, "address_gone")


async def test_a_second_ticket_replaces_the_address(tmp_path):
    async with running_relay(tmp_path, hls=QUICK) as relay, aiohttp.ClientSession() as client:
        first = await Player(relay, client, relay.control.ticket(1)).open()
        second = await Player(relay, client, relay.control.ticket(1)).open()
        assert await first.status("live.m3u8") == (410, "address_gone")
        assert (await second.playlist()).segments
        over = await relay.control.over(first.session[0])
        assert over.reason == "replaced"


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"action": Action.FRAMES_CONSUME}, "ticket_invalid"),
        ({"obligations": Obligations(max_height=239)}, "obligation_unmet"),
    ],
)
async def test_what_the_worker_cannot_keep_is_refused_and_ended(tmp_path, options, code):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1, **options)
        async with client.get(relay.media(session, "index.m3u8")) as answer:
            assert (await answer.json(content_type=None))["code"] == code
        assert (await relay.control.over(session[0])).reason == "failed"


async def test_a_camera_without_a_picture(tmp_path):
    viewer = ViewerSettings(first_picture_seconds=0.1)
    async with (
        running_relay(tmp_path, source=SilentSource, viewer=viewer) as relay,
        aiohttp.ClientSession() as client,
    ):
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "index.m3u8")) as answer:
            assert answer.status == 504
        assert (await relay.control.over(session[0])).reason == "camera_gone"


class ChangingSource:
    """A camera that changes its picture's size in the middle."""

    def __init__(self):
        self.changed = asyncio.Event()

    async def run(self, publisher):
        clips = (encode_clip(Codec.H264), encode_clip(Codec.H264, width=160, height=120))
        track, units = clips[0]
        publisher.configure(track)
        count = 0
        while True:
            for unit in units:
                dts = count * FRAME_TICKS
                publisher.publish(
                    msgspec.structs.replace(unit, pts=dts, dts=dts, received_ns=time.monotonic_ns())
                )
                count += 1
                await asyncio.sleep(0.005)
            if self.changed.is_set():
                track, units = clips[1]
                publisher.configure(track)


async def test_a_changed_track_goes_on_behind_a_discontinuity(tmp_path):
    source = ChangingSource()
    async with (
        running_relay(tmp_path, source=lambda: source, hls=QUICK) as relay,
        aiohttp.ClientSession() as client,
    ):
        player = await Player(relay, client, relay.control.ticket(1)).open()
        playlist = await player.playlist()
        source.changed.set()
        while not any(segment.discontinuity for segment in playlist.segments):
            playlist = await player.playlist(f"?_HLS_msn={playlist.next_part[0]}")
        changed = next(segment for segment in playlist.segments if segment.discontinuity)
        assert changed.map == "init-1.mp4"
        assert await player.fetch("init-1.mp4") != await player.fetch("init-0.mp4")
        assert nal_units(await player.fetch(changed.uri))


async def test_a_revocation_cuts_a_download(tmp_path):
    viewer = ViewerSettings(send_buffer_bytes=8192)
    source = lambda: ClipSource(repeat=100)  # noqa: E731
    async with running_relay(tmp_path, source=source, hls=QUICK, viewer=viewer) as relay:
        async with aiohttp.ClientSession(read_bufsize=1024) as client:
            player = await Player(relay, client, relay.control.ticket(1)).open()
            listed = (await player.playlist()).segments[-1]
            async with player.get(listed.uri) as answer:
                size = answer.content_length
                relay.control.send(End(session=player.session[0], reason="revoked"))
                await relay.control.over(player.session[0])
                with pytest.raises(aiohttp.ClientError):
                    await answer.read()
    assert size > 300_000


async def test_capabilities_and_tickets_are_not_logged(tmp_path, capfd):
    async with running_relay(tmp_path, hls=QUICK) as relay, aiohttp.ClientSession() as client:
        player = await Player(relay, client, relay.control.ticket(1)).open()
        await player.playlist()
        base = player.base
        for path in ("live.m3u8", "segment-999.mp4", "a/b/c", "%2e"):
            await player.status(path)
        player.base = base.replace("/hls/", "/hls%2F")
        await player.status("live.m3u8")
        player.base = base
        async with client.post(relay.url(f"{base}/live.m3u8")) as answer:
            assert answer.status == 405
        capability = player.capability
        relay.control.send(End(session=player.session[0], reason="revoked"))
        await relay.control.wait_for(SessionOver)
        await player.status("live.m3u8")
    captured = capfd.readouterr()
    logged = captured.out + captured.err
    assert capability not in logged
    assert player.session[1] not in logged
    assert player.session[0] in logged
