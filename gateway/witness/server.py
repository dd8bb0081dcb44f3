"""What a witness shows to whoever asks: the heads that it holds, and how it is going.

Heads are signed with the gateway's key, so that nobody need trust the witness or the way to it.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from aiohttp import web

from gateway.witness.state import Alarm
from gateway.witness.witness import Witness


class HeldHeads(msgspec.Struct, frozen=True, kw_only=True):
    """The newest heads first; `keys` are the rotations that prove with which key each is signed."""

    public_key: str
    items: list[dict[str, Any]]
    keys: list[dict[str, Any]]


class WitnessStatus(msgspec.Struct, frozen=True, kw_only=True):
    """`ok`: nothing alarms and the newest pull was good. `alive_time`: the newest that the gateway signed."""

    ok: bool
    origin: str
    held_size: int
    held_time: int | None
    alive_time: int
    last_error: str | None
    active: list[Alarm]
    alarms: list[Alarm]


def held_heads(witness: Witness) -> HeldHeads:
    state = witness.state
    return HeldHeads(
        public_key=state.keys.first.to_text(),
        items=[head.to_json() for head in reversed(state.heads)],
        keys=[rotation.to_json() for rotation in state.rotations],
    )


def status(witness: Witness) -> WitnessStatus:
    state = witness.state
    return WitnessStatus(
        ok=not state.active and witness.last_error is None,
        origin=state.keys.origin,
        held_size=state.held_size,
        held_time=None if state.newest is None else state.newest.head.signed_at,
        alive_time=witness.alive_time,
        last_error=witness.last_error,
        active=list(state.active.values()),
        alarms=list(state.alarms),
    )


@asynccontextmanager
async def serving(witness: Witness, host: str, port: int) -> AsyncIterator[int]:
    """`GET /heads` and `GET /status` until the context ends; yield the port. Raise OSError."""

    async def heads(_: web.Request) -> web.Response:
        return _json(held_heads(witness))

    async def state(_: web.Request) -> web.Response:
        return _json(status(witness))

    app = web.Application(client_max_size=0)
    app.router.add_get("/heads", heads)
    app.router.add_get("/status", state)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
        yield int(runner.addresses[0][1])
    finally:
        await runner.cleanup()


def _json(answer: HeldHeads | WitnessStatus) -> web.Response:
    headers = {"Cache-Control": "no-store"}
    return web.Response(body=msgspec.json.encode(answer), content_type="application/json", headers=headers)
