"""A child process's side of the node supervisor: its settings on stdin, its readiness on a pipe.

Nothing secret travels in the argument list or the environment, which other users of the machine can read.
"""

import os
import sys
from typing import TypeVar

import msgspec

READY_FD = "CUSTOS_READY_FD"
"""Environment variable that names the pipe to announce readiness on."""
MAX_SETTINGS_BYTES = 1024 * 1024

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
