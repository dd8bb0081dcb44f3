"""Control as a whole: opened, stopped, stopped when nothing can be written."""

import asyncio
from pathlib import Path

import pytest
from support.controls import CHEAP, ROOT, Clock, open_city

from gateway.app import Control
from gateway.composition import ControlSettings
from gateway.keys import KeyFileError
from gateway.settings import Settings
from gateway.store.errors import StoreUnavailableError
from policies.roles import RolesError


def _settings(folder, **changes):
    fields = {"data": str(folder), "policies": str(ROOT / "config" / "policies.yaml"), "passwords": CHEAP}
    return ControlSettings(settings=Settings(**fields | changes), run_folder=str(folder))


async def test_what_cannot_be_opened_says_why(tmp_path):
    (tmp_path / "bad.yaml").write_text("roles: {operator: {department: [live:view]}}\n")
    for changes, error in (
        ({"policies": str(tmp_path / "bad.yaml")}, RolesError),
        ({"policies": str(tmp_path / "none.yaml")}, OSError),
    ):
        with pytest.raises(error):
            async with Control.open(_settings(tmp_path, **changes)):
                pass
    (tmp_path / "keys" / "master.key").write_bytes(b"short")
    with pytest.raises(KeyFileError):
        async with Control.open(_settings(tmp_path)):
            pass


async def test_a_stop_is_not_held_up_by_a_store_that_fails(tmp_path, monkeypatch):
    monkeypatch.setattr("gateway.app.DRAIN_SECONDS", 0.1)
    clock = Clock()
    async with asyncio.timeout(60), open_city(tmp_path, clock=clock) as city:
        await city.grant()
        worker = await city.worker()
        await worker.start(await city.watch("urban-operator"))

        async def failing(unit):
            raise StoreUnavailableError("gone")

        monkeypatch.setattr(city.services.store, "run", failing)
    monkeypatch.undo()
    # the end that could not be written is written after the next start
    async with open_city(tmp_path, clock=clock) as city:
        clock.advance(15)
        (end,) = await city.recorded(kind="session_end")
        assert end.reason == "worker_lost"


def _descriptors():
    """How many files and sockets this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def test_nothing_is_left_open(tmp_path):
    before = _descriptors()
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        await worker.start(await city.watch("urban-operator"))
    await asyncio.sleep(0)
    assert _descriptors() <= before


async def test_the_portal_is_served_from_memory_and_nothing_beside_it(tmp_path):
    portal = tmp_path / "portal"
    (portal / "assets").mkdir(parents=True)
    (portal / "index.html").write_text("<html>")
    (portal / "assets" / "a.js").write_text("1")
    (tmp_path / "secret").write_text("secret")
    (portal / "link").symlink_to(tmp_path / "secret")
    async with open_city(tmp_path, furnish=False, portal=str(portal)) as city:
        status, headers, text = await city.request("GET", "/")
        assert (status, text, headers["Cache-Control"]) == (200, "<html>", "no-cache")
        assert "script-src 'self'" in headers["Content-Security-Policy"]
        sent = {"If-None-Match": headers["ETag"]}
        assert (await city.request("GET", "/", headers=sent))[0] == 304
        status, headers, text = await city.request("GET", "/assets/a.js")
        assert (status, text, "immutable" in headers["Cache-Control"]) == (200, "1", True)
        for path in ("/link", "/../secret", "/%2e%2e/secret", "/assets/", "/assets/../index.html/x"):
            assert (await city.request("GET", path))[0] == 404
