"""Starting and ending `custos demo` as a person does."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Demo:
    """`accounts` is {username: (password, role, department)}; `cameras` as `--json` prints them."""

    url: str
    accounts: dict[str, tuple[str | None, str, str]]
    cameras: list[dict[str, str]]
    public_key: str
    folder: Path
    process: subprocess.Popen[str]
    seconds: float


def start_demo(folder: Path) -> Demo:
    """Start `custos demo --json` and wait for its line."""
    began = time.monotonic()
    log = (folder.parent / f"{folder.name}.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-m", "gateway", "demo", "--json", "--port", "0", "--data", str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=log,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    log.close()
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait(timeout=30)
        pytest.fail((folder.parent / f"{folder.name}.log").read_text())
    ready = json.loads(line)
    accounts = {a["username"]: (a["password"], a["role"], a["department"]) for a in ready["accounts"]}
    return Demo(
        url=ready["url"],
        accounts=accounts,
        cameras=ready["cameras"],
        public_key=ready["audit_public_key"],
        folder=folder,
        process=process,
        seconds=time.monotonic() - began,
    )


def interrupt(demo: Demo) -> tuple[int, float]:
    """What Ctrl-C does; returns the exit code and the seconds that it took."""
    began = time.monotonic()
    demo.process.send_signal(signal.SIGINT)
    code = demo.process.wait(timeout=30)
    if demo.process.stdout is not None:
        demo.process.stdout.close()
    return code, time.monotonic() - began
