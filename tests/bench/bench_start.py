"""How long control takes to start in a city: `python tests/bench/bench_start.py [cameras grants users]`.

Builds a database of that size on SQLite and on PostgreSQL with bulk SQL, then opens it in a fresh process:
the PDP's facts alone (`feed`), and a whole control (`control`). One JSON line each; `longest_gap_ms` is how
long the loop stood still at most, which must stay far below the workers' lease.
"""

import asyncio
import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import asyncpg
import uvloop
from sqlalchemy import make_url

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.databases import create_database, postgresql_server  # noqa: E402

from gateway.app import Control  # noqa: E402
from gateway.composition import ControlSettings  # noqa: E402
from gateway.policy_feed import PolicyFeed  # noqa: E402
from gateway.settings import EgressFileSettings, Settings  # noqa: E402
from gateway.start_up import collector_resting  # noqa: E402
from gateway.store.store import Store, StoreSettings  # noqa: E402
from policies.engine import PolicyEngine  # noqa: E402
from policies.roles import parse_roles  # noqa: E402

POLICIES = ROOT / "config" / "policies.yaml"
DEPARTMENTS, GROUPS, TAGS = 130, 200, 50
AT = 1_767_225_600_000_000


def rows(cameras, grants, users):
    """(table, columns, rows) in an order that foreign keys allow."""
    rng = random.Random(1)
    department = [f"department-{number}" for number in range(DEPARTMENTS)]
    yield (
        "departments",
        ("id", "parent_id", "name", "created_at"),
        [(d, department[(n - 1) // 5] if n else None, f"部门 {n}", AT) for n, d in enumerate(department)],
    )
    groups = [(f"group-{n}", None, department[n % DEPARTMENTS], f"分组 {n}", AT) for n in range(GROUPS)]
    yield "groups", ("id", "parent_id", "department_id", "name", "created_at"), groups
    people = [f"user-{number}" for number in range(users)]
    yield (
        "users",
        (
            "id", "username", "username_folded", "display_name", "department_id", "kind", "enabled",
            "created_at",
        ),
        [(u, u, u, u, rng.choice(department), "person", True, AT) for u in people],
    )  # fmt: skip
    yield (
        "user_roles",
        ("user_id", "role", "department_id"),
        [(u, "operator", rng.choice(department)) for u in people],
    )
    names = [f"camera-{number:07}" for number in range(cameras)]
    yield (
        "cameras",
        (
            "id", "department_id", "name", "description", "url", "place", "code", "point_class", "network",
            "sharing_mode", "sharing_departments", "created_at", "updated_at",
        ),
        [
            (
                c, rng.choice(department), f"中山路 {rng.randrange(10**7)} 号", "", f"rtsp://10.0.0.1/{c}",
                "人民广场东门", f"{n:020}", 1 + n % 3, "video-private-network",
                "unconditional" if n % 50 == 0 else "conditional",
                json.dumps([department[n % DEPARTMENTS]]) if n % 50 == 0 else None, AT, AT,
            )
            for n, c in enumerate(names)
        ],
    )  # fmt: skip
    members = [(f"group-{n % GROUPS}", c) for n, c in enumerate(names) if n % 3 == 0]
    yield "group_cameras", ("group_id", "camera_id"), members
    tags = [(f"标签{n % TAGS}", c) for n, c in enumerate(names) if n % 2 == 0]
    yield "camera_tags", ("tag", "camera_id"), tags
    yield (
        "grants",
        (
            "id", "subject_kind", "subject_id", "object_kind", "object_id", "actions", "effect", "valid_to",
            "purposes", "obligations", "reason", "created_by", "created_at",
        ),
        [(f"grant-{n}", *_grant(rng, names, people)) for n in range(grants)],
    )  # fmt: skip


def _grant(rng, cameras, people):
    kind, target = rng.choices(
        (("camera", rng.choice(cameras)), ("group", f"group-{rng.randrange(GROUPS)}"), ("tag", "标签1")),
        (8, 1, 1),
    )[0]
    actions = '["live:view", "camera:read"]'
    return (
        "user", rng.choice(people), kind, target, actions, "allow", AT + 10**13, '["patrol"]', "{}", "",
        people[0], AT,
    )  # fmt: skip


async def build(folder, url, city):
    """Make the schema as the product does, then fill it."""
    async with Store.open(StoreSettings(folder, url=url)):
        pass
    if url is None:
        with sqlite3.connect(folder / "custos.db") as database:
            for table, columns, values in rows(*city):
                database.executemany(
                    f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({', '.join('?' * len(columns))})",  # noqa: S608
                    values,
                )
            # as if it were older than seals: the next start takes it over
            database.execute("DELETE FROM policy_sums")
        database.close()
        await _adopt(folder, url)
        return
    connection = await asyncpg.connect(
        host=make_url(url).query["host"], user="postgres", database=make_url(url).database
    )
    for table, columns, values in rows(*city):
        await connection.copy_records_to_table(table, records=values, columns=columns)
    await connection.execute("DELETE FROM policy_sums")
    await connection.execute("ANALYZE")
    await connection.close()
    await _adopt(folder, url)


async def _adopt(folder, url):
    """Seal what bulk SQL wrote, as the first start of a version with seals does."""
    (folder / "keys" / "seal.key").unlink()
    started = time.perf_counter()
    async with Store.open(StoreSettings(folder, url=url)):
        adopt_s = time.perf_counter() - started
    print(json.dumps({"case": "adopt", "adopt_s": round(adopt_s, 2)}), flush=True)  # noqa: T201


@contextlib.asynccontextmanager
async def _feed(folder, url):
    engine = PolicyEngine(parse_roles(POLICIES.read_text(encoding="utf-8")))
    async with Store.open(StoreSettings(folder, url=url)) as store:
        await PolicyFeed(engine).load(store)
        yield engine


@contextlib.asynccontextmanager
async def _control(folder, url):
    settings = Settings(
        data=str(folder), policies=str(POLICIES), egress=EgressFileSettings(allowed_networks=("127.0.0.0/8",))
    )
    with tempfile.TemporaryDirectory(prefix="custos-run-") as run:
        control = ControlSettings(settings=settings, run_folder=run, database_url=url)
        async with Control.open(control) as opened:
            yield opened


async def measure(case, folder, url):
    """What a fresh process needs until it can decide."""
    longest = 0.0

    async def tick():
        nonlocal longest
        loop = asyncio.get_running_loop()
        last = loop.time()
        while True:
            await asyncio.sleep(0.005)
            longest, last = max(longest, loop.time() - last - 0.005), loop.time()

    async with asyncio.TaskGroup() as tasks:
        ticking = tasks.create_task(tick())
        wall, cpu = time.perf_counter(), time.process_time()
        async with contextlib.AsyncExitStack() as stack:
            with collector_resting():
                await stack.enter_async_context((_feed if case == "feed" else _control)(folder, url))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            resident_mb = _memory_mb("VmRSS")
        ticking.cancel()
    return {
        "load_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "longest_gap_ms": round(longest * 1000, 1),
        "rss_mb": resident_mb,
        "peak_rss_mb": _memory_mb("VmHWM"),
    }


def _memory_mb(name):
    """VmRSS or VmHWM: not ru_maxrss, which begins with the parent's."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) // 1024 for line in lines if line.startswith(name))


def one(case, folder, url):
    """In a process of its own, so that its memory is its own."""
    command = [sys.executable, __file__, "--child", case, str(folder), url or ""]
    found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(found.stdout.splitlines()[-1])


def main(cameras=1_000_000, grants=100_000, users=50_000):
    city = (cameras, grants, users)
    with tempfile.TemporaryDirectory(prefix="custos-bench-") as folder, postgresql_server() as server:
        for database in ("sqlite", "postgresql"):
            data = Path(folder) / database
            data.mkdir()
            url = None if database == "sqlite" else asyncio.run(create_database(server))
            asyncio.run(build(data, url, city))
            for case in ("feed", "control"):
                names = {
                    "database": database,
                    "case": case,
                    "cameras": cameras,
                    "grants": grants,
                    "users": users,
                }
                print(json.dumps(names | one(case, data, url)), flush=True)  # noqa: T201


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        _, _, case, folder, url = sys.argv
        print(json.dumps(uvloop.run(measure(case, Path(folder), url or None))))  # noqa: T201
    else:
        main(*map(int, sys.argv[1:4]))
