"""Which process of a node serves whom, as the kernel tells it, and viewers that read from them."""

import asyncio
import subprocess
from pathlib import Path

import aiohttp

RELAY = "gateway.relay"
CONTROL = "gateway.app"
ANALYSIS = "analytics.process"
PATIENCE_SECONDS = 15


def children_of(node, module):
    """The process ids of the node's children that run a module."""
    found = subprocess.run(
        ["pgrep", "-P", str(node.process.pid), "-f", module], capture_output=True, text=True, check=False
    ).stdout.split()
    return sorted(map(int, found))


def connections_of(pid):
    """The (local port, remote port) of each established TCP connection over IPv4 of a process."""
    inodes = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = str(descriptor.readlink())
        except OSError:
            continue
        if target.startswith("socket:["):
            inodes.add(target[8:-1])
    found = set()
    for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and fields[9] in inodes:
            found.add(tuple(int(fields[place].rpartition(":")[2], 16) for place in (1, 2)))
    return found


class Viewer:
    """Reads a stream in the background over a connection of its own, and counts.

    `port`: its own, once it is answered.
    """

    def __init__(self, url):
        self.bytes = 0
        self.port = None
        self.status = None
        self.answered = asyncio.Event()
        self.ended = asyncio.Event()
        self._url = url

    async def run(self):
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http,
                http.get(self._url) as answer,
            ):
                self.status = answer.status
                self.port = answer.connection.transport.get_extra_info("sockname")[1]
                self.answered.set()
                assert answer.status == 200
                async for chunk in answer.content.iter_any():
                    self.bytes += len(chunk)
        except aiohttp.ClientError:
            pass
        finally:
            self.ended.set()

    async def more(self, count=20_000, seconds=PATIENCE_SECONDS):
        """Wait until so many more bytes have come."""
        target = self.bytes + count
        async with asyncio.timeout(seconds):
            while self.bytes < target:
                assert not self.ended.is_set()
                await asyncio.sleep(0.02)

    def worker(self, node):
        """The process id of the worker that serves it."""
        return next(
            pid
            for pid in children_of(node, RELAY)
            if any(remote == self.port for _, remote in connections_of(pid))
        )


async def until(condition, seconds=PATIENCE_SECONDS):
    async with asyncio.timeout(seconds):
        while not await condition():
            await asyncio.sleep(0.05)
