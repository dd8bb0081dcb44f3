"""How soon pictures stop: `python tests/bench/bench_revocation.py [sessions singles cameras workers]`.

A node as `custos serve` runs it, its viewers on real sockets. First `singles` users lose their own grant, one
after the other, each watching one picture; then one denial on the root department ends all others at once.
One JSON line each: from sending the request, so before the commit, to the last byte that a viewer read,
after which the kernel has nothing more of it.
"""

import asyncio
import json
import sys
import tempfile
import time
from pathlib import Path

import uvloop

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT)]

from gateway.bench.clip import encode_clip, write_clip  # noqa: E402
from gateway.bench.load import running_load  # noqa: E402
from gateway.bench.node import BenchNodeSettings, running_node  # noqa: E402

BIT_RATE_BPS = 1_000_000
AT_ONCE = 16
BETWEEN_SINGLES = 0.05
SETTLE_SECONDS = 3.0
PASSWORD = "a-long-enough-password"


def figures(case, sessions, taken_ms, unended):
    taken = sorted(taken_ms)
    quantile = {
        name: round(taken[min(len(taken) - 1, int(len(taken) * share))], 1)
        for name, share in (("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0))
    }
    return {"case": case, "sessions": sessions, "cut": len(taken), **quantile, "not_ended": unended}


async def add_watchers(node, root, count):
    """Users with a grant of their own each; return the grants' ids."""
    ids = []
    for number in range(count):
        name = f"single-{number}"
        user = {
            "id": name, "username": name, "display_name": name, "password": PASSWORD,
            "department_id": root, "roles": ["operator"],
        }  # fmt: skip
        await node._call("root", "POST", "/users", user)
        await node._login(name, PASSWORD)
        grant = {
            "subject": {"kind": "user", "id": name},
            "object": {"kind": "department", "id": "bench"},
            "actions": ["live:view"],
            "reason": "benchmark",
        }
        ids.append((await node._call("owner", "POST", "/grants", grant))["id"])
    return ids


async def open_all(node, load, users, cameras):
    """A session and a viewer for each; return their numbers in the order of the load client's report."""
    slots, order = asyncio.Semaphore(AT_ONCE), []

    async def one(number, user):
        body = {"camera": f"camera-{number % cameras}", "purpose": {"code": "patrol", "reference": "roster"}}
        async with slots:
            answer = await node._call(user, "POST", "/sessions", body)
            order.append(number)
            await load.open(answer["media"]["flv"])

    async with asyncio.TaskGroup() as tasks:
        for number, user in enumerate(users):
            tasks.create_task(one(number, user))
    await load.all_started(lambda _: None)
    return order


async def measure(folder, sessions, singles, cameras, workers):
    write_clip(await asyncio.to_thread(encode_clip, BIT_RATE_BPS), folder / "clip")
    settings = BenchNodeSettings(
        folder=folder / "node", policies=ROOT / "config" / "policies.yaml", clip=folder / "clip",
        cameras=cameras, workers=workers, merge_seconds=0.1, stamps_every_unit=False,
    )  # fmt: skip
    (folder / "node").mkdir()
    async with running_node(settings) as node, running_load() as load:
        me = await node._call("root", "GET", "/departments", None)
        root = next(item["id"] for item in me["items"] if item["parent_id"] is None)
        grants = await add_watchers(node, root, singles)
        users = [f"single-{number}" for number in range(singles)] + ["viewer"] * (sessions - singles)
        order = await open_all(node, load, users, cameras)
        await asyncio.sleep(SETTLE_SECONDS)
        asked = []
        for grant in grants:
            asked.append(time.monotonic_ns())
            await node._call("owner", "DELETE", f"/grants/{grant}?reason=benchmark", None)
            await asyncio.sleep(BETWEEN_SINGLES)
        await asyncio.sleep(SETTLE_SECONDS)
        deny = {
            "subject": {"kind": "department", "id": root},
            "object": {"kind": "department", "id": "bench"},
            "actions": ["live:view"],
            "effect": "deny",
            "reason": "benchmark",
        }
        city_asked = time.monotonic_ns()
        await node._call("owner", "POST", "/grants", deny)
        answered_ms = (time.monotonic_ns() - city_asked) / 1e6
        await asyncio.sleep(SETTLE_SECONDS)
        report = await load.end()
    by_number = dict(zip(order, report.viewers, strict=True))
    one = [by_number[number] for number in range(singles)]
    rest = [by_number[number] for number in range(singles, sessions)]
    started = [viewer for viewer in rest if viewer.first_keyframe_ms is not None]
    late = [(viewer.last_ns - at) / 1e6 for viewer, at in zip(one, asked, strict=True)]
    everybody = [(viewer.last_ns - city_asked) / 1e6 for viewer in started]
    for name, taken, viewers in (("single", late, one), ("city-wide", everybody, started)):
        line = figures(name, sessions, taken, sum(viewer.is_alive for viewer in viewers))
        if name == "city-wide":
            line["answered_ms"] = round(answered_ms, 1)
        print(json.dumps(line | {"cameras": cameras, "workers": workers}), flush=True)  # noqa: T201


def main(sessions=3000, singles=100, cameras=8, workers=2):
    with tempfile.TemporaryDirectory(prefix="custos-bench-") as folder:
        uvloop.run(measure(Path(folder), sessions, singles, cameras, workers))


if __name__ == "__main__":
    main(*map(int, sys.argv[1:5]))
