"""Confinement of a process that parses a camera's bytes with native code; called in that process.

After `confine()` the process has what is already open and nothing more: no file, no new process or thread,
no signal, no socket (or IPv4 TCP to one local port), bounded memory, no core dump, no way to gain
privileges; and it dies with its parent. The CPU budget is the parent's business, which can renew it.
"""

import ctypes
import resource
import signal
from ctypes import c_ulong

from streams.sources import landlock, seccomp

_PR_SET_PDEATHSIG = 1
_PR_SET_DUMPABLE = 4
_PR_SET_NO_NEW_PRIVS = 38

MAX_OPEN_FILES = 16
"""Three pipes, the file, the one socket, and what poll(2) and the interpreter hold."""


def die_with_parent() -> None:
    """Have the kernel kill this process when the thread that started it ends. Raises OSError."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def confine(*, memory_bytes: int, connect_port: int | None = None) -> None:
    """Confine this single-threaded process for good. Raises OSError or ValueError: then it must not go on.

    `memory_bytes` bounds the address space. `connect_port` is the one TCP port that may be connected to;
    where the kernel's Landlock does not know ports, any TCP port.
    """
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, MAX_OPEN_FILES),
    ):
        resource.setrlimit(limit, (value, value))
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    landlock.restrict_thread(connect_port=connect_port)
    seccomp.restrict_thread(allow_tcp=connect_port is not None)


def _prctl(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, c_ulong(value), c_ulong(0), c_ulong(0), c_ulong(0)):
        raise OSError(ctypes.get_errno(), f"prctl({option}) refused")
