"""A permission that is taken away ends the pictures: on every worker, and across control's own death."""

import asyncio
import os
import signal
import sqlite3
from contextlib import closing
from urllib.parse import urlsplit

import aiohttp
import pytest
from support.node_processes import CONTROL, RELAY, Viewer, children_of, connections_of, until
from support.nodes import PacedProducer, furnish, grant, running_node, simulated_cameras

from gateway.store.engines import open_engines
from gateway.store.sealed_rows import Sealed, camera_content
from gateway.store.sealing import read_totals, write_totals
from gateway.store.seals import Seals

pytestmark = pytest.mark.slow

VIEWERS = 200
AT_ONCE = 16
AT_A_TIME = 50_000
"""Cameras in one transaction: control writes its ledger in between."""
CITY_CAMERAS = 800_000
"""Enough for control to read longer than the workers' lease lasts, on a machine of 2020."""


class Watcher(asyncio.Protocol):
    """A viewer that only counts. `last`: when the latest byte came, by the loop's clock."""

    def __init__(self):
        self.bytes, self.last = 0, 0.0
        self.over = asyncio.Event()
        self._more = asyncio.Event()

    @classmethod
    async def open(cls, url):
        address = urlsplit(url)
        loop = asyncio.get_running_loop()
        transport, watcher = await loop.create_connection(cls, address.hostname, address.port)
        watcher.port = transport.get_extra_info("sockname")[1]
        transport.write(
            f"GET {address.path}?{address.query} HTTP/1.1\r\nHost: {address.netloc}\r\n\r\n".encode()
        )
        await watcher.more()
        return watcher

    def data_received(self, data):
        self.bytes += len(data)
        self.last = asyncio.get_running_loop().time()
        self._more.set()

    def connection_lost(self, error):
        self.over.set()
        self._more.set()

    async def more(self, count=2000):
        """Wait until so many more bytes have come."""
        target = self.bytes + count
        async with asyncio.timeout(15):
            while self.bytes < target:
                assert not self.over.is_set()
                self._more.clear()
                await self._more.wait()

    async def ended(self):
        async with asyncio.timeout(15):
            await self.over.wait()


async def _open_many(node, user, camera, count):
    slots = asyncio.Semaphore(AT_ONCE)

    async def one():
        async with slots:
            return await Watcher.open((await node.watch(user, camera))["media"]["flv"])

    async with asyncio.TaskGroup() as tasks:
        opening = [tasks.create_task(one()) for _ in range(count)]
    return [task.result() for task in opening]


