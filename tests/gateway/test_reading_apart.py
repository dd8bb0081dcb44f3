"""Processes that read a large city's cameras for a start give what control itself would have read."""

import asyncio
import sys
from pathlib import Path

import pytest
import sqlalchemy as sa
from support.controls import Clock, open_city
from support.seals import seal

from gateway import reading_apart
from gateway.child import READY_FD
from gateway.reading_apart import CamerasHere, cameras_of
from gateway.sealed_facts import SealedFacts
from gateway.settings import LogSettings
from gateway.store.errors import StoreUnavailableError
from gateway.store.schema import camera_tags, cameras, group_cameras, groups
from gateway.store.sealed_rows import Sealed
from gateway.store.store import Store, StoreSettings

NAMES = [f"路口 {number}" for number in range(9)]


async def furnish(city):
    """Cameras with all that a seal covers; the fifth was altered by SQL since."""
    identifiers = [f"c{number}" for number in range(len(NAMES))]

    async def fill(work):
        row = {"id": "g", "parent_id": None, "department_id": "traffic", "name": "g", "created_at": 1}
        await work.conn.execute(sa.insert(groups).values(**row))
        for number, (identifier, name) in enumerate(zip(identifiers, NAMES, strict=True)):
            shared = {"sharing_mode": "unconditional", "sharing_departments": ["urban"]} if number % 3 else {}
            await work.conn.execute(
                sa.insert(cameras).values(
                    id=identifier, department_id="traffic", name=name, url="rtsp://10.0.0.1/1",
                    enabled=number != 2, point_class=1 + number % 3, created_at=1, updated_at=1, **shared,
                )
            )  # fmt: skip
            if number % 2:
                await work.conn.execute(sa.insert(group_cameras).values(group_id="g", camera_id=identifier))
                tags = [{"tag": tag, "camera_id": identifier} for tag in ("桥", "河")]
                await work.conn.execute(sa.insert(camera_tags), tags)
        await seal(work, (Sealed.GROUP, "g"), *((Sealed.CAMERA, identifier) for identifier in identifiers))
        await work.conn.execute(sa.update(cameras).where(cameras.c.id == "c5").values(department_id="urban"))

    await city.services.store.run(fill)


async def everything(reading, seals):
    found = SealedFacts(seals)
    facts = [camera async for page in reading.facts(found) for camera in page]
    listed = [
        (identifier, text)
        async for page in reading.listing()
        for identifier, text in zip(page.ids, page.texts, strict=True)
    ]
    firsts = [page.first async for page in reading.pairs()]
    assert set(firsts) <= {identifier for identifier, _ in listed}
    return facts, listed, found.totals, found.unfit, reading.revision


@pytest.mark.parametrize("readers", [1, 2, 4])
async def test_they_read_what_control_would(tmp_path, database_url, monkeypatch, readers):
    async with open_city(tmp_path, url=database_url) as city:
        await furnish(city)
    monkeypatch.setattr(reading_apart, "READERS", readers)
    async with Store.open(StoreSettings(tmp_path / "data", url=database_url)) as store:
        facts, listed, totals, unfit, revision = await everything(CamerasHere(store), store.seals)
        assert [camera[0] for camera in facts] == ["bridge", *(f"c{n}" for n in range(9) if n != 5), "gate"]
        assert [identifier for identifier, _ in listed] == [camera[0] for camera in facts]
        assert unfit == {Sealed.CAMERA: ["c5"]}
        monkeypatch.setattr(reading_apart, "FEW_CAMERAS", 0)
        # Control's own pipe to its supervisor, which they see in the environment and do not have.
        monkeypatch.setenv(READY_FD, "900")
        async with cameras_of(store, tmp_path / "data", database_url, LogSettings()) as apart:
            assert isinstance(apart, CamerasHere) == (readers == 1)
            found = await everything(apart, store.seals)
    assert (sorted(found[0]), sorted(found[1])) == (facts, listed)
    assert found[2:] == (totals, unfit, revision)


@pytest.mark.parametrize("few", [9, 0])
async def test_a_camera_whose_name_is_no_text_is_not_listed_and_stops_nothing(tmp_path, monkeypatch, few):
    """SQLite takes anything from who edits its file, and a name is not sealed: it decides nothing."""
    async with open_city(tmp_path) as city:

        async def spoil(work):
            await work.conn.execute(sa.text("UPDATE cameras SET name = x'FF' WHERE id = 'gate'"))

        await city.services.store.run(spoil)
        monkeypatch.setattr(reading_apart, "FEW_CAMERAS", few)
        store = city.services.store
        async with cameras_of(store, tmp_path / "data", None, LogSettings()) as reading:
            facts, listed, *_ = await everything(reading, store.seals)
    assert sorted(camera[0] for camera in facts) == ["bridge", "gate"]
    assert [identifier for identifier, _ in listed] == ["bridge"]


async def test_a_small_city_is_read_by_control_itself(tmp_path):
    async with open_city(tmp_path) as city:
        store = city.services.store
        async with cameras_of(store, tmp_path / "data", None, LogSettings()) as reading:
            assert isinstance(reading, CamerasHere)


async def test_a_control_that_has_them_starts_lists_and_names_what_does_not_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(reading_apart, "FEW_CAMERAS", 0)
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await furnish(city)
    async with open_city(tmp_path, clock=clock) as city:
        assert city.services.freeze.void == {"camera": 1}
        listed = await city.call("traffic-admin", "GET", "/cameras?q=路口")
        assert {camera["name"] for camera in listed["items"]} == set(NAMES) - {"路口 5"}


@pytest.mark.parametrize(
    "program",
    [
        "raise SystemExit(1)",
        "import sys; sys.stdout.buffer.write((9).to_bytes(4) + b'half')",
        "import sys; sys.stdout.buffer.write(b'\\xff' * 9)",
    ],
)
async def test_a_process_that_fails_ends_the_start(tmp_path, monkeypatch, program):
    async with open_city(tmp_path) as city:
        store = city.services.store
        monkeypatch.setattr(reading_apart, "FEW_CAMERAS", 0)
        monkeypatch.setattr(reading_apart, "_COMMAND", (sys.executable, "-c", program))
        async with cameras_of(store, tmp_path / "data", None, LogSettings()) as reading:
            with pytest.raises(StoreUnavailableError):
                await everything(reading, store.seals)


async def test_they_are_gone_when_the_start_is_given_up_and_their_order_is_not_for_all_to_read(
    tmp_path, monkeypatch
):
    """Their order may hold the database's password."""
    started = []
    start = asyncio.create_subprocess_exec

    async def noticed(*command, **options):
        process = await start(*command, **options)
        started.append(process)
        return process

    async def give_up(store):
        async with cameras_of(store, tmp_path / "data", None, LogSettings()):
            for process in started:
                shown = Path("/proc", str(process.pid))
                told = (shown / "cmdline").read_bytes() + (shown / "environ").read_bytes()
                assert str(tmp_path / "data").encode() not in told
            raise ZeroDivisionError

    async with open_city(tmp_path) as city:
        monkeypatch.setattr(reading_apart, "FEW_CAMERAS", 0)
        monkeypatch.setattr(asyncio, "create_subprocess_exec", noticed)
        with pytest.raises(ZeroDivisionError):
            await give_up(city.services.store)
    assert len(started) == reading_apart.READERS
    assert all(process.returncode is not None for process in started)
