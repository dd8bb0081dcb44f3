"""Landlock alone, without seccomp in front of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from streams.sources import landlock

ROOT = Path(__file__).resolve().parents[3]

PROBE = """
import ctypes, encodings.idna, json, os, socket, sys

from streams.sources import landlock

servers = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
ports = [server.getsockname()[1] for server in servers]
already_open = open("/etc/passwd", "rb")
ctypes.CDLL(None).prctl(38, 1, 0, 0, 0)
landlock.restrict_thread(connect_port=ports[0])
results = {"read on": bool(already_open.read(1))}
for name, attempt in {
    "open": lambda: open("/etc/passwd"),
    "list": lambda: os.listdir("/"),
    "write": lambda: open("/tmp/custos-landlock-probe", "w"),
    "allowed port": lambda: socket.create_connection(("127.0.0.1", ports[0])),
    "other port": lambda: socket.create_connection(("127.0.0.1", ports[1])),
    "bind": lambda: socket.create_server(("127.0.0.1", 0)),
    "signal": lambda: os.kill(os.getppid(), 0),
}.items():
    try:
        attempt()
    except PermissionError:
        results[name] = False
    else:
        results[name] = True
print(json.dumps(results))
"""


@pytest.mark.skipif(landlock.abi_version() < 6, reason="the kernel's Landlock is older than ABI 6")
def test_no_path_and_one_port():
    result = subprocess.run(
        [sys.executable, "-c", PROBE], cwd=ROOT, capture_output=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    assert json.loads(result.stdout) == {
        "read on": True,
        "open": False,
        "list": False,
        "write": False,
        "allowed port": True,
        "other port": False,
        "bind": False,
        "signal": False,
    }


def test_without_no_new_privs_nothing_happens_silently():
    script = (
        "import os; from streams.sources import landlock\n"
        "os.setuid(65534) if os.getuid() == 0 else None\n"
        "try:\n    landlock.restrict_thread(connect_port=None)\n"
        "except OSError:\n    print('refused')\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, timeout=30, check=False
    )
    expected = b"refused\n" if landlock.abi_version() else b""
    assert result.stdout == expected, result.stderr.decode()
