"""A whole control in the test's own process: its API socket, a clock of the test's, fake workers."""

import asyncio
import atexit
import contextlib
import itertools
import json
import shutil
import tempfile
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import msgspec

from gateway.accounts import bootstrap
from gateway.app import Control
from gateway.authentication import LoginSettings
from gateway.channel import Channel, ChannelError
from gateway.clock import to_micros
from gateway.composition import ControlSettings
from gateway.messages import (
    Claim,
    Claimed,
    End,
    Hello,
    PublisherExpected,
    PublisherLogin,
    Redeem,
    Redeemed,
    Refused,
    SessionOver,
    SessionUsage,
    StreamMoved,
    ToWorker,
    Usage,
)
from gateway.passwords import Passwords, PasswordSettings
from gateway.settings import EgressFileSettings, Settings
from gateway.store.store import Store, StoreSettings

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "a-long-enough-password"
ROSTER = "roster 2026-01"
"""What a patrol refers to."""
PATROL = {"code": "patrol", "reference": ROSTER}
CHEAP = PasswordSettings(memory_kib=64, passes=1)
NOBODY = LoginSettings(second_factor="nobody")
PATIENCE_SECONDS = 10
ACCOUNTS = {
    "root": "system-administrator",
    "traffic-admin": "department-administrator",
    "urban-admin": "department-administrator",
    "traffic-operator": "operator",
    "urban-operator": "operator",
    "auditor": "auditor",
    "security": "security-administrator",
    "job": "job",
}


class Clock:
    """Stands still until the test moves it, or releases it so that closing need not wait.

    `advance` steps the wall clock; `elapsed`, in seconds, is the monotonic one.
    """

    def __init__(self, now=datetime(2026, 1, 5, 8, tzinfo=UTC)):
        self.now = now
        self.elapsed = 0
        self.released = None

    def __call__(self):
        return self.now + timedelta(seconds=self._since_release())

    def monotonic_ns(self):
        return int((self.elapsed + self._since_release()) * 1e9)

    def _since_release(self):
        return 0 if self.released is None else 20 * (time.monotonic() - self.released)

    def release(self):
        self.released = time.monotonic()

    def advance(self, seconds):
        self.now += timedelta(seconds=seconds)


@dataclass
class FakeWorker:
    """A relay worker's end of the link. Everything that control says is in `received`.

    When told to end a session it says that it has, with the bytes in `sent`, unless it is not `obedient`.
    """

    worker: int
    channel: Channel
    obedient: bool = True
    sent: dict[str, int] = field(default_factory=dict)
    received: list = field(default_factory=list)
    _numbers: itertools.count = field(default_factory=itertools.count)

    def __post_init__(self):
        self._changed = asyncio.Condition()

    async def read(self):
        async for message in self.channel:
            if isinstance(message, End) and self.obedient:
                self.send(
                    SessionOver(
                        session=message.session,
                        reason=message.reason,
                        lost=False,
                        bytes_sent=self.sent.get(message.session, 0),
                        dropped_access_units=0,
                    )
                )
            await self._add(message)
        await self._add("closed")

    async def _add(self, message):
        async with self._changed:
            self.received.append(message)
            self._changed.notify_all()

    def send(self, message):
        self.channel.send(message)

    async def wait_for(self, kind, accepts=lambda _: True):
        def found():
            return next((m for m in self.received if isinstance(m, kind) and accepts(m)), None)

        async with asyncio.timeout(PATIENCE_SECONDS), self._changed:
            await self._changed.wait_for(found)
        return found()

    async def closed(self):
        await self.wait_for(str)

    async def redeem(self, session, ticket, protocol="flv"):
        number = next(self._numbers)
        self.send(
            Redeem(request=number, session=session, ticket=ticket, protocol=protocol, remote="192.0.2.7")
        )
        return await self.wait_for(Redeemed | Refused, lambda answer: answer.request == number)

    async def claim(self, stream, *, publishing=False):
        number = next(self._numbers)
        self.send(Claim(request=number, stream=stream, publishing=publishing))
        return await self.wait_for(Claimed | Refused, lambda answer: answer.request == number)

    async def publisher_login(self, camera):
        number = next(self._numbers)
        self.send(PublisherLogin(request=number, camera=camera))
        return await self.wait_for(PublisherExpected | Refused, lambda answer: answer.request == number)

    async def moved(self, stream):
        """Control has said that the stream moved: the first such message, once."""
        message = await self.wait_for(StreamMoved, lambda moved: moved.stream == stream)
        self.received.remove(message)
        return message

    async def start(self, opened):
        """Redeem an opened session's ticket, which must work."""
        answer = await self.redeem(opened["id"], opened["media"]["ticket"])
        assert isinstance(answer, Redeemed), answer
        return answer

    async def usage(self, session, sent):
        self.send(
            Usage(
                sessions=[SessionUsage(session=session, bytes_sent=sent, dropped_access_units=0)], cameras=[]
            )
        )
        await self.settled()

    async def over(self, session, reason="completed", *, lost=False, sent=0, dropped=0):
        self.send(
            SessionOver(
                session=session, reason=reason, lost=lost, bytes_sent=sent, dropped_access_units=dropped
            )
        )
        await self.settled()

    async def settled(self):
        """Control has handled all that was sent so far: messages are handled in order."""
        await self.claim("no-such-camera")

    async def ended(self, session):
        return await self.wait_for(End, lambda end: end.session == session)


