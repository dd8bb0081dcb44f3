"""Control as a relay worker sees it: the real messages on one Unix socket, HTTP on another."""

import asyncio
import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
from aiohttp import web

from gateway.channel import Channel, ChannelError
from gateway.messages import (
    PUSH_URL,
    Claim,
    Claimed,
    Lease,
    PublisherExpected,
    PublisherLogin,
    Redeem,
    Redeemed,
    Refused,
    SessionOver,
    ToControl,
    ToWorker,
)
from policies.access import Action, Obligations
from streams.sources.source import CameraAddress

MARK_KEY = b"k" * 32
_DECODER = msgspec.msgpack.Decoder(ToControl)


@dataclass
class Ticket:
    session: str
    camera: str
    action: Action = Action.LIVE_VIEW
    obligations: Obligations = field(default_factory=Obligations)


@dataclass
class FakeControl:
    """`tickets` are single use; `peers`: streams that another worker has; `refusals`: codes of claims.

    All that the worker says is kept in `received`, and can be waited for."""

    folder: Path
    lease_seconds: float = 0.05
    tickets: dict[str, Ticket] = field(default_factory=dict)
    addresses: dict[str, CameraAddress] = field(default_factory=dict)
    received: list[ToControl] = field(default_factory=list)
    requests: list[tuple[str, str, dict[str, str], bytes]] = field(default_factory=list)
    obligations: Obligations = field(default_factory=Obligations)
    answer_redeem: asyncio.Event = field(default_factory=asyncio.Event)
    answer_claims: asyncio.Event = field(default_factory=asyncio.Event)
    leases: bool = True
    peers: dict[str, int] = field(default_factory=dict)
    refusals: dict[str, str] = field(default_factory=dict)
    logins: dict[str, tuple[str, str]] = field(default_factory=dict)
    epoch: int = 0
    forget_sse: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.answer_redeem.set()
        self.answer_claims.set()
        self._changed = asyncio.Condition()
        self._channel: Channel[ToControl, ToWorker] | None = None

    def ticket(self, session: int, camera: str = "camera-1", **options: object) -> tuple[str, str]:
        """A new session's id and ticket; the camera is one to pull, unless the test has said otherwise."""
        session_id, secret = f"{session:032x}", f"ticket-{session}-{len(self.tickets)}"
        self.tickets[secret] = Ticket(session_id, camera, **options)
        self.addresses.setdefault(camera, CameraAddress(url=f"rtsp://127.0.0.1:1/{camera}"))
        return session_id, secret

    def send(self, message: ToWorker) -> None:
        self._channel.send(message)

    def disconnect(self) -> None:
        self._channel.abort()

    async def wait_for(self, kind: type, accepts: Callable[[ToControl], bool] = lambda _: True) -> ToControl:
        def found():
            return next((m for m in self.received if isinstance(m, kind) and accepts(m)), None)

        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(found)
        return found()

    async def over(self, session_id: str) -> SessionOver:
        return await self.wait_for(SessionOver, lambda message: message.session == session_id)

    @contextlib.asynccontextmanager
    async def serve(self):
        """Both sockets, until the context ends."""
        async with asyncio.TaskGroup() as tasks:
            conversations: list[asyncio.Task[None]] = []

            def connected(reader, writer):
                conversations.append(tasks.create_task(self._converse(Channel(reader, writer, _DECODER))))

            server = await asyncio.start_unix_server(connected, self.folder / "control.sock")
            try:
                async with self._http():
                    yield self
            finally:
                server.close()
                for conversation in conversations:
                    conversation.cancel()

    async def _converse(self, channel: Channel[ToControl, ToWorker]) -> None:
        try:
            async with asyncio.TaskGroup() as tasks:
                self._channel = channel
                leases = tasks.create_task(self._lease(channel))
                async for message in channel:
                    async with self._changed:
                        self.received.append(message)
                        self._changed.notify_all()
                    if isinstance(message, Redeem | Claim | PublisherLogin):
                        tasks.create_task(self._answer(channel, message))
                leases.cancel()
        except* ChannelError:
            pass
        finally:
            channel.abort()

    async def _lease(self, channel: Channel[ToControl, ToWorker]) -> None:
        with contextlib.suppress(ChannelError):
            for sequence in range(1 << 30):
                if self.leases:
                    channel.send(Lease(sequence=sequence))
                await asyncio.sleep(self.lease_seconds)

    async def _answer(
        self, channel: Channel[ToControl, ToWorker], message: Redeem | Claim | PublisherLogin
    ) -> None:
        with contextlib.suppress(ChannelError):
            if isinstance(message, Redeem):
                await self.answer_redeem.wait()
                channel.send(self._redeem(message))
            elif isinstance(message, PublisherLogin):
                channel.send(self._expected(message))
            else:
                await self.answer_claims.wait()
                channel.send(self._claim(message))

    def _expected(self, message: PublisherLogin) -> PublisherExpected | Refused:
        if message.camera not in self.logins:
            return Refused(request=message.request, status=404, code="not_found", detail="")
        username, password = self.logins[message.camera]
        return PublisherExpected(
            request=message.request, camera=message.camera, username=username, password=password
        )

    def _claim(self, message: Claim) -> Claimed | Refused:
        stream = message.stream
        if stream in self.refusals or (stream not in self.addresses and stream not in self.peers):
            code = self.refusals.get(stream, "not_found")
            return Refused(request=message.request, status=404, code=code, detail="")
        self.epoch += 1
        peer = None if message.publishing else self.peers.get(stream)
        return Claimed(
            request=message.request,
            stream=stream,
            epoch=self.epoch,
            address=self._address(stream) if peer is None else None,
            peer=peer,
        )

    def _address(self, stream: str) -> CameraAddress:
        """An encoder's camera has its encoder's login."""
        address = self.addresses[stream]
        if address.url != PUSH_URL or stream not in self.logins:
            return address
        username, password = self.logins[stream]
        return msgspec.structs.replace(address, username=username, password=password)

    def _redeem(self, message: Redeem) -> Redeemed | Refused:
        ticket = self.tickets.pop(message.ticket, None)
        if ticket is None or ticket.session != message.session:
            return Refused(request=message.request, status=403, code="ticket_invalid", detail="used")
        return Redeemed(
            request=message.request,
            session=ticket.session,
            camera=ticket.camera,
            stream=ticket.camera,
            action=ticket.action,
            obligations=ticket.obligations,
            mark_key=MARK_KEY,
        )

    @contextlib.asynccontextmanager
    async def _http(self):
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_post("/api/v1/sessions", self._open_session)
        app.router.add_get("/events", self._events)
        app.router.add_route("*", "/{path:.*}", self._echo)
        runner = web.AppRunner(
            app, access_log=None, handler_cancellation=True, auto_decompress=False, shutdown_timeout=0.1
        )
        await runner.setup()
        await web.UnixSite(runner, str(self.folder / "control-http.sock")).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _echo(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.raw_path, dict(request.headers), body))
        headers = [("Set-Cookie", "a=1"), ("Set-Cookie", "b=2"), ("X-Control", "yes")]
        return web.Response(status=int(request.query.get("status", 200)), body=body, headers=headers)

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        try:
            await response.write(b"data: first\n\n")
            await asyncio.Event().wait()
        finally:
            self.forget_sse.set()
        return response

    async def _open_session(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.requests.append((request.method, request.raw_path, dict(request.headers), body))
        asked = json.loads(body)
        if request.headers.get("Authorization") != "Bearer good":
            return web.json_response(
                {"code": "not_authenticated"}, status=401, content_type="application/problem+json"
            )
        if "purpose" not in asked:
            return web.json_response(
                {"code": "purpose_required"}, status=422, content_type="application/problem+json"
            )
        session_id, ticket = self.ticket(
            1000 + len(self.requests),
            asked["camera"],
            action=Action(asked["action"]),
            obligations=self.obligations,
        )
        return web.json_response({"id": session_id, "media": {"ticket": ticket}}, status=201)
