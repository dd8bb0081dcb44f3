"""An RTSP server that replays interleaved packets to one player after another, for real RTSP clients."""

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress


@asynccontextmanager
async def replay_rtsp(description: str, pieces: Sequence[bytes]) -> AsyncIterator[str]:
    """Its URL. `description`: media descriptions; `pieces`: what PLAY is followed by, and then the end."""
    sdp = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n{description}".encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                request = (await reader.readuntil(b"\r\n\r\n")).decode()
                method = request.split(" ", 1)[0]
                sequence = re.search(r"CSeq: *(\d+)", request)[1]
                head = f"RTSP/1.0 200 OK\r\nCSeq: {sequence}\r\nSession: 1\r\n"
                body = b""
                if method == "DESCRIBE":
                    head += f"Content-Type: application/sdp\r\nContent-Length: {len(sdp)}\r\n"
                    body = sdp
                elif method == "SETUP":
                    head += f"Transport: {re.search(r'Transport: *(.*)', request)[1].strip()}\r\n"
                writer.write(f"{head}\r\n".encode() + body)
                if method == "PLAY":
                    writer.writelines(pieces)
                    await writer.drain()
                    return
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        yield f"rtsp://127.0.0.1:{server.sockets[0].getsockname()[1]}/live"
