"""How fast a page of cameras is found: `python tests/bench/bench_catalogue.py [cameras]`, one JSON line.

Every word is new to the index, as to the first who looks for it; CPU time, the database's rows left out.
"""

import asyncio
import gc
import itertools
import json
import random
import resource
import statistics
import sys
import time
from pathlib import Path

from pyroaring import BitMap

from gateway.catalogue_index import PREPARED_AT_ONCE, CameraFilter, CatalogueIndex, IndexedCamera, prepare

DISTRICTS = tuple(f"{name}区" for name in ("天河", "越秀", "海珠", "荔湾", "白云", "黄埔", "番禺", "花都"))
CHARACTERS = "东南西北中山人民体育解放环市天河广园新港江昌岗工业滨沿风花城机场增槎龙溪芳村洲头咀赤科韵车陂"
KINDS = ("枪机", "球机", "半球", "全景", "卡口")
UNITS = ("公安局", "城管局", "交通局", "应急局")
PAGE = 50
QUERIES = 600


def roads(rng, count):
    names = {"".join(rng.choices(CHARACTERS, k=rng.randint(2, 4))) for _ in range(count)}
    return [name + rng.choice("路街巷") for name in sorted(names)]


def city(rng, count, streets):
    for number in range(count):
        district = rng.choice(DISTRICTS)
        first, second = rng.choice(streets), rng.choice(streets)
        yield IndexedCamera(
            id=f"{rng.getrandbits(128):032x}",
            name=f"{district}{first}与{second}{rng.choice('东南西北')}{number % 10}号{rng.choice(KINDS)}",
            place=f"广州市{district}{first}{rng.randint(1, 900)}号",
            code=f"440106{rng.randint(0, 20):02}001326{number % 1_000_000:06}",
            management_unit=f"广州市{district}{rng.choice(UNITS)}",
            network=rng.choice(("government-extranet", "video-private-network", "internet-private-line")),
            point_class=rng.randint(1, 3),
            enabled=rng.random() < 0.97,
        )


async def pages(cameras, kept):
    for first in range(0, len(cameras), PREPARED_AT_ONCE):
        kept.append(prepare(cameras[first : first + PREPARED_AT_ONCE]))
        yield kept[-1]


async def pairs(kept):
    for page in kept:
        yield page.pairs


def queries(rng, streets, some):
    """What people type: mostly a part of a road's name or all of it, a corner, a district, an id, a code."""
    for _ in range(QUERIES):
        road = rng.choice(streets)
        camera = rng.choice(some)
        yield rng.choices(
            (
                road[:2],
                road,
                f"{rng.choice(DISTRICTS)} {road}",
                camera.name[:12],
                camera.code,
                camera.id[:8],
                rng.choice(DISTRICTS)[:2] + " " + rng.choice(KINDS),
                rng.choice(DISTRICTS) + rng.choice(UNITS),
            ),
            (4, 4, 4, 2, 1, 1, 2, 2),
        )[0]


async def main(count):
    rng = random.Random(0)
    streets = roads(rng, 4000)
    cameras = sorted(city(rng, count, streets))  # as the database gives them, and the PDP numbers them
    numbers = {camera.id: number for number, camera in enumerate(cameras)}
    index = CatalogueIndex(lambda ids: [numbers.get(camera_id) for camera_id in ids])
    some = rng.sample(cameras, 100)
    gc.collect()
    before = rss_mb()
    everything = BitMap(range(count))
    laps, kept = [time.process_time()], []
    for step in (
        index.fill(pages(cameras, kept)),
        index.find(everything, CameraFilter(), streets[0][:2]),
        index.speed_up(pairs(kept)),
    ):
        await step
        laps.append(time.process_time())
    filled, searched, paired = (later - earlier for earlier, later in itertools.pairwise(laps))
    kept.clear()
    gc.freeze()
    few = BitMap(rng.sample(range(count), count // 100))
    report = {"cameras": count, "load_s": round(filled + paired, 2), "rss_mb": round(rss_mb() - before)}
    report["first_search_without_pairs_ms"] = round(searched * 1000, 1)
    for name, within in (("all", everything), ("hundredth", few)):
        seconds = []
        for search in queries(rng, streets, some):
            wanted = CameraFilter(enabled=True if rng.random() < 0.2 else None)
            start = time.process_time()
            found = await index.find(within, wanted, search)
            total, rows = len(found), index.page(found, b"", PAGE)
            seconds.append(time.process_time() - start)
            assert len(rows) == min(total, PAGE)
        cuts = statistics.quantiles(seconds, n=100)
        report |= {
            f"search_{name}_p50_ms": round(cuts[49] * 1000, 2),
            f"search_{name}_p95_ms": round(cuts[94] * 1000, 2),
            f"search_{name}_max_ms": round(max(seconds) * 1000, 2),
        }
    for word in ("440106", "广州市", "天河区公安局"):
        start = time.process_time()
        found = await index.find(everything, CameraFilter(), word)
        report[f"first_{word}_ms"] = round((time.process_time() - start) * 1000, 1)
        start = time.process_time()
        assert found == await index.find(everything, CameraFilter(), word)
        report[f"then_{word}_ms"] = round((time.process_time() - start) * 1000, 1)
    sys.stdout.write(json.dumps(report, ensure_ascii=False) + "\n")


def rss_mb():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000))
