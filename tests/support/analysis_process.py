"""A real analysis process, and a fake one that answers as a test says."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from analytics.messages import LENGTH_BYTES, Job, ToWorker, parse_to_process, serialize

ROOT = Path(__file__).parents[2]
Send = Callable[[ToWorker], None]


@asynccontextmanager
async def analysis_process(path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """`python -m analytics.process`; connections are possible when its socket is there."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "analytics.process", "--socket", str(path), cwd=ROOT, stdin=subprocess.DEVNULL
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """As soon as the process listens."""
    async with asyncio.timeout(20):
        while True:
            try:
                return await asyncio.open_unix_connection(path)
            except OSError:
                await asyncio.sleep(0.02)


@asynccontextmanager
async def fake_process(path: Path, on_job: Callable[[Job, Send], Awaitable[bool]]) -> AsyncIterator[None]:
    """Calls `on_job` for each job; False ends the connection, as the death of the process does."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                length = int.from_bytes(await reader.readexactly(LENGTH_BYTES), "big")
                message = parse_to_process(await reader.readexactly(length))
                if isinstance(message, Job) and not await on_job(
                    message, lambda answer: writer.write(serialize(answer))
                ):
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async with asyncio.TaskGroup() as group:
        tasks = []

        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.append(group.create_task(serve(reader, writer)))

        server = await asyncio.start_unix_server(accept, path)
        try:
            yield
        finally:
            server.close()
            for task in tasks:
                task.cancel()
