"""A control that reads its policy for long: who goes on meanwhile, who waits, and what holds afterwards."""

import asyncio
import contextlib
import gc
import os
import signal
from datetime import timedelta

import aiohttp
import pytest
from support.controls import CHEAP, ROOT, City, Clock, open_city

from gateway.app import run
from gateway.composition import ControlSettings
from gateway.messages import Claimed, End, Lease, Refused, RunningSession
from gateway.policy_feed import PolicyFeed
from gateway.problems import Problem
from gateway.settings import Settings
from gateway.start_up import StartUp, collector_resting
from gateway.web import ROUTES
from gateway.web.routing import Access


def test_the_lease_follows_the_stored_revision_until_the_policy_is_there():
    start_up = StartUp(7)
    assert [start_up.may_renew(heard) for heard in (7, 6, 8, None)] == [True, False, False, False]
    with pytest.raises(Problem, match="starting"):
        start_up.require_over()
    start_up.finish()
    start_up.require_over()
    assert all(start_up.may_renew(heard) for heard in (7, 6, None))


def test_the_collector_wakes_up_again_whatever_happens():
    with contextlib.suppress(ValueError), collector_resting():
        assert not gc.isenabled()
        raise ValueError
    assert gc.isenabled()
    gc.unfreeze()


class _Reading:
    """Stands in the way of every `PolicyFeed.load` until told to go on."""

    def __init__(self, monkeypatch):
        self.begun, self.may_go_on = asyncio.Event(), asyncio.Event()
        load = PolicyFeed.load

        async def held(feed, *given):
            self.begun.set()
            await self.may_go_on.wait()
            await load(feed, *given)

        monkeypatch.setattr(PolicyFeed, "load", held)


@contextlib.asynccontextmanager
async def _starting(folder, clock, reading, tokens, **settings):
    """A control whose sockets are there and whose policy is not; `become_ready` lets it read, and waits."""
    ready, over = asyncio.Event(), asyncio.Event()

    async def run():
        async with open_city(folder, clock=clock, **settings):
            ready.set()
            await over.wait()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run())
        await reading.begun.wait()
        connector = aiohttp.UnixConnector(str(folder / "control-http.sock"))
        async with aiohttp.ClientSession(connector=connector) as http:
            city = City(None, folder, clock, http, tasks, tokens)

            async def become_ready():
                reading.may_go_on.set()
                await ready.wait()

            city.become_ready = become_ready
            try:
                yield city
            finally:
                await become_ready()
                over.set()
                await running
                for task in tuple(tasks._tasks):
                    task.cancel()


@contextlib.asynccontextmanager
async def _killed(folder, clock, **settings):
    """A control that records no end: its drain finds nothing, as if the process had been killed."""
    async with open_city(folder, clock=clock, **settings) as city:
        yield city
        city.services.live._sessions.clear()


async def _leases(worker, count):
    """Wait until so many leases have come since now."""
    first = len([message for message in worker.received if isinstance(message, Lease)])
    await worker.wait_for(
        Lease, lambda _: len([m for m in worker.received if isinstance(m, Lease)]) >= first + count
    )


async def test_a_running_picture_goes_on_while_the_policy_is_read(tmp_path, database_url, monkeypatch):
    clock = Clock()
    async with _killed(tmp_path, clock, url=database_url) as city:
        await city.grant()
        worker = await city.worker()
        opened, waiting = [await city.watch("urban-operator") for _ in range(2)]
        session = opened["id"]
        await worker.start(opened)
        revision = city.services.enforcement.revision
        await worker.wait_for(Lease, lambda lease: lease.revision == revision)
    with monkeypatch.context() as patch:
        reading = _Reading(patch)
        async with _starting(tmp_path, clock, reading, city.tokens, url=database_url) as city:
            running = [RunningSession(session=session, camera="gate", bytes_sent=1)]
            knows = await city.worker(0, sessions=running, revision=revision)
            outdated = await city.worker(1, revision=revision - 1)
            new = await city.worker(2)
            await _leases(knows, 3)
            for worker in (outdated, new):
                assert not [message for message in worker.received if isinstance(message, Lease)]
            assert {m.revision for m in knows.received if isinstance(m, Lease)} == {revision}
            answer = await knows.redeem(waiting["id"], waiting["media"]["ticket"])
            assert isinstance(answer, Refused)
            assert (answer.status, answer.code) == (503, "starting")
            assert isinstance(await knows.claim("gate"), Claimed)
            await city.become_ready()
            for worker in (knows, outdated, new):
                await worker.wait_for(Lease, lambda lease: lease.revision == revision)
            await knows.start(waiting)
            listed = await city.call("urban-operator", "GET", "/sessions")
            assert {item["id"]: item["state"] for item in listed["items"]}[session] == "active"
            assert not [message for message in knows.received if isinstance(message, End)]


