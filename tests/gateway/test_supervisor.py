import asyncio
import contextlib
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.node_errors import (
    AddressInUseError,
    ChildKeepsDyingError,
    DataFolderLockedError,
    NotDrainedError,
    StartFailedError,
)
from gateway.supervised_child import ChildSpec, RestartPolicy
from gateway.supervisor import (
    NodeSupervisor,
    SupervisorSettings,
    control_child,
    locked_data_folder,
    relay_child,
    reserve_port,
)

ROOT = Path(__file__).parents[2]

READY = "import os, signal, sys, time; os.write(int(os.environ['CUSTOS_READY_FD']), b'\\n');"
NOTE_END = (
    "import os, signal, sys, time\n"
    "def end(*_):\n"
    "    with open(sys.argv[1], 'a') as notes: notes.write(sys.argv[2] + '\\n')\n"
    "    sys.exit(0)\n"
    "signal.signal(signal.SIGTERM, end)\n"
    "os.write(int(os.environ['CUSTOS_READY_FD']), b'\\n')\n"
    "while True: time.sleep(60)\n"
)
DEAF = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + READY + "time.sleep(60)"


def child(name, script, *arguments, **options):
    return ChildSpec(name=name, argv=(sys.executable, "-I", "-c", script, *arguments), **options)


def settings(tmp_path, **options):
    return SupervisorSettings(data_folder=tmp_path, **options)


def is_alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().split(")")[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


async def until_file(path, lines=1):
    async with asyncio.timeout(10):
        while not path.exists() or len(path.read_text().splitlines()) < lines:
            await asyncio.sleep(0.01)
    return path.read_text().splitlines()


async def test_children_stop_in_stop_order_and_none_is_left(tmp_path):
    notes = tmp_path / "notes"
    children = [
        child("control", NOTE_END, str(notes), "control", start_order=0, stop_order=1),
        child("relay", NOTE_END, str(notes), "relay", start_order=1, stop_order=0),
    ]
    supervisor = NodeSupervisor(children, settings(tmp_path))
    async with asyncio.timeout(10):
        await supervisor.run(on_ready=supervisor.stop)
    assert notes.read_text().split() == ["relay", "control"]


async def test_settings_arrive_on_stdin_and_nowhere_else(tmp_path):
    out = tmp_path / "out"
    script = (
        "import json, os, sys\n"
        "seen = json.load(sys.stdin)['key'], ' '.join(sys.argv), str(dict(os.environ))\n"
        "open(sys.argv[1], 'w').write('\\n'.join(seen))\n" + READY.replace("; ", ";") + "\n"
        "time.sleep(60)\n"
    )
    spec = child("control", script, str(out), settings=b'{"key": "canary"}')
    assert "canary" not in repr(spec)
    supervisor = NodeSupervisor([spec], settings(tmp_path))
    async with asyncio.timeout(10):
        await supervisor.run(on_ready=supervisor.stop)
    received, rest = out.read_text().split("\n", 1)
    assert received == "canary"
    assert "canary" not in rest


async def test_a_killed_child_comes_back_and_others_stay(tmp_path):
    pids = tmp_path / "pids"
    script = READY + "open(sys.argv[1], 'a').write(f'{os.getpid()}\\n'); time.sleep(60)"
    policy = RestartPolicy(first_delay_seconds=0.05)
    children = [child("relay", script, str(pids), restart=policy), child("other", READY + "time.sleep(60)")]
    supervisor = NodeSupervisor(children, settings(tmp_path))
    async with asyncio.timeout(10), asyncio.TaskGroup() as group:
        group.create_task(supervisor.run())
        (first,) = await until_file(pids)
        os.kill(int(first), signal.SIGKILL)
        first, second = await until_file(pids, 2)
        assert not is_alive(int(first))
        supervisor.stop()
    assert not is_alive(int(second))


async def test_a_child_that_keeps_dying_ends_the_node(tmp_path):
    policy = RestartPolicy(first_delay_seconds=0.01, max_deaths=3)
    notes = tmp_path / "notes"
    children = [
        child("relay", NOTE_END, str(notes), "relay"),
        child("control", READY, restart=policy),
    ]
    with pytest.raises(ChildKeepsDyingError, match="control"):
        async with asyncio.timeout(10):
            await NodeSupervisor(children, settings(tmp_path)).run()
    assert notes.read_text().split() == ["relay"]


async def test_a_child_that_fails_at_the_start_ends_the_node(tmp_path):
    ready = []
    with pytest.raises(StartFailedError, match="control ended before"):
        await NodeSupervisor([child("control", "raise SystemExit(3)")], settings(tmp_path)).run(
            lambda: ready.append(True)
        )
    assert not ready


async def test_a_child_that_is_never_ready_is_killed(tmp_path):
    pids = tmp_path / "pids"
    script = "import os,sys,time; open(sys.argv[1], 'w').write(f'{os.getpid()}\\n'); time.sleep(60)"
    with pytest.raises(StartFailedError, match="TimeoutError"):
        await NodeSupervisor(
            [child("control", script, str(pids))], settings(tmp_path, start_seconds=0.5)
        ).run()
    assert not is_alive(int(pids.read_text()))


async def test_what_does_not_end_in_time_is_killed(tmp_path):
    notes = tmp_path / "notes"
    children = [child("relay", DEAF), child("control", NOTE_END, str(notes), "control", stop_order=1)]
    supervisor = NodeSupervisor(children, settings(tmp_path, drain_seconds=1.0))
    with pytest.raises(NotDrainedError, match=r"relay$"):
        await supervisor.run(on_ready=supervisor.stop)
    assert notes.read_text().split() == ["control"]


async def test_a_second_signal_kills_at_once(tmp_path):
    supervisor = NodeSupervisor([child("relay", DEAF)], settings(tmp_path, drain_seconds=60))

    def stop_twice():
        supervisor.stop()
        asyncio.get_running_loop().call_later(0.1, supervisor.stop)

    with pytest.raises(NotDrainedError):
        async with asyncio.timeout(10):
            await supervisor.run(on_ready=stop_twice)


@contextlib.asynccontextmanager
async def node_process(tmp_path, child_script, *arguments):
    """A supervisor in a process and terminal session of its own, with one child, ready."""
    script = (
        "import asyncio, sys; from pathlib import Path\n"
        "from gateway.supervised_child import *\n"
        "from gateway.supervisor import *\n"
        "folder, *argv = sys.argv[1:]\n"
        "spec = ChildSpec(name='control', argv=(sys.executable, '-c', *argv))\n"
        "settings = SupervisorSettings(data_folder=Path(folder))\n"
        "asyncio.run(NodeSupervisor([spec], settings).run(lambda: print('ready', flush=True)))\n"
    )
    node = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script, str(tmp_path), child_script, *arguments),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    async with asyncio.timeout(20):
        while (await node.stdout.readline()).strip() != b"ready":
            pass
        yield node
        await node.wait()