async def test_everybody_is_cut_at_once_on_every_worker_and_nobody_else(tmp_path):
    limits = "admission: {sessions_per_user: 1000, bandwidth_bps: 1000000000000}\n"
    guard = "guard: {max_connections_per_address: 0}\n"
    async with (
        simulated_cameras(north=PacedProducer(), south=PacedProducer()) as cameras,
        running_node(tmp_path, config="workers: 2\n" + limits + guard) as node,
    ):
        await furnish(node, cameras)
        loop = asyncio.get_running_loop()
        single = await grant(node, "job", "north")
        for camera in ("north", "south"):
            await grant(node, "urban-operator", camera)
        await grant(node, "traffic-operator", "south")
        one = await Watcher.open((await node.watch("job", "north"))["media"]["flv"])
        many = [
            *await _open_many(node, "urban-operator", "north", VIEWERS // 2),
            *await _open_many(node, "urban-operator", "south", VIEWERS // 2),
        ]
        other = await Watcher.open((await node.watch("traffic-operator", "south"))["media"]["flv"])
        served = {pid: {remote for _, remote in connections_of(pid)} for pid in children_of(node, RELAY)}
        assert len(served) == 2
        assert all(any(watcher.port in ports for watcher in many) for ports in served.values())

        revoked = loop.time()
        await node.call("traffic-admin", "DELETE", f"/grants/{single}")
        await one.ended()
        assert one.last - revoked < 3
        assert not any(watcher.over.is_set() for watcher in many)

        denied = loop.time()
        await node.call(
            "traffic-admin",
            "POST",
            "/grants",
            {
                "subject": {"kind": "department", "id": "urban"},
                "object": {"kind": "department", "id": "traffic"},
                "actions": ["live:view"],
                "effect": "deny",
            },
        )
        for watcher in many:
            await watcher.ended()
        assert max(watcher.last for watcher in many) - denied < 3
        await other.more()

        async def are_recorded():
            records = "/audit/records?purpose=audit&kind=session_end&page_size=500"
            items = (await node.call("auditor", "GET", records))["items"]
            return [item["record"]["reason"] for item in items] == ["revoked"] * (VIEWERS + 1)

        await until(are_recorded)


async def test_a_worker_that_stood_still_cuts_when_it_wakes(tmp_path):
    """What cameras sent meanwhile may precede the cut: both wait in the worker's sockets."""
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(tmp_path, config="workers: 1\n") as node,
    ):
        await furnish(node, cameras)
        given = await grant(node, "urban-operator", "north")
        watcher = await Watcher.open((await node.watch("urban-operator", "north"))["media"]["flv"])
        (worker,) = children_of(node, RELAY)
        control = aiohttp.UnixConnector(str(tmp_path / "data" / "run" / "control-http.sock"))
        async with aiohttp.ClientSession(connector=control) as http:
            os.kill(worker, signal.SIGSTOP)
            try:
                headers = {"Authorization": f"Bearer {node.tokens['traffic-admin']}"}
                url = f"http://custos/api/v1/grants/{given}"
                async with http.delete(url, headers=headers) as answer:
                    assert answer.status < 300
            finally:
                os.kill(worker, signal.SIGCONT)
        await watcher.ended()


async def test_pictures_run_while_a_killed_control_reads_a_city_and_end_when_revoked(tmp_path):
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(tmp_path, config="workers: 1\n") as node,
    ):
        await furnish(node, cameras)
        await asyncio.to_thread(_add_cameras, tmp_path / "data", CITY_CAMERAS)
        # the ledger's newest mark is of what the cameras left
        given = await grant(node, "urban-operator", "north")
        session = await node.watch("urban-operator", "north")
        viewer = Viewer(session["media"]["flv"])
        async with asyncio.TaskGroup() as tasks:
            reading = tasks.create_task(viewer.run())
            await viewer.more()
            (killed,) = children_of(node, CONTROL)
            os.kill(killed, signal.SIGKILL)
            codes = set()

            async def is_back():
                try:
                    async with node.http.get(f"{node.url}/readyz") as answer:
                        codes.add((await answer.json()).get("code"))
                        return answer.status == 200 and children_of(node, CONTROL) not in ([], [killed])
                except aiohttp.ClientError:
                    return False
                finally:
                    await viewer.more(1)

            await until(is_back, seconds=120)
            assert "starting" in codes
            await viewer.more()
            running = await node.call("urban-operator", "GET", "/sessions")
            assert [(item["id"], item["state"]) for item in running["items"]] == [(session["id"], "active")]
            await node.call("traffic-admin", "DELETE", f"/grants/{given}")
            async with asyncio.timeout(5):
                await viewer.ended.wait()
            reading.cancel()


def _add_cameras(folder, count):
    """As an import would leave them, with their seals and the sum of these."""
    seals = Seals.open(folder)
    terms = ("conditional", None, None, None)
    made = {
        name: seals.seal(camera_content(name, "traffic", True, terms, (), ()))
        for name in (f"city-{number}" for number in range(count))
    }
    rows = [(name, "traffic", name, "rtsp://127.0.0.1:1/", 1, 1, seal) for name, seal in made.items()]
    with closing(sqlite3.connect(folder / "custos.db", timeout=30)) as database:
        for start in range(0, count, AT_A_TIME):
            with database:
                database.executemany(
                    "INSERT INTO cameras "
                    "(id, department_id, name, description, url, created_at, updated_at, seal) "
                    "VALUES (?, ?, ?, '', ?, ?, ?, ?)",
                    rows[start : start + AT_A_TIME],
                )
    asyncio.run(_add_up(folder, seals, made.values()))


async def _add_up(folder, seals, made):
    engines = open_engines(None, folder, readers=1, timeout_seconds=30, lock_seconds=30)
    async with engines.writer.begin() as conn:
        totals = await read_totals(conn, seals)
        for seal in made:
            totals[Sealed.CAMERA].add(seals.summand(seal))
        await write_totals(conn, seals, totals)
    await engines.dispose()
