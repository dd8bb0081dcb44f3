"""A city with somebody of every kind that `gateway.web.duties` declares, behind a real relay worker."""

import asyncio
import contextlib
from datetime import timedelta

import aiohttp
import msgspec
from support.asked import SESSION
from support.clip_source import ClipSource
from support.controls import PATIENCE_SECONDS, add_user, open_city
from support.fake_pictures import FakePictures

from gateway.authentication import LoginSettings
from gateway.live_session import EndReason
from gateway.relay.hls_sessions import HlsSettings
from gateway.relay.settings import RelaySettings
from gateway.relay.worker import RelayWorker
from gateway.sessions import SessionSettings
from gateway.web.duties import Caller
from streams.mux.hls import SegmenterSettings

ACCOUNTS = {
    Caller.OPERATOR: "traffic-operator",
    Caller.GRANTED: "urban-operator",
    Caller.ELSEWHERE: "urban-visitor",
    Caller.OWNER: "traffic-admin",
    Caller.OTHER_OWNER: "urban-admin",
    Caller.SYSTEM: "root",
    Caller.SECURITY: "security",
    Caller.AUDITOR: "auditor",
    Caller.OTHER_AUDITOR: "urban-auditor",
    Caller.JOB: "job",
    Caller.WALL: "urban-wall",
    Caller.EXPIRED: "urban-expired",
    Caller.DISABLED: "urban-disabled",
    Caller.MUST_ENROL: "traffic-enrolling",
}
_GRANTED = ("live:view", "live:snapshot")
_QUICK_HLS = HlsSettings(segmenter=SegmenterSettings(segment_seconds=1.0))


class _Pictures(FakePictures):
    """Analyses run here as well, and find nothing."""

    def start(self, *_, **__):
        pass

    def stop(self, analysis):
        pass


class Gateway:
    """A city and the worker before it: `ask` is a request of a caller to the worker's port."""

    def __init__(self, city, worker, client, port):
        self.city = city
        self.worker = worker
        self._client = client
        self._base = f"http://127.0.0.1:{port}"

    async def settle(self):
        """Until no session is left: ended, and the ends recorded."""
        live = self.city.services.live
        for session in list(live.all()):
            live.end(session.id, EndReason.ENDED)
        await self.city.until(lambda: not len(live))

    def ask(self, caller, method, path, **options):
        """An aiohttp request context; the body is left to the caller."""
        headers = dict(options.pop("headers", {}))
        if (name := ACCOUNTS.get(caller)) is not None:
            headers["Authorization"] = f"Bearer {self.city.tokens[name]}"
        return self._client.request(method, f"{self._base}{path}", headers=headers, **options)

    async def answer(self, caller, method, path, body=None):
        """(status, JSON or None)."""
        options = {} if body is None else {"json": body}
        async with self.ask(caller, method, path, **options) as answer:
            text = await answer.read()
            return answer.status, msgspec.json.decode(text) if "json" in answer.content_type else None

    async def watch(self, caller):
        """(session, ticket) of the gate's camera; None if he may not."""
        status, opened = await self.answer(caller, "POST", "/api/v1/sessions", SESSION)
        return (opened["id"], opened["media"]["ticket"]) if status == 201 else None

    def websocket(self, path, headers=None):
        return self._client.ws_connect(f"{self._base}{path}", headers=headers, max_msg_size=0)


async def _furnish(city):
    await add_user(city, "spare", "urban", "operator", login=False)
    for name, role in (
        ("urban-visitor", "operator"),
        ("urban-auditor", "auditor"),
        ("urban-expired", "operator"),
        ("urban-disabled", "operator"),
        ("traffic-deputy", "department-administrator"),
        ("traffic-enrolling", "department-administrator"),
    ):
        if name not in city.tokens:
            await add_user(city, name, name.partition("-")[0], role)
    if "urban-wall" not in city.tokens:
        await add_user(city, "urban-wall", "urban", kind="wall")
    soon = city.clock() + timedelta(seconds=1)
    await city.grant(actions=_GRANTED)
    await city.grant("job", actions=["frames:consume"])
    await city.grant("urban-wall")
    await city.grant("urban-disabled", actions=_GRANTED)
    await city.grant("urban-expired", actions=_GRANTED, valid_to=soon.isoformat())
    city.clock.advance(2)
    await city.call("root", "PATCH", "/users/urban-disabled", {"enabled": False})
    # who must have one is `gateway.authentication`'s own tests; here it is one, and the others need none
    city.services.authentication._needs_second_factor = lambda who: who.id == "traffic-enrolling"


async def undertaking(city):
    """Everybody who can accepts the newest one."""
    for caller, username in ACCOUNTS.items():
        if caller not in {Caller.JOB, Caller.WALL, Caller.DISABLED, Caller.MUST_ENROL}:
            await city.accept_undertaking(username)


@contextlib.asynccontextmanager
async def open_gateway(folder):
    """Everybody is logged in but nobody; cameras send clips, and pictures are made without a process."""
    settings = {
        "login": LoginSettings(second_factor="nobody", failures_per_user=10_000, failures_per_address=10_000),
        "sessions": SessionSettings(lost_seconds=0.0),
    }
    async with open_city(folder, **settings) as city, asyncio.TaskGroup() as tasks:
        await _furnish(city)
        relay = RelaySettings(
            worker=0, host="127.0.0.1", port=0, run_folder=str(folder), usage_seconds=0.05, hls=_QUICK_HLS
        )
        worker = RelayWorker(relay, lambda _address: ClipSource(), _Pictures())
        ready = asyncio.get_running_loop().create_future()
        tasks.create_task(worker.run(ready.set_result))
        timeout = aiohttp.ClientTimeout(total=PATIENCE_SECONDS)
        # a connection that carried media is not used again
        connector = aiohttp.TCPConnector(force_close=True)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as client:
            gateway = Gateway(city, worker, client, await ready)
            await city.until(lambda: worker.is_ready)
            try:
                yield gateway
            finally:
                worker.stop()