async def test_ctrl_c_in_the_terminal_reaches_the_supervisor_alone(tmp_path):
    notes = tmp_path / "notes"
    async with node_process(tmp_path, NOTE_END, str(notes), "drained") as node:
        os.killpg(node.pid, signal.SIGINT)
    assert node.returncode == 0
    assert notes.read_text().split() == ["drained"]


async def test_children_die_with_a_killed_supervisor(tmp_path):
    pids = tmp_path / "pids"
    script = "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid()));" + READY + "time.sleep(60)"
    async with node_process(tmp_path, script, str(pids)) as node:
        node.kill()
    async with asyncio.timeout(10):
        while is_alive(int(pids.read_text())):
            await asyncio.sleep(0.01)


def test_the_data_folder_has_one_node(tmp_path):
    with (
        locked_data_folder(tmp_path),
        pytest.raises(DataFolderLockedError, match=str(tmp_path)) as refusal,
        locked_data_folder(tmp_path),
    ):
        pass
    assert refusal.value.code == "data_folder_locked"
    with locked_data_folder(tmp_path):
        pass


def test_a_reserved_port_is_known_shared_with_children_and_refused_to_strangers():
    with reserve_port("127.0.0.1", 0) as reserved:
        port = reserved.getsockname()[1]
        with socket.socket() as worker:
            worker.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            worker.bind(("127.0.0.1", port))
            worker.listen()
            with socket.create_connection(("127.0.0.1", port)):
                pass
            with pytest.raises(AddressInUseError, match=str(port)):
                reserve_port("127.0.0.1", port)
    with reserve_port("127.0.0.1", port):
        pass


def test_the_node_s_own_children():
    assert control_child(b"{}").start_order < relay_child(0, b"{}").start_order
    assert control_child(b"{}").stop_order > relay_child(0, b"{}").stop_order
    assert relay_child(0, b"{}").restart.max_delay_seconds < 5
