"""Every way to have a session's pictures, behind one face: ask for them, watch them, notice their end."""

import asyncio
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import msgspec
from support.rtsp_viewer import RtspClient

HTTP = ("flv", "fmp4", "mjpeg", "hls")
WEBSOCKET = ("ws", "ws_flv")
PROTOCOLS = (*HTTP, *WEBSOCKET, "rtsp")
_PROTOCOL_SWITCHED = 101
_SMALL_BUFFER_BYTES = 4096


@dataclass
class Refused:
    """`code`: of the problem document; RTSP has none."""

    status: int
    code: str | None


async def ask(http, protocol, url, tls=None):
    """A first request for the media: how it was refused, or None if it was answered."""
    if protocol == "rtsp":
        async with RtspClient.connected(urlsplit(url).port, tls) as client:
            status = (await client.request("DESCRIBE", url)).status
            return None if status == 200 else Refused(status, None)
    headers = {}
    if protocol in WEBSOCKET:
        url = "http" + url.removeprefix("ws")
        headers = {
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
        }
    async with http.get(url, headers=headers, ssl=tls or True) as answer:
        if answer.status in {200, _PROTOCOL_SWITCHED}:
            return None
        return Refused(answer.status, msgspec.json.decode(await answer.read()).get("code"))


class MediaViewer:
    """Watches in the background: `shown` when the first media has come, `ended` when no more can come."""

    def __init__(self, protocol, url, tls=None):
        self.protocol = protocol
        self.bytes = 0
        self.shown = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended_at = None
        self._url = url
        self._tls = tls
        self._socket = None
        self._reads = asyncio.Event()
        self._reads.set()

    def stop_reading(self):
        """Take nothing more from the connection, whose buffers are small from now on."""
        self._reads.clear()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALL_BUFFER_BYTES)

    async def run(self):
        try:
            if self.protocol == "rtsp":
                await self._run_rtsp()
            else:
                async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http:
                    await self._run_http(http)
        except (aiohttp.ClientError, ConnectionError):
            pass
        finally:
            self.ended_at = asyncio.get_running_loop().time()
            self.ended.set()

    async def more(self, count=20_000, seconds=15):
        """Wait until so many more bytes have come."""
        target = self.bytes + count
        async with asyncio.timeout(seconds):
            while self.bytes < target:
                assert not self.ended.is_set(), self.protocol
                await asyncio.sleep(0.02)

    def _take(self, size):
        self.bytes += size
        if self.bytes > 2000:
            self.shown.set()

    async def _run_rtsp(self):
        async with RtspClient.connected(urlsplit(self._url).port, self._tls) as client:
            self._socket = client.socket
            assert (await client.play(self._url)).status == 200
            while await self._reads.wait():
                event = await client.event()
                self._take(len(getattr(event, "payload", b"")))

    async def _run_http(self, http):
        ssl = self._tls or True
        if self.protocol in WEBSOCKET:
            async with http.ws_connect(self._url, ssl=ssl) as messages:
                self._socket = messages.get_extra_info("socket")
                async for message in messages:
                    self._take(len(message.data))
                    await self._reads.wait()
        elif self.protocol == "hls":
            await self._run_hls(http, ssl)
        else:
            async with http.get(self._url, ssl=ssl) as answer:
                assert answer.status == 200
                self._socket = answer.connection.transport.get_extra_info("socket")
                async for chunk in answer.content.iter_any():
                    self._take(len(chunk))
                    await self._reads.wait()

    async def _run_hls(self, http, ssl):
        """Ask for the playlist and its newest part without pause, as long as they are there."""
        async with http.get(self._url, ssl=ssl) as answer:
            assert answer.status == 200
            playlist = f"{self._url.rpartition('/')[0]}/{(await answer.text()).splitlines()[-1]}"
        while True:
            async with http.get(playlist, ssl=ssl) as answer:
                if answer.status != 200:
                    return
                lines = (await answer.text()).splitlines()
            parts = [line.partition('URI="')[2].partition('"')[0] for line in lines if "EXT-X-PART:" in line]
            if parts:
                async with http.get(f"{playlist.rpartition('/')[0]}/{parts[-1]}", ssl=ssl) as answer:
                    if answer.status != 200:
                        return
                    self._take(len(await answer.read()))
            await asyncio.sleep(0.05)