@dataclass
class City:
    """A running control. `call` speaks to its API as somebody who has logged in."""

    control: Control
    folder: Path
    clock: Clock
    http: aiohttp.ClientSession
    tasks: asyncio.TaskGroup
    tokens: dict[str, str] = field(default_factory=dict)
    keys: dict[str, str] = field(default_factory=dict)
    """Passwords of jobs, which are always generated."""

    @property
    def services(self):
        return self.control.services

    async def request(self, method, path, token=None, *, headers=None, **options):
        """(status, headers, body as text) of a request to the socket, as a relay worker would pass it on."""
        sent = {"X-Custos-Remote": "192.0.2.1", **(headers or {})}
        if token is not None:
            sent["Authorization"] = f"Bearer {token}"
        async with self.http.request(method, f"http://custos{path}", headers=sent, **options) as answer:
            return answer.status, answer.headers, await answer.text()

    async def call(self, username, method, path, body=None, expect=None, **options):
        """The JSON answer; `expect` is the status (any success without it)."""
        token = self.tokens[username] if username else None
        if body is not None:
            options["data"] = json.dumps(body)
        status, headers, text = await self.request(method, f"/api/v1{path}", token, **options)
        if expect is None:
            assert status < 400, (method, path, status, text)
        else:
            assert status == expect, (method, path, status, text)
        if status >= 400:
            assert headers["Content-Type"] == "application/problem+json", headers
        kind = headers.get("Content-Type", "").partition(";")[0]
        return json.loads(text) if kind in {"application/json", "application/problem+json"} else text

    async def login(self, username, password=None, *, undertakes=True, **options):
        """`undertakes`: a person accepts the undertaking too, if he has not yet."""
        password = password or self.keys.get(username, PASSWORD)
        answer = await self.call(
            None, "POST", "/login", {"username": username, "password": password}, **options
        )
        self.tokens[username] = answer.get("token")
        if undertakes and self.tokens[username] and answer["user"]["kind"] == "person":
            await self.accept_undertaking(username)
        return answer

    async def accept_undertaking(self, username):
        version = (await self.call(username, "GET", "/undertaking"))["version"]
        await self.call(username, "POST", "/undertaking/accept", {"version": version})

    async def watch(self, username, camera="gate", expect=None, purpose="patrol", **more):
        body = {"camera": camera, "purpose": {"code": purpose, "reference": ROSTER}, **more}
        return await self.call(username, "POST", "/sessions", body, expect)

    async def grant(
        self, user="urban-operator", camera="gate", actions=("live:view",), by="traffic-admin", **more
    ):
        body = {
            "subject": {"kind": "user", "id": user},
            "object": {"kind": "camera", "id": camera},
            "actions": list(actions),
            **more,
        }
        return (await self.call(by, "POST", "/grants", body))["id"]

    async def worker(self, worker=0, pid=1000, sessions=(), streams=None, revision=None):
        """Connect a worker and wait until control has welcomed it."""
        reader, writer = await asyncio.open_unix_connection(self.folder / "control.sock")
        fake = FakeWorker(worker, Channel(reader, writer, msgspec.msgpack.Decoder(ToWorker)))
        self.tasks.create_task(_read(fake))
        hello = Hello(
            worker=worker, pid=pid, revision=revision, sessions=list(sessions), streams=streams or {}
        )
        fake.send(hello)
        await fake.settled()
        return fake

    async def records(self, **wanted):
        """The ledger's records, the oldest first, without making any: kind, session, actor, ..."""
        return [
            event
            for event in await ledger_events(self.services.store)
            if all(getattr(event, name) == value for name, value in wanted.items())
        ]

    async def until(self, condition):
        """Wait until control's own tasks have made it so; they turn every 0.25 s."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not (result := condition()):
                await asyncio.sleep(0.01)
        return result

    async def recorded(self, count=1, **wanted):
        """Wait until the ledger has so many such records."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while len(found := await self.records(**wanted)) < count:
                await asyncio.sleep(0.02)
        return found


async def ledger_events(store):
    import sqlalchemy as sa

    from gateway.audit.records import parse
    from gateway.store.schema import audit_records

    async with store.read() as conn:
        rows = await conn.execute(sa.select(audit_records).order_by(audit_records.c.seq))
        return [parse(row.leaf, row.disclosures).event for row in rows]


async def _read(fake):
    try:
        with contextlib.suppress(ConnectionError, ChannelError):
            await fake.read()
    finally:
        await fake.channel.aclose()


