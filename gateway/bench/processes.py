"""What processes cost, as the kernel counts it: CPU time and resident memory (proc(5))."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

_TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
_PARENT = 1
_USER_TICKS = 11
_SYSTEM_TICKS = 12
"""Places in /proc/PID/stat after the command's name, which may hold spaces and parentheses."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one process, since its start. `cpu_seconds`: user and system, to 10 ms."""

    cpu_seconds: float
    rss_kb: int


def usage(pid: int) -> Usage:
    """Raises OSError if there is no such process."""
    fields = _stat(pid)
    ticks = int(fields[_USER_TICKS]) + int(fields[_SYSTEM_TICKS])
    status = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace")
    rss = next((line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")), "0")
    return Usage(ticks / _TICKS_PER_SECOND, int(rss))


def usages(pids: Iterable[int]) -> list[Usage]:
    return [usage(pid) for pid in pids]


def children(module: str) -> list[int]:
    """The children of this process that run `python -m module`, oldest first."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                arguments = (folder / "cmdline").read_bytes().split(b"\0")
                is_ours = int(_stat(int(folder.name))[_PARENT]) == os.getpid()
            except OSError:
                continue  # it ended meanwhile
            if is_ours and arguments[1:3] == [b"-m", module.encode()]:
                found.append(int(folder.name))
    return sorted(found)


def _stat(pid: int) -> list[str]:
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()
