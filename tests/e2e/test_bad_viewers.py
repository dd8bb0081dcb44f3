"""Viewers who cheat, hang or die on a node of two workers, over every protocol."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from support.disturbed_camera import DisturbedProducer
from support.flv_viewer import FlvViewer, Watching
from support.media_protocols import PROTOCOLS, MediaViewer, Refused, ask
from support.node_processes import RELAY, children_of, until
from support.nodes import PacedProducer, furnish, grant, running_node, simulated_cameras

pytestmark = pytest.mark.slow

TICKET = "ticket="
STRANGE = ("%00", "%ED%A0%80", "%ff%fe", "a" * 1500, "%F0%9F%98%80", "..%2f..", "%0d%0aX:%20y", "%25")


PATIENCE_SECONDS = 15
VIEWERS, STUCK = 200, 50
STUCK_SECONDS = 10
MEBIBYTE = 1 << 20


@asynccontextmanager
async def node_with(folder, config="", **cameras):
    """Two workers. `urban-operator` may see all cameras, `traffic-operator` only `north`."""
    config = f"workers: 2\nadmission: {{sessions_per_user: {VIEWERS}}}\n{config}"
    async with simulated_cameras(**cameras) as server, running_node(folder, config=config) as node:
        await furnish(node, server)
        node.grants = [await grant(node, "urban-operator", camera) for camera in cameras]
        await grant(node, "traffic-operator", "north")
        yield node


@pytest.fixture
async def city(tmp_path):
    async with node_with(tmp_path, north=PacedProducer(), south=PacedProducer()) as node:
        yield node


async def end_reason(node, session):
    query = f"/audit/records?purpose=audit&session={session}&kind=session_end"
    items = (await node.call("auditor", "GET", query))["items"]
    return [item["record"]["reason"] for item in items]


def with_ticket(url, ticket):
    return url.partition(TICKET)[0] + TICKET + ticket


def with_session(url, session):
    before, _, after = url.partition("?")
    path = urlsplit(before).path
    parts = path.split("/")
    parts[2] = session
    return before.removesuffix(path) + "/".join(parts) + "?" + after


async def refusals(city, protocol, url):
    """Everything that is not the session's own unused ticket."""
    mine = await city.watch("urban-operator", "south")
    theirs = await city.watch("traffic-operator", "north")
    yield "no ticket", url.partition("?")[0]
    yield "another ticket", with_ticket(url, "a" * 32)
    yield "another session's ticket", with_ticket(url, mine["media"]["ticket"])
    yield "another person's ticket", with_ticket(url, theirs["media"]["ticket"])
    yield "another person's session", with_session(url, theirs["id"])
    yield "no such session", with_session(url, "0" * 32)
    for strange in STRANGE:
        yield f"ticket {strange[:12]}", with_ticket(url, strange)
        yield f"session {strange[:12]}", with_session(url, strange)
    for each in (mine, theirs):
        assert await ask(city.http, protocol, each["media"][protocol]) is None


async def test_nothing_but_the_own_unused_ticket_opens_the_media(city):
    for protocol in PROTOCOLS:
        session = await city.watch("urban-operator", "north")
        url = session["media"][protocol]
        async for what, wrong in refusals(city, protocol, url):
            refused = await ask(city.http, protocol, wrong)
            allowed = {400, 401, 403, 404}
            assert refused is not None, (protocol, what)
            assert refused.status in allowed, (protocol, what, refused)
        # none of them has used it up
        viewer = MediaViewer(protocol, url)
        async with Watching() as watching:
            watching.start(viewer)
            async with asyncio.timeout(15):
                await viewer.shown.wait()
            used = await ask(city.http, protocol, url)
            assert used == Refused(403, None if protocol == "rtsp" else "ticket_invalid"), protocol
            assert not viewer.ended.is_set()
    log = city.log.read_text()
    assert "Traceback" not in log
    assert TICKET not in log


async def test_a_revocation_ends_the_pictures_of_every_protocol_at_once(city, record_testsuite_property):
    loop = asyncio.get_running_loop()
    sessions = {protocol: await city.watch("urban-operator", "north") for protocol in PROTOCOLS}
    async with Watching() as watching:
        viewers = {
            protocol: watching.start(MediaViewer(protocol, session["media"][protocol]))
            for protocol, session in sessions.items()
        }
        async with asyncio.timeout(PATIENCE_SECONDS):
            for viewer in viewers.values():
                await viewer.shown.wait()
        await city.call("traffic-admin", "DELETE", f"/grants/{city.grants[0]}?reason=test")
        revoked_at = loop.time()
        async with asyncio.timeout(2):
            for viewer in viewers.values():
                await viewer.ended.wait()
        took = {protocol: round(viewer.ended_at - revoked_at, 2) for protocol, viewer in viewers.items()}
        record_testsuite_property("revoked_s", took)
    for protocol, session in sessions.items():

        async def is_recorded(session=session):
            return await end_reason(city, session["id"]) == ["revoked"]

        await until(is_recorded)
        assert await ask(city.http, protocol, session["media"][protocol]) is not None