@asynccontextmanager
async def open_city(folder, *, url=None, clock=None, furnish=True, portal=None, **settings):
    """A control on `folder`, an installation of the test's own; open it again to restart it.

    `furnish`: with the accounts, all logged in, and the cameras of `_furnish`.
    """
    if furnish and url is None and not (folder / "data").exists():
        shutil.copytree(await _template(), folder, dirs_exist_ok=True)
    async with _open(folder, url, clock or Clock(), portal, settings) as city:
        tokens = folder / "tokens.json"
        if tokens.exists():
            city.tokens.update(json.loads(tokens.read_text()))
            city.keys.update(json.loads((folder / "keys.json").read_text()))
        elif furnish:
            await _furnish(city)
            tokens.write_text(json.dumps(city.tokens))
            (folder / "keys.json").write_text(json.dumps(city.keys))
        yield city


_templates = []


async def _template():
    """A furnished installation to copy: furnishing takes half a second."""
    if not _templates:
        folder = Path(tempfile.mkdtemp(prefix="custos-test-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        async with _open(folder, None, Clock(), None, {}) as city:
            await _furnish(city)
        (folder / "control.sock").unlink(missing_ok=True)
        (folder / "control-http.sock").unlink(missing_ok=True)
        (folder / "tokens.json").write_text(json.dumps(city.tokens))
        (folder / "keys.json").write_text(json.dumps(city.keys))
        _templates.append(folder)
    return _templates[0]


@asynccontextmanager
async def _open(folder, url, clock, portal, settings):
    clock.released = None
    data, run = folder / "data", folder
    is_new = not data.exists()
    data.mkdir(exist_ok=True)
    composed = Settings(
        data=str(data),
        egress=EgressFileSettings(allowed_networks=("127.0.0.0/8",)),
        **{
            "policies": str(ROOT / "config" / "policies.yaml"),
            "passwords": CHEAP,
            "login": NOBODY,
            **settings,
        },
    )
    if is_new:
        async with Store.open(StoreSettings(data, url=url), clock=lambda: to_micros(clock())) as store:
            await bootstrap(store, await Passwords(CHEAP).hash(PASSWORD), "root", "City 市")
    options = ControlSettings(settings=composed, run_folder=str(run), database_url=url, portal=portal)
    connector = aiohttp.UnixConnector(str(run / "control-http.sock"), limit=0)
    async with (
        _cancelled_at_the_end() as tasks,
        Control.open(options, clock, clock.monotonic_ns) as control,
        aiohttp.ClientSession(
            connector=connector,
            timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
            cookie_jar=aiohttp.DummyCookieJar(),
        ) as http,
    ):
        yield City(control, run, clock, http, tasks)
        clock.release()


@asynccontextmanager
async def _cancelled_at_the_end():
    async with asyncio.TaskGroup() as tasks:
        yield tasks
        for task in tuple(tasks._tasks):
            task.cancel()


async def _furnish(city):
    """Departments `traffic` and `urban`, everybody in ACCOUNTS logged in, two cameras of `traffic`."""
    root = (await city.login("root"))["user"]["department"]["id"]
    for department in ("traffic", "urban"):
        await city.call(
            "root", "POST", "/departments", {"id": department, "name": department, "parent_id": root}
        )
    for username, role in ACCOUNTS.items():
        if username == "root":
            continue
        department = username.partition("-")[0] if "-" in username else root
        await add_user(city, username, department, role)
    for camera in ("gate", "bridge"):
        await add_camera(city, camera)


async def particulars(city, **more):
    """Of a job for which root answers, that comes from here or from the documentation's networks."""
    return {
        "responsible_id": (await city.call("root", "GET", "/me"))["id"],
        "processing": "counts vehicles 车流统计",
        "recipients": ["traffic 交通"],
        "result_days": 30,
        "networks": ["127.0.0.0/8", "192.0.2.0/24"],
        **more,
    }


async def add_user(city, username, department, *roles, kind=None, login=True, undertakes=True, job=None):
    """`kind` None: a job if that is its role, else a person. `job`: particulars other than the usual."""
    kind = kind or ("job" if "job" in roles else "person")
    body = {
        "id": username, "username": username, "display_name": f"{username} 姓名",
        "department_id": department, "roles": list(roles), "kind": kind,
    }  # fmt: skip
    if kind == "job":
        body["job"] = await particulars(city, **(job or {}))
        city.keys[username] = (await city.call("root", "POST", "/users", body))["password"]
    else:
        await city.call("root", "POST", "/users", body | {"password": PASSWORD})
    if login:
        await city.login(username, undertakes=undertakes)


async def add_camera(city, camera, **more):
    body = {
        "id": camera, "name": f"{camera} 摄像机", "department_id": "traffic",
        "url": f"rtsp://127.0.0.1:8554/{camera}", "username": "viewer", "password": "camera-password", **more,
    }  # fmt: skip
    return await city.call("traffic-admin", "POST", "/cameras", body)
