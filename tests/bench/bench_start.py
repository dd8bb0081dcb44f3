"""How long control takes to start in a city: `python tests/bench/bench_start.py [cameras grants users]`.

Builds a database of that size on SQLite and on PostgreSQL, every row sealed as the product seals it, then
opens it in a fresh process: the PDP's facts alone (`feed`), and a whole control (`control`). One JSON line
each; `longest_gap_ms` is how long the loop stood still at most, which must stay far below the workers' lease.
"""

import asyncio
import contextlib
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from functools import partial
from itertools import islice
from pathlib import Path
from types import SimpleNamespace

import asyncpg
import uvloop
from sqlalchemy import make_url

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from support.databases import create_database, postgresql_server  # noqa: E402

from gateway.app import Control  # noqa: E402
from gateway.audit.records import AuditEvent, AuditKind, Outcome  # noqa: E402
from gateway.catalogue_index import CatalogueIndex  # noqa: E402
from gateway.composition import ControlSettings  # noqa: E402
from gateway.policy_feed import PolicyFeed  # noqa: E402
from gateway.reading_apart import cameras_of  # noqa: E402
from gateway.settings import EgressFileSettings, LogSettings, Settings  # noqa: E402
from gateway.start_up import collector_resting  # noqa: E402
from gateway.store import schema  # noqa: E402
from gateway.store.bulk_insert import insert_rows  # noqa: E402
from gateway.store.sealed_rows import (  # noqa: E402
    TABLES,
    Sealed,
    camera_content,
    grant_content,
    tree_content,
    user_content,
)
from gateway.store.sealing import write_totals  # noqa: E402
from gateway.store.seals import Total  # noqa: E402
from gateway.store.store import Store, StoreSettings  # noqa: E402
from policies.engine import PolicyEngine  # noqa: E402
from policies.roles import parse_roles  # noqa: E402

POLICIES = ROOT / "config" / "policies.yaml"
DEPARTMENTS, GROUPS, TAGS = 130, 200, 50
AT = 1_767_225_600_000_000
PAGE_ROWS = 5000