async def test_viewers_who_stop_reading_are_ended_and_nobody_else_notices(
    tmp_path, record_testsuite_property
):
    loop = asyncio.get_running_loop()
    # about 1 Mbit/s
    async with (
        node_with(tmp_path, north=DisturbedProducer(padding_bytes=5000)) as node,
        Watching() as watching,
    ):
        sessions, viewers = [], []
        for number in range(VIEWERS):
            session = await node.watch("urban-operator", "north")
            buffer = 4096 if number < STUCK else None
            sessions.append(session["id"])
            viewers.append(watching.start(FlvViewer(session["media"]["flv"], receive_buffer=buffer)))
        await all_have_more(viewers)
        for viewer in viewers:
            viewer.arrivals.clear()
        workers = children_of(node, RELAY)
        before = sum(map(resident_bytes, workers))
        largest = before
        for viewer in viewers[:STUCK]:
            viewer.stop_reading()
        stopped_at = loop.time()

        async def only_the_others_are_left():
            nonlocal largest
            largest = max(largest, sum(map(resident_bytes, workers)))
            items = (await node.call("urban-operator", "GET", "/sessions"))["items"]
            return {item["id"] for item in items} == set(sessions[STUCK:])

        await until(only_the_others_are_left, STUCK_SECONDS + 2)
        took = loop.time() - stopped_at
        for session in sessions[:STUCK]:
            assert await end_reason(node, session) == ["slow"]
        await ended_over_the_other_protocols(node, watching)
        await all_have_more(viewers[STUCK:])
        assert all(viewer.steps_ms == {40} for viewer in viewers[STUCK:])
        longest = max(viewer.longest_gap for viewer in viewers[STUCK:])
        record_testsuite_property(
            "stuck_viewers",
            {
                "ended_s": round(took, 1),
                "others_gap_max_ms": round(1000 * longest),
                "others_gap_median_ms": round(1000 * max(viewer.median_gap for viewer in viewers[STUCK:])),
                "rss_growth_mb": round((largest - before) / MEBIBYTE, 1),
            },
        )
        assert longest < 1
        assert largest - before < STUCK * 2 * MEBIBYTE


async def ended_over_the_other_protocols(node, watching):
    """HLS has nobody who could be slow; MJPEG's pictures are too few and too small to fill the buffers."""
    sessions = {}
    for protocol in ("fmp4", "ws", "ws_flv", "rtsp"):
        session = await node.watch("urban-operator", "north")
        viewer = watching.start(MediaViewer(protocol, session["media"][protocol]))
        await viewer.more()
        viewer.stop_reading()
        sessions[session["id"]] = protocol

    async def are_ended():
        running = (await node.call("urban-operator", "GET", "/sessions"))["items"]
        return not {item["id"] for item in running} & sessions.keys()

    await until(are_ended, STUCK_SECONDS + PATIENCE_SECONDS)
    for session, protocol in sessions.items():
        assert await end_reason(node, session) == ["slow"], protocol


async def all_have_more(viewers):
    async with asyncio.TaskGroup() as tasks:
        for viewer in viewers:
            tasks.create_task(viewer.more())


def resident_bytes(pid):
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


async def test_killed_workers_end_their_sessions_and_come_back(city):
    """One after the other, so that each protocol is among the dead."""
    sessions = {}
    async with Watching() as watching:
        for protocol in (*PROTOCOLS, *PROTOCOLS):
            session = await city.watch("urban-operator", "north")
            sessions[session["id"]] = watching.start(MediaViewer(protocol, session["media"][protocol]))
        async with asyncio.timeout(PATIENCE_SECONDS):
            for viewer in sessions.values():
                await viewer.shown.wait()
        first, second = children_of(city, RELAY)
        lost = await kill(city, first, sessions)
        survivors = {session: sessions[session] for session in sessions.keys() - lost}
        for viewer in survivors.values():
            await viewer.more()
        assert await kill(city, second, survivors) == survivors.keys()
        again = [
            watching.start(
                MediaViewer(protocol, (await city.watch("urban-operator", "north"))["media"][protocol])
            )
            for protocol in PROTOCOLS
        ]
        async with asyncio.timeout(PATIENCE_SECONDS):
            for viewer in again:
                await viewer.shown.wait()


async def kill(city, worker, sessions):
    """The sessions that ended by that, when the worker is back and they are on record."""
    os.kill(worker, signal.SIGKILL)

    async def is_back():
        return len(children_of(city, RELAY)) == 2 and worker not in children_of(city, RELAY)

    await until(is_back, 5)
    lost = set()

    async def are_recorded():
        nonlocal lost
        running = {item["id"] for item in (await city.call("urban-operator", "GET", "/sessions"))["items"]}
        lost = sessions.keys() - running
        return lost == {session for session, viewer in sessions.items() if viewer.ended.is_set()} != set()

    await until(are_recorded)
    for session in lost:
        assert await end_reason(city, session) == ["worker_lost"], sessions[session].protocol
    return lost
