"""A child process's side of the node supervisor: its settings on stdin; a pipe for its signs of life.

Nothing secret travels in the argument list or the environment, which other users of the machine can read.
"""

import asyncio
import contextlib
import os
import sys
from typing import TypeVar

import msgspec

READY_FD = "CUSTOS_READY_FD"
"""Environment variable that names the pipe to announce readiness on."""
MAX_SETTINGS_BYTES = 1024 * 1024
BEAT_SECONDS = 1.0

Settings = TypeVar("Settings")


def read_settings(kind: type[Settings]) -> Settings:
    """Read this process's settings, JSON, from stdin to its end.

    Raises `msgspec.ValidationError` for what `kind` does not allow, `ValueError` beyond the limit.
    """
    data = sys.stdin.buffer.read(MAX_SETTINGS_BYTES + 1)
    if len(data) > MAX_SETTINGS_BYTES:
        raise ValueError("the settings are too long")
    return msgspec.json.decode(data, type=kind)


def announce_ready() -> None:
    """Tell the supervisor, once, that this process serves; without a supervisor nothing happens."""
    descriptor = os.environ.pop(READY_FD, None)
    if descriptor is None:
        return
    with os.fdopen(int(descriptor), "wb", buffering=0) as pipe:
        pipe.write(b"\n")


def announce_and_beat() -> None:
    """As `announce_ready`, and from then on once in BEAT_SECONDS that the running event loop turns."""
    announced = os.environ.pop(READY_FD, None)
    if announced is None:
        return
    descriptor, loop = int(announced), asyncio.get_running_loop()

    def beat() -> None:
        # A full pipe: the supervisor itself stands still. A closed one: it is dead, and so are we.
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\n")
        loop.call_later(BEAT_SECONDS, beat)

    beat()
