"""A viewer of HTTP-FLV that takes the tags apart and remembers when they came."""

import asyncio
import itertools
import socket
import statistics
from urllib.parse import urlsplit

_HEADER_BYTES = 13
_TAG_HEADER_BYTES = 11
_TRAILER_BYTES = 4
_VIDEO_TAG = 9
PATIENCE_SECONDS = 15


class FlvViewer(asyncio.Protocol):
    """`run` reads until the stream ends, and never raises for what the connection does.

    `arrivals`: when pieces of media came, in seconds of the loop's clock. `timestamps`: of the pictures, in
    ms, without the codec's configuration. `receive_buffer`: what the kernel may hold, in bytes.
    """

    def __init__(self, url, *, tls=None, receive_buffer=None):
        self.arrivals = []
        self.timestamps = []
        self.status = None
        self.ended = asyncio.Event()
        self._url = urlsplit(url)
        self._tls = tls
        self._receive_buffer = receive_buffer
        self._transport = None
        self._head = b""
        self._buffer = bytearray()
        self._header_is_due = True

    async def run(self):
        loop = asyncio.get_running_loop()
        own = socket.socket()
        if self._receive_buffer is not None:
            own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        own.setblocking(False)
        await loop.sock_connect(own, (self._url.hostname, self._url.port))
        name = None if self._tls is None else ""
        self._transport, _ = await loop.create_connection(
            lambda: self, sock=own, ssl=self._tls, server_hostname=name
        )
        # HTTP/1.0: the body comes as it is, without chunks
        request = f"GET {self._url.path}?{self._url.query} HTTP/1.0\r\nHost: {self._url.netloc}\r\n\r\n"
        self._transport.write(request.encode())
        try:
            await self.ended.wait()
        finally:
            self._transport.abort()

    def stop_reading(self):
        self._transport.pause_reading()

    def data_received(self, data):
        if self.status is None:
            head, end, data = (self._head + data).partition(b"\r\n\r\n")
            if not end:
                self._head = head
                return
            self.status = int(head.split(b" ", 2)[1])
        if self.status == 200 and data:
            self.feed(data)

    def connection_lost(self, exc):
        self.ended.set()

    def feed(self, data):
        self.arrivals.append(asyncio.get_running_loop().time())
        self._buffer += data
        if self._header_is_due:
            if len(self._buffer) < _HEADER_BYTES:
                return
            assert self._buffer[:3] == b"FLV"
            del self._buffer[:_HEADER_BYTES]
            self._header_is_due = False
        position = 0
        while len(self._buffer) - position >= _TAG_HEADER_BYTES:
            size = int.from_bytes(self._buffer[position + 1 : position + 4])
            end = position + _TAG_HEADER_BYTES + size + _TRAILER_BYTES
            if len(self._buffer) < end:
                break
            self._take_tag(position)
            position = end
        del self._buffer[:position]

    def _take_tag(self, position):
        is_video = self._buffer[position] & 0x1F == _VIDEO_TAG
        is_picture = self._buffer[position + _TAG_HEADER_BYTES + 1] == 1  # AVCPacketType: a NAL unit
        if is_video and is_picture:
            low = int.from_bytes(self._buffer[position + 4 : position + 7])
            self.timestamps.append(self._buffer[position + 7] << 24 | low)

    async def more(self, pictures=10, seconds=PATIENCE_SECONDS):
        """Wait until so many more pictures have come."""
        target = len(self.timestamps) + pictures
        async with asyncio.timeout(seconds):
            while len(self.timestamps) < target:
                assert not self.ended.is_set(), self.status
                await asyncio.sleep(0.02)

    @property
    def steps_ms(self):
        """The steps between the pictures' time stamps, each once."""
        return {after - before for before, after in itertools.pairwise(self.timestamps)}

    @property
    def gaps(self):
        """Seconds between arrivals."""
        return [after - before for before, after in itertools.pairwise(self.arrivals)]

    @property
    def longest_gap(self):
        return max(self.gaps, default=0.0)

    @property
    def median_gap(self):
        return statistics.median(self.gaps)


class Watching:
    """Viewers that read in the background until the context ends."""

    async def __aenter__(self):
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._tasks = []
        return self

    def start(self, viewer):
        self._tasks.append(self._group.create_task(viewer.run()))
        return viewer

    async def __aexit__(self, *error):
        for task in self._tasks:
            task.cancel()
        return await self._group.__aexit__(*error)
