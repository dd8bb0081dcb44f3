"""Files of lines that only grow: each line durable when its append returns, a torn last one never counted."""

import os
from pathlib import Path

from gateway.audit.heads import sync_folder


def append_line(path: Path, line: bytes, max_line_bytes: int) -> None:
    """Append a whole line, ended by a newline, in place of what a crash left of one. Raise OSError."""
    descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    with os.fdopen(descriptor, "r+b", buffering=0) as file:
        _drop_torn_line(file.fileno(), max_line_bytes)
        file.write(line)
        os.fsync(file.fileno())
    sync_folder(path.parent)


def _drop_torn_line(descriptor: int, max_line_bytes: int) -> None:
    size = os.fstat(descriptor).st_size
    tail = os.pread(descriptor, max_line_bytes, max(0, size - max_line_bytes))
    torn = len(tail) - (tail.rfind(b"\n") + 1)
    if torn:
        os.ftruncate(descriptor, size - torn)


def last_lines(path: Path, max_bytes: int) -> list[bytes]:
    """The whole lines among the last `max_bytes` of a file, without their ends; none if there is no file."""
    try:
        with path.open("rb") as file:
            start = max(0, os.fstat(file.fileno()).st_size - max_bytes)
            # one byte more: whether the first line is whole
            file.seek(max(0, start - 1))
            lines = file.read(max_bytes + 1).split(b"\n")
    except FileNotFoundError:
        return []
    return lines[1 if start else 0 : -1]