async def test_what_was_revoked_before_the_kill_is_ended_after_the_start(tmp_path, monkeypatch):
    """The revocation is in the database; the worker did not hear of it, so its lease is not renewed."""
    clock = Clock()
    async with _killed(tmp_path, clock) as city:
        grant = await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        heard = city.services.enforcement.revision
        monkeypatch.setattr(city.services.live, "_decide_again", lambda _: None)
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
    with monkeypatch.context() as patch:
        async with _starting(tmp_path, clock, _Reading(patch), city.tokens) as city:
            running = [RunningSession(session=opened["id"], camera="gate", bytes_sent=1)]
            worker = await city.worker(sessions=running, revision=heard)
            await city.become_ready()
            end = await worker.ended(opened["id"])
            assert end.reason == "revoked"
            lease = await worker.wait_for(Lease, lambda lease: lease.revision == heard + 1)
            assert worker.received.index(end) < worker.received.index(lease)


async def test_a_grant_that_runs_out_while_the_policy_is_read_ends_its_picture(tmp_path, monkeypatch):
    """The edge as it was when control was killed: moved once by another grant, which came later."""
    clock = Clock()
    async with _killed(tmp_path, clock) as city:
        await city.grant(valid_to=(clock.now + timedelta(seconds=30)).isoformat())
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        await city.grant(valid_to=(clock.now + timedelta(seconds=60)).isoformat())
        clock.advance(30)
        await city.until(lambda: city.services.live.get(opened["id"]).decided_until > clock.now)
        revision = city.services.enforcement.revision
        await worker.wait_for(Lease, lambda lease: lease.revision == revision)
        await city.until(lambda: not city.services.live._moved)
        await city.login("job")  # written after the edge
    with monkeypatch.context() as patch:
        async with _starting(tmp_path, clock, _Reading(patch), city.tokens) as city:
            running = [RunningSession(session=opened["id"], camera="gate", bytes_sent=1)]
            worker = await city.worker(sessions=running, revision=revision)
            clock.advance(29)
            await worker.settled()
            assert not [message for message in worker.received if isinstance(message, End)]
            clock.advance(1)
            assert (await worker.ended(opened["id"])).reason == "expired"


async def test_until_the_policy_is_there_nothing_is_decided(tmp_path, monkeypatch):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant()
    with monkeypatch.context() as patch:
        async with _starting(tmp_path, clock, _Reading(patch), city.tokens) as city:
            for route in ROUTES:
                if route.access is Access.PUBLIC:
                    continue
                path = route.path.replace("{", "").replace("}", "")
                status, headers, text = await city.request(route.method, path, city.tokens["root"])
                assert (status, '"starting"' in text, headers["Retry-After"]) == (503, True, "1"), path
            assert (await city.request("GET", "/healthz"))[0] == 200
            status, _, text = await city.request("GET", "/readyz")
            assert (status, '"starting"' in text) == (503, True)
            await city.login("root", undertakes=False)
            worker = await city.worker()
            await city.become_ready()
            assert (await city.request("GET", "/readyz"))[0] == 200
            await worker.start(await city.watch("urban-operator"))


async def test_a_stop_does_not_wait_for_the_policy(tmp_path, monkeypatch):
    async with open_city(tmp_path):
        pass
    settings = Settings(
        data=str(tmp_path / "data"), policies=str(ROOT / "config" / "policies.yaml"), passwords=CHEAP
    )
    reading, ready = _Reading(monkeypatch), []
    async with asyncio.TaskGroup() as tasks:
        control = ControlSettings(settings=settings, run_folder=str(tmp_path))
        running = tasks.create_task(run(control, lambda: ready.append(True)))
        await reading.begun.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        async with asyncio.timeout(10):
            await running
    assert not ready
    assert gc.isenabled()
