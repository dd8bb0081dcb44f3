"""The C floor and the load client against each other, and the whole command: processes, small and short."""

import asyncio
import functools
import os
import signal
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from support.bench_flv import small_clip
from support.nodes import ROOT, run_cli

from gateway.bench.errors import BenchError
from gateway.bench.floor import compile_floor, running_floor, write_schedule
from gateway.bench.load import running_load
from gateway.bench.processes import children, usage


def nothing(_share):
    pass


@pytest.fixture
async def program(tmp_path):
    compiled = await compile_floor(tmp_path)
    if compiled is None:
        pytest.skip("no compiler")
    return compiled


@pytest.mark.parametrize(("merge_seconds", "interval"), [(0, 0.04), (0.1, 0.1), (0.35, 4 / 11)])
def test_the_schedule_keeps_the_bit_rate(tmp_path, merge_seconds, interval):
    clip = small_clip()
    assert write_schedule(clip, merge_seconds, tmp_path / "schedule") == pytest.approx(interval)
    writes = clip.flv_writes(merge_seconds)
    expected = len(clip.flv_head()) + sum(4 + len(data) for data in writes)
    assert (tmp_path / "schedule").stat().st_size == expected


@pytest.mark.slow
async def test_the_floor_reaches_every_viewer(program, tmp_path):
    clip = small_clip()
    async with (
        running_floor(program, tmp_path, clip, merge_seconds=0.1, processes=2) as floor,
        running_load() as load,
    ):
        for number in range(10):
            await load.open(f"{floor.url}/{number}")
        await load.all_started(nothing)
        await load.begin()
        await asyncio.sleep(1)
        report = await load.end()
        pids = floor.pids
    assert all(viewer.is_alive for viewer in report.viewers)
    assert report.failures == {}
    received = sum(viewer.bytes_received for viewer in report.viewers) / 10 / report.seconds
    assert 0.3 < received / clip.flv_bytes_per_second() < 3
    assert all(viewer.first_keyframe_ms is not None for viewer in report.viewers)
    for pid in pids:
        with pytest.raises(OSError, match="No such"):
            usage(pid)


async def test_who_is_refused_is_counted_by_the_reason():
    async def refuse(_reader, writer):
        writer.write(b"HTTP/1.1 503 Busy\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server, running_load() as load:
        port = server.sockets[0].getsockname()[1]
        await load.open(f"http://127.0.0.1:{port}/")
        await load.all_started(nothing)
        server.close()
        await load.open("http://127.0.0.1:1/")
        await load.all_started(nothing)
        report = await load.end()
    assert report.failures == {"HTTP status 503": 1, "ConnectionRefusedError": 1}
    assert not any(viewer.is_alive for viewer in report.viewers)


async def test_a_load_client_that_dies_is_an_error_of_ours():
    async with running_load() as load:
        (pid,) = children("gateway.bench.load_client")
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(BenchError, match="died"):
            await load.all_started(nothing)


@pytest.fixture
def folder(monkeypatch):
    """Where the command keeps its files: one of the test's own, with a path short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="cb-") as name:
        monkeypatch.setenv("TMPDIR", name)
        yield Path(name)


@pytest.mark.slow
async def test_a_small_run_end_to_end(folder):
    arguments = "bench relay --case one-1000 --viewers 5 --seconds 2 --merge-ms 100 --json --open-rate 20"
    code, out, error = await run_cli(*arguments.split())
    assert code == 0, error
    (line,) = out.splitlines()
    result = msgspec.json.decode(line)
    assert (result["case"], result["viewers"], result["cameras"]) == ("one-5", 5, 1)
    assert result["alive"] == 5, result
    assert result["failures"] == {}
    assert 0.5 < result["bytes_ratio"] < 1.5
    assert result["drops"] == 0
    assert result["rss_mb"] > 10
    assert result["latency_p50_ms"] > 0
    assert not any(folder.iterdir())


@pytest.mark.slow
async def test_any_other_server_is_measured_by_its_address(program, tmp_path):
    clip = small_clip()
    async with running_floor(program, tmp_path, clip, merge_seconds=0, processes=1) as floor:
        arguments = f"bench relay --case one-1000 --viewers 3 --seconds 1 --json --pid {floor.pids[0]}"
        code, out, error = await run_cli(*arguments.split(), "--url", f"{floor.url}/{{n}}")
    assert code == 0, error
    result = msgspec.json.decode(out)
    assert (result["alive"], result["failures"]) == (3, {})
    assert result["floor_us_per_viewer_second"] is result["drops"] is result["control_cpu"] is None


@pytest.mark.slow
async def test_interrupted_it_leaves_nothing_behind(folder):
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "bench", "relay", "--case", "one-1000", "--viewers", "5"),
        cwd=ROOT,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        # A shell that runs the tests in the background ignores it, and so would the command.
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        async with asyncio.timeout(60):
            while not any(folder.rglob("link-*.sock")):  # its node is there, workers included
                await asyncio.sleep(0.1)
        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(30):
            assert await process.wait() != 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert not any(folder.iterdir())
