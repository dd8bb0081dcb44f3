"""The parts of the RTMP server that need no network: what a connection does to its transport."""

import asyncio
import socket
from types import SimpleNamespace

from gateway.relay.guard import ConnectionGuard, GuardSettings
from gateway.relay.rtmp_server import RtmpConnection, RtmpServer


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
