"""The analysis process: `python -m analytics.process --socket PATH`.

It decodes bytes from cameras with native code, so it is the process that may die: it holds no credential and
no database, has limits on memory, files and CPU per job, is the first to wait when cores are short (nice),
ends with its parent, and, where the kernel has Landlock, can open no file and no TCP connection once it
serves. Relay workers connect to it; its supervisor starts it anew when it has died.
"""

import argparse
import ctypes
import os
import resource
import signal
import socket
from dataclasses import dataclass
from pathlib import Path

from streams.sources import landlock
from streams.sources.sandbox import die_with_parent

_PR_SET_NO_NEW_PRIVS = 38
_BACKLOG = 64


@dataclass(frozen=True, kw_only=True)
class ProcessSettings:
    """`memory_bytes` bounds the address space, of which the libraries reserve the larger part."""

    socket: Path
    nice: int = 10
    memory_bytes: int = 2 * 1024**3
    open_files: int = 128


def main() -> None:
    """Serve until killed. Raises OSError if the socket cannot be made."""
    parser = argparse.ArgumentParser(prog="python -m analytics.process", description=__doc__)
    parser.add_argument("--socket", type=Path, required=True, help="Unix socket to listen on")
    run(ProcessSettings(socket=parser.parse_args().socket))


def run(settings: ProcessSettings) -> None:
    """Confine this process for good and serve."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    die_with_parent()
    os.nice(settings.nice)
    # Read by the libraries when they are loaded, which is why that happens only now.
    os.environ["OPENBLAS_NUM_THREADS"] = "1"
    import cv2  # noqa: PLC0415

    from analytics.jobs import serve  # noqa: PLC0415
    from analytics.scenes import load_analysers  # noqa: PLC0415

    cv2.setNumThreads(1)
    load_analysers()
    for limit, value in (
        (resource.RLIMIT_AS, settings.memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, settings.open_files),
    ):
        resource.setrlimit(limit, (value, value))
    with _listen(settings.socket) as listener:
        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
            raise OSError(ctypes.get_errno(), "prctl refused")
        landlock.restrict_thread(connect_port=None)
        serve(listener)


def _listen(path: Path) -> socket.socket:
    """Replaces what a predecessor left; nobody but this user may connect."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    previous = os.umask(0o177)
    try:
        listener.bind(str(path))
    finally:
        os.umask(previous)
    listener.listen(_BACKLOG)
    return listener


if __name__ == "__main__":
    main()
