"""Unix sockets that only this user may open: the node's processes speak over them, and nobody else."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path


@asynccontextmanager
async def private_socket(path: Path) -> AsyncIterator[str]:
    """Bind the socket within: its mode is 0600. Whatever stands there, left by a killed process, goes."""
    await asyncio.to_thread(path.unlink, missing_ok=True)
    old_mask = os.umask(0o177)
    try:
        yield str(path)
    finally:
        os.umask(old_mask)
