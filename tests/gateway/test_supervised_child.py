import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest
import structlog

from gateway import supervised_child
from gateway.node_errors import StartFailedError
from gateway.supervised_child import ChildSpec, DeathRecord, RestartPolicy, SupervisedChild
from gateway.supervisor import control_child, relay_child

ROOT = Path(__file__).parents[2]
BEATING = (
    "import asyncio; from gateway.child import announce_and_beat\n"
    "async def main():\n"
    "    announce_and_beat()\n"
    "    await asyncio.Event().wait()\n"
    "asyncio.run(main())\n"
)
AT_ONCE = RestartPolicy(first_delay_seconds=0.01)


def test_back_off_doubles_is_capped_and_forgets():
    record = DeathRecord(RestartPolicy(first_delay_seconds=0.5, max_delay_seconds=4, window_seconds=60))
    assert [record.died(float(now)) for now in range(5)] == [0.5, 1, 2, 4, 4]
    assert record.died(1000.0) == 0.5


def test_too_many_deaths_in_the_window():
    policy = RestartPolicy(max_deaths=3, window_seconds=10)
    record = DeathRecord(policy)
    assert record.died(0.0) is not None
    assert record.died(9.0) is not None
    assert record.died(10.1) is not None
    assert record.died(11.0) is None


@pytest.fixture
async def beating(monkeypatch):
    """A kept child whose event loop turns, with the log of its keeper."""
    monkeypatch.chdir(ROOT)
    spec = ChildSpec(name="relay", argv=(sys.executable, "-c", BEATING), still_seconds=2.0, restart=AT_ONCE)
    child = SupervisedChild(spec, start_seconds=20)
    with structlog.testing.capture_logs() as log:
        await child.start()
        async with asyncio.TaskGroup() as group:
            keeping = group.create_task(child.keep())
            yield log
            keeping.cancel()
            child.kill()
            await child.ended()


def started(log):
    return [line["pid"] for line in log if line["event"] == "child_started"]


async def until_started(log, count):
    async with asyncio.timeout(20):
        while len(started(log)) < count:
            await asyncio.sleep(0.01)


async def test_a_child_that_stands_still_is_killed_and_replaced(beating):
    (first,) = started(beating)
    os.kill(first, signal.SIGSTOP)
    await until_started(beating, 2)
    events = [line["event"] for line in beating]
    assert events == ["child_started", "child_stands_still", "child_died", "child_started"]
    assert beating[2]["status"] == -signal.SIGKILL


async def test_a_child_that_beats_is_left_alone(beating):
    """While one beside it, whose pipe nobody writes to, is found still twice."""
    mute = "import os, time; os.write(int(os.environ['CUSTOS_READY_FD']), b'x'); time.sleep(60)"
    spec = ChildSpec(name="mute", argv=(sys.executable, "-c", mute), still_seconds=2.0, restart=AT_ONCE)
    child = SupervisedChild(spec, start_seconds=20)
    await child.start()
    async with asyncio.TaskGroup() as group:
        keeping = group.create_task(child.keep())
        await until_started(beating, 4)
        keeping.cancel()
        child.kill()
        await child.ended()
    assert {line["child"] for line in beating if line["event"] == "child_stands_still"} == {"mute"}


async def test_looking_at_a_child_leaves_nothing_behind(monkeypatch):
    """asyncio keeps whoever has waited for a process: one a second would be 13 MB a day."""
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(supervised_child, "BEAT_SECONDS", 0.001)
    looks = []
    monkeypatch.setattr(SupervisedChild, "_has_beaten", lambda _: looks.append(1) or True)
    child = SupervisedChild(
        ChildSpec(name="relay", argv=(sys.executable, "-c", BEATING), still_seconds=2.0), 20
    )
    await child.start()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        keeping = group.create_task(child.keep())
        while len(looks) < 50:
            await asyncio.sleep(0.001)
        assert len(child._process._transport._exit_waiters) <= 2
        keeping.cancel()
        child.kill()
        await child.ended()


async def test_a_death_before_readiness_is_seen_though_a_grandchild_lives(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    pid = tmp_path / "pid"
    script = (
        "import subprocess, sys\n"
        "child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "open(sys.argv[1], 'w').write(str(child.pid))\n"
    )
    child = SupervisedChild(ChildSpec(name="control", argv=(sys.executable, "-c", script, str(pid))), 20)
    try:
        with pytest.raises(StartFailedError, match="ended before"):
            async with asyncio.timeout(10):
                await child.start()
    finally:
        os.kill(int(pid.read_text()), signal.SIGKILL)


async def test_a_death_in_the_moment_of_readiness_is_a_death_like_any_other(monkeypatch):
    """Its end may be heard before its word: the node ended, instead of starting it again."""

    async def nothing_heard(_):
        await asyncio.Event().wait()

    monkeypatch.setattr(supervised_child, "_read_byte", nothing_heard)
    word = "import os; os.write(int(os.environ['CUSTOS_READY_FD']), b'x')"
    child = SupervisedChild(ChildSpec(name="relay", argv=(sys.executable, "-c", word)), 20)
    await child.start()
    assert await child.ended() == 0


def test_control_and_workers_are_watched():
    assert control_child(b"{}").still_seconds is not None
    assert relay_child(0, b"{}").still_seconds is not None
