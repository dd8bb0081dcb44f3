"""The upload and the download of the catalogue, at the edge."""

import asyncio
import gzip
import json

import aiohttp
import pytest
from aiohttp import web
from support.catalogue_files import csv_file, export_file, import_file, new_cameras
from support.controls import open_city

import gateway.web.catalogue_files
from gateway.relay.answering import answered
from gateway.relay.proxy import ControlProxy

LARGE_BYTES = 50 * 1024 * 1024


async def test_only_files_that_are_known_are_taken(tmp_path):
    async with open_city(tmp_path) as city:
        for kind in ("application/json", "text/plain", "multipart/form-data"):
            problem = await import_file(city, "traffic-admin", b"id\n", kind=kind, expect=415)
            assert problem["code"] == "media_type_unknown"
        (camera,) = new_cameras(1)
        line = json.dumps(camera).encode()
        for kind in ("application/x-ndjson", "application/jsonl; charset=utf-8"):
            await import_file(city, "traffic-admin", line, kind=kind)
        assert (await import_file(city, "traffic-admin", b"id\nnew-0\n", kind="text/csv; header=present"))[
            "unchanged"
        ] == 1


async def test_who_has_not_logged_in_cannot_send_a_file(tmp_path):
    async with open_city(tmp_path) as city:
        status, _, _ = await city.request(
            "POST", "/api/v1/cameras/import", data=b"id\n", headers={"Content-Type": "text/csv"}
        )
        assert status == 401
        assert (await city.request("GET", "/api/v1/cameras/export"))[0] == 401


async def test_a_file_has_so_many_bytes_and_no_more(tmp_path, monkeypatch):
    content = csv_file(*new_cameras(10))
    monkeypatch.setattr(gateway.web.catalogue_files, "MAX_FILE_BYTES", len(content))

    async def dripping(whole):
        for start in range(0, len(whole), 7):
            yield whole[start : start + 7]

    async with open_city(tmp_path) as city:
        await import_file(city, "traffic-admin", dripping(content), query="?dry_run=1")
        for body in (content + b"\n", dripping(content + b"\n")):
            problem = await import_file(city, "traffic-admin", body, expect=413)
            assert problem["code"] == "body_too_large"
        packed = gzip.compress(b"\n" * len(content) * 100)
        status, _, _ = await city.request(
            "POST",
            "/api/v1/cameras/import",
            city.tokens["traffic-admin"],
            data=packed,
            headers={"Content-Type": "text/csv", "Content-Encoding": "gzip"},
        )
        assert status == 413


async def test_one_file_at_a_time(tmp_path):
    async with open_city(tmp_path) as city:
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def slow():
            yield b"id,name\n"
            begun.set()
            await go_on.wait()
            yield b"gate,slow\n"

        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(import_file(city, "traffic-admin", slow()))
            await begun.wait()
            await city.until(lambda: city.services.imports._is_importing)
            problem = await import_file(city, "traffic-admin", b"id\ngate\n", expect=503)
            assert problem["code"] == "import_busy"
            go_on.set()
        assert first.result()["updated"] == 1
        await import_file(city, "traffic-admin", b"id\ngate\n")


async def test_a_download_says_what_it_is(tmp_path):
    async with open_city(tmp_path) as city:
        for query, kind, name in (
            ("", "text/csv; charset=utf-8", "cameras.csv"),
            ("?format=jsonl", "application/x-ndjson", "cameras.jsonl"),
        ):
            _, headers, _ = await city.request(
                "GET", f"/api/v1/cameras/export{query}", city.tokens["traffic-admin"]
            )
            assert headers["Content-Type"] == kind
            assert headers["Content-Disposition"] == f'attachment; filename="{name}"'
            assert headers["Cache-Control"] == "no-store"
        await city.call("traffic-admin", "GET", "/cameras/export?format=xml", expect=422)
        assert (await export_file(city, "traffic-admin")).startswith("\ufeffid,name,".encode())
        assert len(await city.records(kind="export")) == 3


@pytest.mark.slow
async def test_a_large_file_passes_through_a_relay_worker(tmp_path):
    async with open_city(tmp_path) as city, ControlProxy(city.folder / "control-http.sock") as proxy:
        app = web.Application(middlewares=[answered])
        app.router.add_route("*", "/{path:.*}", proxy.forward)
        runner = web.AppRunner(app, access_log=None, auto_decompress=False)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0]
        line = b"gate," + b"x" * 20_000 + b"\n"

        async def large():
            yield b"id,description\n"
            for _ in range(LARGE_BYTES // (64 * len(line))):
                yield line * 64

        try:
            async with (
                aiohttp.ClientSession() as http,
                http.post(
                    f"http://{host}:{port}/api/v1/cameras/import",
                    data=large(),
                    headers={
                        "Content-Type": "text/csv",
                        "Authorization": f"Bearer {city.tokens['traffic-admin']}",
                    },
                ) as answer,
            ):
                problem = await answer.json(content_type=None)
        finally:
            await runner.cleanup()
        # every line is counted and wrong: all of the file has been read
        assert problem["code"] == "import_invalid", problem
        report = problem["report"]
        assert report["lines"] == report["error_count"] == 64 * (LARGE_BYTES // (64 * len(line)))
        assert {error["code"] for error in report["errors"]} == {"invalid_field"}
