"""The sandbox from inside: a probe confines itself as the demuxing child does, and tries to get out."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
DENIED = {"PermissionError", "MemoryError", "ValueError", "OSError", "BlockingIOError"}

PROBE = """
import ctypes, json, mmap, os, resource, signal, socket, sys, threading, urllib.request
import encodings.idna

allowed, other = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
allowed_port, other_port = allowed.getsockname()[1], other.getsockname()[1]
libc = ctypes.CDLL(None, use_errno=True)
machine = os.uname().machine

from streams.sources.sandbox import confine, die_with_parent

die_with_parent()
tcp = sys.argv[1] == "tcp"
confine(memory_bytes=768 * 1024 * 1024, connect_port=allowed_port if tcp else None)

def call(number):
    def run():
        if libc.syscall(number, 0, 0, 0, 0, 0, 0) < 0:
            raise OSError(ctypes.get_errno(), "refused")
    return run

def connect(port):
    with socket.socket() as connection:
        connection.connect(("127.0.0.1", port))

attempts = {
    "open": lambda: open("/etc/passwd"),
    "write": lambda: open("/tmp/custos-sandbox-probe", "w"),
    "stat": lambda: os.stat("/etc/passwd"),
    "listdir": lambda: os.listdir("/"),
    "unlink": lambda: os.unlink("/tmp/custos-sandbox-probe"),
    "chdir": lambda: os.chdir("/"),
    "fork": os.fork,
    "exec": lambda: os.execv("/bin/true", ["true"]),
    "spawn": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "thread": lambda: threading.Thread(target=int).start(),
    "kill parent": lambda: os.kill(os.getppid(), 0),
    "memory": lambda: mmap.mmap(-1, 2 << 30),
    "allocation": lambda: len(bytearray(2 << 30)),
    "connect elsewhere": lambda: connect(other_port),
    "udp": lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    "udp over ipv6": lambda: socket.socket(socket.AF_INET6, socket.SOCK_DGRAM),
    "raw": lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1),
    "unix": lambda: socket.socket(socket.AF_UNIX),
    "netlink": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "listen": lambda: socket.create_server(("127.0.0.1", 0)),
    "more files": lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 1024)),
    "more cpu": lambda: resource.setrlimit(resource.RLIMIT_CPU, (99, resource.RLIM_INFINITY)),
    "ptrace": call({"x86_64": 101, "aarch64": 117}[machine]),
    "io_uring": call(425),
    "bpf": call({"x86_64": 321, "aarch64": 280}[machine]),
    "prctl": call({"x86_64": 157, "aarch64": 167}[machine]),
    "name": lambda: socket.getaddrinfo("example.com", 80),
    "connect to the one port": lambda: connect(allowed_port),
}
results = {}
for name, attempt in attempts.items():
    try:
        attempt()
    except BaseException as error:
        results[name] = type(error).__name__
    else:
        results[name] = "done"
os.write(1, json.dumps(results).encode())
os._exit(0)
"""


def run_probe(script, *arguments):
    result = subprocess.run(
        [sys.executable, "-c", script, *arguments], cwd=ROOT, capture_output=True, timeout=30, check=False
    )
    assert result.returncode == 0, result.stderr.decode()
    return json.loads(result.stdout)


@pytest.mark.parametrize("mode", ["nothing", "tcp"])
def test_every_way_out_is_closed(mode):
    results = run_probe(PROBE, mode)
    expected = "done" if mode == "tcp" else "PermissionError"
    assert results.pop("connect to the one port") == expected
    assert results.pop("name") in {"gaierror", "PermissionError"}
    assert results.pop("thread") == "RuntimeError"
    assert {name: kind for name, kind in results.items() if kind not in DENIED} == {}
    assert len(results) == 25


def test_a_child_dies_with_its_parent():
    grandchild = (
        "import os, time; from streams.sources.sandbox import die_with_parent; die_with_parent(); "
        "os.write(1, b'%d' % os.getpid()); time.sleep(60)"
    )
    parent = (
        "import os, subprocess, sys; child = subprocess.Popen([sys.executable, '-c', sys.argv[1]], "
        "stdout=subprocess.PIPE); os.write(1, os.read(child.stdout.fileno(), 20) + b'\\n'); os._exit(0)"
    )
    # The grandchild holds the pipe of standard error: run() returns before its minute only if it is killed.
    result = subprocess.run(
        [sys.executable, "-c", parent, grandchild], cwd=ROOT, capture_output=True, timeout=30, check=True
    )
    assert int(result.stdout)
