"""The parts of the RTMP server that need no network: what a connection does to its transport."""

import asyncio
import contextlib
import socket
from types import SimpleNamespace

import pytest

from gateway.relay import rtmp_server
from gateway.relay.guard import ConnectionGuard, GuardSettings
from gateway.relay.publishers import SILENCE_SECONDS
from gateway.relay.rtmp_server import (
    MAX_STRANGERS_BIT_RATE_BPS,
    MAX_UNSENT_BYTES,
    RtmpConnection,
    RtmpServer,
)
from streams.sources.bit_rate_limit import MIN_CHARGE_BYTES
from streams.sources.rtsp_connection import LARGE_READ_BYTES
from streams.wire.rtmp import DATA, HANDSHAKE_BYTES, VIDEO, serialize_message

HELLO = b"\x03" + bytes(HANDSHAKE_BYTES) * 2
SECOND_NS = 1_000_000_000


class FakeTransport:
    """Nothing leaves it but what its test looks at. `calls`: the names, in order."""

    def __init__(self, unsent=0):
        self.calls = []
        self._unsent = unsent

    def get_extra_info(self, name):
        return SimpleNamespace(family=socket.AF_UNIX) if name == "socket" else ("192.0.2.1", 5000)

    def get_write_buffer_size(self):
        return self._unsent

    def is_closing(self):
        return "close" in self.calls or "abort" in self.calls

    def write(self, data):
        self.calls.append("write")

    def __getattr__(self, name):
        return lambda: self.calls.append(name)


async def test_who_fails_before_its_task_begins_is_closed():
    """A cancelled task that never ran closes nothing: uvloop reads before the task's first step."""
    guard = ConnectionGuard(GuardSettings())
    server = RtmpServer(None, guard)
    async with server.serving("127.0.0.1", 0):
        connection, transport = RtmpConnection(guard, server._start), FakeTransport()
        connection.connection_made(transport)
        connection.data_received(b"GET / HTTP/1.1\r\n\r\n")
        await asyncio.wait(server._tasks)
        assert transport.calls == ["close"]


@contextlib.asynccontextmanager
async def connected(unsent=0):
    """A connection that nobody serves, and its transport."""
    async with asyncio.TaskGroup() as tasks:
        serving = tasks.create_task(asyncio.Event().wait())
        connection = RtmpConnection(ConnectionGuard(GuardSettings()), lambda _: serving)
        transport = FakeTransport(unsent)
        connection.connection_made(transport)
        yield connection, transport
        serving.cancel()


@pytest.mark.parametrize(
    ("unsent", "calls"), [(MAX_UNSENT_BYTES, ["write"]), (MAX_UNSENT_BYTES + 1, ["abort"])]
)
async def test_answers_that_nobody_reads_are_bounded(unsent, calls):
    async with connected(unsent) as (connection, transport):
        connection.answer("_result", 1.0)
        assert transport.calls == calls


async def test_a_stranger_s_messages_are_charged_while_they_are_read():
    """An empty message counts as a packet does: the rest of the read is not parsed any more."""
    most = MAX_STRANGERS_BIT_RATE_BPS // 8 // MIN_CHARGE_BYTES
    for messages, is_refused in ((most // 2, False), (most, True)):
        async with connected() as (connection, _):
            connection.data_received(HELLO + serialize_message(DATA, b"") * messages)
            assert (connection.failure is not None) is is_refused


async def test_after_a_large_read_the_others_get_their_turn():
    async with connected() as (connection, transport):
        connection.admit()
        connection.data_received(HELLO)
        transport.calls.clear()
        picture = serialize_message(VIDEO, bytes(100))
        connection.data_received(picture)
        assert transport.calls == []
        connection.data_received(picture * (LARGE_READ_BYTES // len(picture) + 1))
        assert transport.calls == ["pause_reading"]
        await asyncio.sleep(0)
        assert transport.calls == ["pause_reading", "resume_reading"]


async def test_who_left_meanwhile_is_not_read_again():
    async with connected() as (connection, transport):
        connection.admit()
        connection.data_received(HELLO + serialize_message(VIDEO, bytes(100)) * (LARGE_READ_BYTES // 100))
        connection.close()
        await asyncio.sleep(0)
        assert transport.calls[-2:] == ["pause_reading", "close"]


async def test_silence_begins_with_the_last_picture(monkeypatch):
    """Neither what the encoder says nor the window that a picture came in prolongs it."""
    now_s = 0

    async def next_command():
        nonlocal now_s
        now_s += 1
        assert now_s < 60
        if now_s == 5:
            media.last_unit_ns = 5 * SECOND_NS
        return ["FCPublish"]

    media, talking = SimpleNamespace(last_unit_ns=0), SimpleNamespace(next_command=next_command)
    monkeypatch.setattr(rtmp_server, "time", SimpleNamespace(monotonic_ns=lambda: now_s * SECOND_NS))
    await rtmp_server._until_silent(talking, media)
    assert now_s == 5 + SILENCE_SECONDS
