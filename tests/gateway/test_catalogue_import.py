"""Files of cameras against a running control: all or nothing, on both databases."""

import asyncio
import hashlib
import io
import json
import time

import pytest
from support.catalogue_files import (
    DEVICE,
    NDJSON,
    csv_file,
    export_file,
    import_file,
    json_lines,
    make_group,
    new_cameras,
)
from support.controls import Clock, add_user, open_city

from gateway.catalogue_columns import COLUMNS, FileFormat
from gateway.catalogue_import import ImportInvalidError
from gateway.enforcement import Circumstances
from gateway.problems import Problem
from gateway.store.schema import cameras

FULL = {
    "id": "full",
    "name": '路口, "东";\'=1',
    "department_id": "traffic",
    "url": "rtsp://127.0.0.1:8554/full",
    "sub_url": "rtsp://127.0.0.1:8554/full/sub",
    "username": "viewer",
    "password": "camera-canary-91c2",
    "allow_basic": True,
    "enabled": False,
    "declared_bandwidth_bps": 4_000_000,
    "description": "-1层\r\n=SUM(A1)",
    "code": f"{DEVICE}0001",
    "civil_code": "340104",
    "point_class": 1,
    "network": "government-extranet",
    "place": "@人民路 1 号",
    "longitude": 117.25,
    "latitude": -0.000012,
    "direction": "northeast",
    "management_unit": "城管局",
    "retention_days": 90,
    "tags": ["夜间", "=重点"],
    "groups": ["crossings"],
    "sharing": {
        "mode": "unconditional",
        "departments": ["urban"],
        "scope": "全市",
        "purpose": "+巡查",
        "frequency": "实时",
        "until": "2027-01-01T00:00:00+00:00",
        "purposes": ["case", "patrol"],
    },
}


async def count_cameras(city):
    async with city.services.store.read() as conn:
        return len((await conn.execute(cameras.select())).all())


async def test_cameras_are_created_changed_and_left_as_they_are(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        content = csv_file(*new_cameras(3))
        report = await import_file(city, "traffic-admin", content)
        assert report == {
            "created": 3, "updated": 0, "unchanged": 0, "lines": 3,
            "errors": [], "error_count": 0, "dry_run": False,
        }  # fmt: skip
        changed = csv_file({"id": "new-0", "name": "另一个"}, {"id": "new-1", "name": "new 路口 1"})
        report = await import_file(city, "traffic-admin", changed)
        assert (report["created"], report["updated"], report["unchanged"]) == (0, 1, 1)
        detail = await city.call("traffic-admin", "GET", "/cameras/new-0")
        assert detail["camera"]["name"] == "另一个"
        assert detail["connection"]["url"] == "rtsp://127.0.0.1:8554/0"


@pytest.mark.parametrize(
    ("said", "purposes"),
    [({}, ["case"]), ({"purposes": None}, None), ({"purposes": []}, [])],
)
async def test_a_line_that_says_nothing_of_purposes_leaves_them(tmp_path, said, purposes):
    async with open_city(tmp_path) as city:
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"sharing": {"purposes": ["case"]}})
        line = json.dumps({"id": "gate", "sharing": {"scope": "北门", **said}}).encode()
        table = csv_file({"id": "gate", "sharing_scope": "南门"})
        for content, kind, scope in ((line, NDJSON, "北门"), (table, "text/csv", "南门")):
            await import_file(city, "traffic-admin", content, kind=kind)
            sharing = (await city.call("traffic-admin", "GET", "/cameras/gate"))["camera"]["sharing"]
            assert (sharing["scope"], sharing["purposes"]) == (scope, purposes)


