"""Two workers and one camera: one upstream, whoever dies."""

import asyncio
import os
import signal
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp
import pytest
from support.node_processes import CONTROL, RELAY, Viewer, children_of, connections_of, until
from support.nodes import PacedProducer, furnish, grant, running_node, simulated_cameras

pytestmark = pytest.mark.slow

MAX_VIEWERS = 24
"""The kernel spreads connections: that so many fall to one of two workers happens once in 8 million runs."""


@asynccontextmanager
async def watched_by_both(folder, tasks, config=""):
    """A node of two workers, and at least one viewer of its camera on each, by worker."""
    async with (
        simulated_cameras(north=PacedProducer()) as cameras,
        running_node(folder, config=f"workers: 2\n{config}") as node,
    ):
        await furnish(node, cameras)
        node.grant = await grant(node, "urban-operator", "north")
        viewers = {worker: [] for worker in children_of(node, RELAY)}
        while not all(viewers.values()):
            assert sum(map(len, viewers.values())) < MAX_VIEWERS
            viewer = Viewer((await node.watch("urban-operator", "north"))["media"]["flv"])
            tasks.append(viewer.run())
            await viewer.more()
            viewers[viewer.worker(node)].append(viewer)
        yield node, cameras, viewers


class Reading(list):
    """Coroutines that run from when they are appended, until the context ends."""

    async def __aenter__(self):
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        return self

    def append(self, coroutine):
        super().append(self._group.create_task(coroutine))

    async def __aexit__(self, *error):
        for task in self:
            task.cancel()
        return await self._group.__aexit__(*error)


def upstreams(node, cameras):
    """The workers that have a connection to the cameras' server, once for each connection."""
    port = urlsplit(cameras.url("north")).port
    return [
        worker
        for worker in children_of(node, RELAY)
        for _, remote in connections_of(worker)
        if remote == port
    ]


async def test_when_the_puller_dies_the_others_viewers_stay(tmp_path):
    async with Reading() as tasks, watched_by_both(tmp_path, tasks) as (node, cameras, viewers):
        assert cameras.requests["PLAY"] == 1
        (puller,) = upstreams(node, cameras)
        (other,) = set(viewers) - {puller}
        os.kill(puller, signal.SIGKILL)
        for viewer in viewers[puller]:
            async with asyncio.timeout(5):
                await viewer.ended.wait()
        for viewer in viewers[other]:
            await viewer.more(seconds=10)

        async def are_two():
            return len(children_of(node, RELAY)) == 2

        await until(are_two, seconds=5)
        assert cameras.requests["PLAY"] == 2
        assert upstreams(node, cameras) == [other]
        # the new worker takes the stream from the other one
        again = {worker: [] for worker in children_of(node, RELAY)}
        while len(again[other]) == len([viewer for found in again.values() for viewer in found]):
            assert len(again[other]) < MAX_VIEWERS
            viewer = Viewer((await node.watch("urban-operator", "north"))["media"]["fmp4"])
            tasks.append(viewer.run())
            await viewer.more()
            again[viewer.worker(node)].append(viewer)
        assert cameras.requests["PLAY"] == 2


async def test_a_puller_that_stands_still_is_replaced_and_the_others_viewers_stay(tmp_path):
    async with Reading() as tasks, watched_by_both(tmp_path, tasks) as (node, cameras, viewers):
        (puller,) = upstreams(node, cameras)
        (other,) = set(viewers) - {puller}
        os.kill(puller, signal.SIGSTOP)
        for viewer in viewers[puller]:
            async with asyncio.timeout(10):
                await viewer.ended.wait()
        for viewer in viewers[other]:
            await viewer.more(seconds=10)

        async def is_replaced():
            workers = children_of(node, RELAY)
            return len(workers) == 2 and puller not in workers

        await until(is_replaced)
        assert cameras.requests["PLAY"] == 2
        assert upstreams(node, cameras) == [other]


async def test_a_killed_control_stops_no_picture_and_limits_and_ends_hold_for_all_workers(tmp_path):
    limit = MAX_VIEWERS + 1
    config = f"admission: {{sessions_per_user: {limit}}}\n"
    async with Reading() as tasks, watched_by_both(tmp_path, tasks, config) as (node, cameras, viewers):
        running = [viewer for found in viewers.values() for viewer in found]
        (killed,) = children_of(node, CONTROL)
        os.kill(killed, signal.SIGKILL)

        async def is_back():
            try:
                async with node.http.get(f"{node.url}/readyz") as answer:
                    return answer.status == 200 and children_of(node, CONTROL) not in ([], [killed])
            except aiohttp.ClientError:
                return False

        await until(is_back)
        for viewer in running:
            await viewer.more()
        assert cameras.requests["PLAY"] == 1
        sessions = (await node.call("urban-operator", "GET", "/sessions"))["items"]
        assert len(sessions) == len(running)
        assert {session["state"] for session in sessions} == {"active"}
        for _ in range(limit - len(running)):
            await node.watch("urban-operator", "north")
        body = {"camera": "north", "purpose": {"code": "patrol", "reference": "roster"}}
        full = await node.call("urban-operator", "POST", "/sessions", body, expect=503)
        assert full["code"] == "limit_sessions_user"

        await node.call("traffic-admin", "DELETE", f"/grants/{node.grant}?reason=test")
        for viewer in running:
            async with asyncio.timeout(2):
                await viewer.ended.wait()