def rows(cameras, grants, users):
    """(table, its rows, what seals one of them) in an order that foreign keys allow."""
    rng = random.Random(1)
    department = [f"department-{number}" for number in range(DEPARTMENTS)]
    yield (
        schema.departments,
        (
            {
                "id": d,
                "parent_id": department[(n - 1) // 5] if n else None,
                "name": f"部门 {n}",
                "created_at": AT,
            }
            for n, d in enumerate(department)
        ),
        partial(tree_content, Sealed.DEPARTMENT),
    )
    yield (
        schema.groups,
        (
            {
                "id": f"group-{n}", "parent_id": None, "department_id": department[n % DEPARTMENTS],
                "name": f"分组 {n}", "created_at": AT,
            }
            for n in range(GROUPS)
        ),
        partial(tree_content, Sealed.GROUP),
    )  # fmt: skip
    people = [f"user-{number}" for number in range(users)]
    held = [rng.choice(department) for _ in people]
    yield (
        schema.users,
        (
            {
                "id": u, "username": u, "username_folded": u, "display_name": u, "department_id": d,
                "kind": "person", "enabled": True, "created_at": AT,
            }
            for u, d in zip(people, held, strict=True)
        ),
        lambda user: user_content(user, [("operator", user.department_id)], ()),
    )  # fmt: skip
    yield (
        schema.user_roles,
        ({"user_id": u, "role": "operator", "department_id": d} for u, d in zip(people, held, strict=True)),
        None,
    )
    yield schema.cameras, (_camera(rng, n, department) for n in range(cameras)), _content_of_camera
    for table, column, of in (
        (schema.group_cameras, "group_id", groups_of),
        (schema.camera_tags, "tag", tags_of),
    ):
        yield table, ({column: v, "camera_id": camera_id(n)} for n in range(cameras) for v in of(n)), None
    yield schema.grants, (_grant(rng, n, cameras, people) for n in range(grants)), grant_content


def camera_id(number):
    return f"camera-{number:07}"


def groups_of(number):
    return [f"group-{number % GROUPS}"] if number % 3 == 0 else []


def tags_of(number):
    return [f"标签{number % TAGS}"] if number % 2 == 0 else []


def _camera(rng, number, department):
    is_shared = number % 50 == 0
    return {
        "id": camera_id(number), "department_id": rng.choice(department),
        "name": f"中山路 {rng.randrange(10**7)} 号", "description": "",
        "url": f"rtsp://10.0.0.1/{camera_id(number)}", "place": "人民广场东门", "code": f"{number:020}",
        "point_class": 1 + number % 3, "network": "video-private-network", "enabled": True,
        "sharing_mode": "unconditional" if is_shared else "conditional",
        "sharing_departments": [department[number % DEPARTMENTS]] if is_shared else None,
        "created_at": AT, "updated_at": AT,
    }  # fmt: skip


def _content_of_camera(camera):
    terms = (camera.sharing_mode, camera.sharing_departments, None, None)
    number = int(camera.code)
    return camera_content(camera.id, camera.department_id, True, terms, groups_of(number), tags_of(number))


def _grant(rng, number, cameras, people):
    kind, target = rng.choices(
        (
            ("camera", camera_id(rng.randrange(cameras))),
            ("group", f"group-{rng.randrange(GROUPS)}"),
            ("tag", "标签1"),
        ),
        (8, 1, 1),
    )[0]
    return {
        "id": f"grant-{number}", "subject_kind": "user", "subject_id": rng.choice(people),
        "object_kind": kind, "object_id": target, "actions": ["live:view", "camera:read"], "effect": "allow",
        "valid_to": AT + 10**13, "purposes": ["patrol"], "obligations": {}, "reason": "",
        "created_by": people[0], "created_at": AT, "epoch": 0,
    }  # fmt: skip


async def build(folder, url, city):
    """A database as the product leaves it, but for the ledger, which has one record for all."""
    started = time.perf_counter()
    async with Store.open(StoreSettings(folder, url=url)) as store:
        await store.run(partial(_fill, city))
    if url is not None:
        connection = await asyncpg.connect(
            host=make_url(url).query["host"], user="postgres", database=make_url(url).database
        )
        await connection.execute("VACUUM ANALYZE")  # as a city's database is: else this falls into the start
        await connection.close()
    print(json.dumps({"case": "build", "s": round(time.perf_counter() - started, 2)}), flush=True)  # noqa: T201


async def _fill(city, work):
    kinds = {table: kind for kind, table in TABLES.items()}
    totals = {kind: Total() for kind in Sealed}
    for table, entries, content in rows(*city):
        absent = dict.fromkeys(table.c.keys())
        while page := list(islice(entries, PAGE_ROWS)):
            for entry in page if content else ():
                entry["seal"] = work.seals.seal(content(SimpleNamespace(**absent | entry)))
                totals[kinds[table]].add(work.seals.summand(entry["seal"]))
            await insert_rows(work.conn, table, tuple(page[0]), [tuple(entry.values()) for entry in page])
            work.step()
    await write_totals(work.conn, work.seals, totals)
    event = AuditEvent(kind=AuditKind.CATALOGUE_IMPORTED, outcome=Outcome.OK, content="a made-up city")
    await work.record_sealed(event, [])


@contextlib.asynccontextmanager
async def _feed(folder, url):
    engine = PolicyEngine(parse_roles(POLICIES.read_text(encoding="utf-8")))
    async with Store.open(StoreSettings(folder, url=url)) as store:
        async with cameras_of(store, folder, url, LogSettings()) as cameras:
            await PolicyFeed(engine).load(store, cameras)
        yield engine


@contextlib.asynccontextmanager
async def _control(folder, url):
    settings = Settings(
        data=str(folder), policies=str(POLICIES), egress=EgressFileSettings(allowed_networks=("127.0.0.0/8",))
    )
    with tempfile.TemporaryDirectory(prefix="custos-run-") as run:
        control = ControlSettings(settings=settings, run_folder=run, database_url=url)
        async with Control.open(control) as opened:
            # a row that does not count, or a frozen grant, would make it another start
            assert not opened.services.freeze.void
            assert await opened.services.freeze.status() == (None, 0)
            yield opened


async def measure(case, folder, url):
    """What a fresh process needs: `feed` until it can decide, `control` until it also lists.

    `cpu_s` is its own; `readers_cpu_s` that of the processes that read cameras for it.
    """
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
        lists_s = _until_it_lists(wall)
        async with contextlib.AsyncExitStack() as stack:
            with collector_resting():
                await stack.enter_async_context((_feed if case == "feed" else _control)(folder, url))
            wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
            resident_mb = _memory_mb("VmRSS")
        ticking.cancel()
    return {
        "load_s": round(wall, 2),
        **lists_s,
        "cpu_s": round(cpu, 2),
        "readers_cpu_s": round(sum(resource.getrusage(resource.RUSAGE_CHILDREN)[:2]), 2),
        "longest_gap_ms": round(longest * 1000, 1),
        "rss_mb": resident_mb,
        "peak_rss_mb": _memory_mb("VmHWM"),
    }


def _until_it_lists(began):
    """Gets `lists_s` when all routes answer; until `load_s`, searches look through texts."""
    marks = {}
    fill = CatalogueIndex.fill

    async def marked(index, pages):
        await fill(index, pages)
        marks["lists_s"] = round(time.perf_counter() - began, 2)

    CatalogueIndex.fill = marked
    return marks


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