async def test_the_ledger_has_one_record_with_the_files_digest(tmp_path):
    async with open_city(tmp_path) as city:
        content = csv_file(*new_cameras(3))
        await import_file(city, "traffic-admin", content)
        (record,) = await city.records(kind="catalogue_imported")
        digest = hashlib.sha256(content).hexdigest()
        assert record.content == (f"import 3 cameras: 3 new, 0 changed, 0 as they were; SHA-256 {digest}")
        assert record.detail["sha256"] == digest
        assert (record.owner_id, record.owner_ids) == (None, ("traffic",))
        assert [state.split()[0] for state in record.detail["states"]] == [
            f"camera:new-{n}" for n in range(3)
        ]
        assert record.actor_id == "traffic-admin"
        assert not await city.records(kind="camera_created", resource="camera:new-0")


async def test_every_owner_finds_the_record_also_of_a_camera_that_he_gave_away(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        top = (await city.call("root", "GET", "/me"))["department"]["id"]
        await add_user(city, "registrar", top, "department-administrator")
        for department in ("traffic", "urban"):
            await add_user(city, f"{department}-auditor", department, "auditor")
        moved = {"id": "gate", "department_id": "urban"}
        report = await import_file(city, "registrar", json_lines(moved), kind=NDJSON)
        assert report["updated"] == 1
        (record,) = await city.records(kind="catalogue_imported")
        assert (record.owner_id, record.owner_ids) == (None, ("traffic", "urban"))
        for department in ("traffic", "urban"):
            path = f"/audit/records?purpose=audit&kind=catalogue_imported&owner={department}"
            (seen,) = (await city.call(f"{department}-auditor", "GET", path))["items"]
            assert seen["record"]["owner_ids"] == ["traffic", "urban"]


async def test_an_export_comes_back_unchanged(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        await make_group(city)
        assert (await import_file(city, "traffic-admin", json_lines(FULL), kind=NDJSON))["created"] == 1
        for form, kind in (("csv", "text/csv"), ("jsonl", NDJSON)):
            content = await export_file(city, "traffic-admin", form)
            assert b"canary" not in content
            assert b"camera-password" not in content
            report = await import_file(city, "traffic-admin", content, kind=kind)
            assert (report["lines"], report["unchanged"]) == (3, 3), (form, report)
            renamed = content.replace(b"8554/full", b"8554/other")
            assert (await import_file(city, "traffic-admin", renamed, kind=kind))["updated"] == 1
            back = json_lines({"id": "full", "url": FULL["url"], "sub_url": FULL["sub_url"]})
            assert (await import_file(city, "traffic-admin", back, kind=NDJSON))["updated"] == 1
        (exported,) = [json.loads(line) for line in content.splitlines() if b'"full"' in line]
        assert exported == {name: value for name, value in FULL.items() if name != "password"} | {
            "tags": sorted(FULL["tags"])
        }
        assert len(await city.records(kind="export")) == 2


async def test_an_export_has_what_the_caller_may_see(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant(user="urban-operator", camera="gate", actions=["live:view"])
        seen = await export_file(city, "urban-operator", "jsonl")
        (camera,) = [json.loads(line) for line in seen.splitlines()]
        assert camera["id"] == "gate"
        assert not {"url", "sub_url", "username", "groups", "allow_basic"} & camera.keys()
        assert "rtsp" not in (await export_file(city, "urban-operator")).decode()
        assert await export_file(city, "urban-admin", "jsonl") == b""


async def test_a_password_is_sealed_and_kept_when_none_is_given(tmp_path):
    async with open_city(tmp_path) as city:
        await make_group(city)
        await import_file(city, "traffic-admin", json_lines(FULL), kind=NDJSON)
        for line, updated in (
            ({"id": "full", "password": FULL["password"]}, 0),
            ({"id": "full", "name": "n"}, 1),
        ):
            report = await import_file(city, "traffic-admin", json_lines(line), kind=NDJSON)
            assert report["updated"] == updated
            row = await city.services.directory.camera_row("full")
            assert FULL["password"].encode() not in row.secret
            assert city.services.catalogue.address_of(row).password == FULL["password"]
        await import_file(city, "traffic-admin", json_lines({"id": "full", "password": None}), kind=NDJSON)
        assert (await city.services.directory.camera_row("full")).secret is None


async def test_a_dry_run_writes_nothing(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        records = len(await city.records())
        report = await import_file(city, "traffic-admin", csv_file(*new_cameras(3)), query="?dry_run=1")
        assert (report["created"], report["dry_run"]) == (3, True)
        assert await count_cameras(city) == 2
        assert len(await city.records()) == records


async def test_a_write_meanwhile_makes_the_import_begin_again(tmp_path, database_url, monkeypatch):
    async with open_city(tmp_path, url=database_url) as city:
        imports = city.services.imports
        principal = await city.services.authentication.principal(city.tokens["traffic-admin"])
        circumstances = Circumstances(remote="", request_id="")
        meanwhile = {}
        write = imports._write

        async def later(*arguments):
            await meanwhile["do"]()
            await write(*arguments)

        monkeypatch.setattr(imports, "_write", later)
        rename = csv_file({"id": "gate", "name": "renamed by the file"})
        (new,) = new_cameras(1)
        for content, do in (
            (rename, lambda: city.call("traffic-admin", "PATCH", "/cameras/gate", {"name": "other"})),
            (csv_file(new), lambda: city.call("traffic-admin", "POST", "/cameras", new)),
            (rename, lambda: city.call("traffic-admin", "DELETE", "/cameras/gate")),
        ):
            city.clock.advance(1)
            meanwhile["do"] = do
            with pytest.raises(Problem) as refused:
                await imports.import_file(
                    principal, io.BytesIO(content), FileFormat.CSV, "0" * 64, circumstances
                )
            assert refused.value.code == "conflict"
        assert not await city.records(kind="catalogue_imported")


async def test_an_error_of_the_file_is_an_error_of_ours(tmp_path):
    async with open_city(tmp_path) as city:
        principal = await city.services.authentication.principal(city.tokens["traffic-admin"])
        with pytest.raises(ImportInvalidError) as refused:
            await city.services.imports.import_file(
                principal, io.BytesIO(b"x"), FileFormat.CSV, "0" * 64, Circumstances(remote="", request_id="")
            )
        assert refused.value.code == "import_invalid"


async def test_every_column_can_be_imported(tmp_path):
    async with open_city(tmp_path) as city:
        await make_group(city)
        row = {name: value for name, value in FULL.items() if name != "sharing"}
        row |= {f"sharing_{name}": value for name, value in FULL["sharing"].items()}
        row = {
            name: ";".join(value) if isinstance(value, list) else str(value) for name, value in row.items()
        }
        guarded = {name: f"'{value}" if value[0] in "=+-@" else value for name, value in row.items()}
        guarded["latitude"] = "-0.000012"
        guarded["name"] = "n"
        assert set(guarded) == set(COLUMNS)
        assert (await import_file(city, "traffic-admin", csv_file(guarded)))["created"] == 1


@pytest.mark.slow
async def test_the_loop_goes_on_while_a_city_is_imported(tmp_path, database_url):
    count = 20_000
    async with open_city(tmp_path, url=database_url, clock=Clock()) as city:
        content = csv_file(*new_cameras(count), tags="夜间;重点", place="人民路与中山路交叉口")
        principal = await city.services.authentication.principal(city.tokens["traffic-admin"])
        gaps = []

        async def tick():
            last = time.monotonic()
            while True:
                await asyncio.sleep(0.01)
                now = time.monotonic()
                gaps.append(now - last)
                last = now

        ticking = city.tasks.create_task(tick())
        report = await city.services.imports.import_file(
            principal, io.BytesIO(content), FileFormat.CSV, "0" * 64, Circumstances(remote="", request_id="")
        )
        ticking.cancel()
        assert report.created == count
        # a lease is renewed every 250 ms and lives for 5 s
        assert max(gaps) < 2.5
