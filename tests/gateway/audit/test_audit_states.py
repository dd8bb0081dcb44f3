"""Offline: every row that decides is what the ledger's last record about it states."""

import asyncio
import sqlite3
from contextlib import closing

import pytest
from support.controls import Clock, open_city
from support.seals import freeze_grants

from gateway.audit.verify import verify_data_folder


@pytest.fixture(scope="module")
def city_folder(tmp_path_factory):
    """A city with some of everything that decides, closed."""
    folder = tmp_path_factory.mktemp("city")

    async def furnish():
        async with open_city(folder, clock=Clock()) as city:
            await city.grant()
            gone = await city.grant("traffic-operator")
            await city.grant("urban-admin", effect="deny", purposes=["case"])
            await city.call("traffic-admin", "DELETE", f"/grants/{gone}")
            await city.call("root", "POST", "/roles", {"name": "clerk", "department": ["camera:read"]})
            await city.call(
                "traffic-admin", "POST", "/groups", {"id": "g", "name": "g", "department_id": "traffic"}
            )
            change = {"groups": ["g"], "tags": ["桥", "河"]}
            await city.call("traffic-admin", "PATCH", "/cameras/bridge", change)
            await city.call("traffic-admin", "DELETE", "/cameras/gate")
            await freeze_grants(city)
            await city.call("traffic-admin", "POST", "/policy/confirm", {"department_id": "traffic"})

    asyncio.run(furnish())
    return folder / "data"


@pytest.fixture
def data(city_folder, tmp_path):
    """A copy that a test may spoil; yields what runs SQL on it and verifies."""
    copy = tmp_path / "data"
    copy.mkdir()
    for name in ("ledger.pub", "heads.jsonl"):
        (copy / name).write_bytes((city_folder / name).read_bytes())
    with closing(sqlite3.connect(city_folder / "custos.db")) as source:
        with closing(sqlite3.connect(copy / "custos.db")) as target:
            source.backup(target)

    def spoil(*statements):
        with closing(sqlite3.connect(copy / "custos.db")) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return [(finding.code, finding.detail.split(" ")[0]) for finding in verify_data_folder(copy).findings]

    return spoil


def test_what_nobody_touched_is_as_recorded(data):
    assert data() == []


@pytest.mark.parametrize(
    ("statement", "code", "kind"),
    [
        ("UPDATE grants SET purposes = NULL WHERE effect = 'deny'", "row_unrecorded", "grant"),
        ("UPDATE grants SET revoked_at = NULL", "row_unrecorded", "grant"),
        ("UPDATE grants SET revoked_at = 1", "row_missing", "grant"),
        ("UPDATE grants SET actions = '['", "row_unrecorded", "grant"),
        ("DELETE FROM grants WHERE effect = 'deny'", "row_missing", "grant"),
        ("INSERT INTO user_roles VALUES ('job', 'auditor', 'urban')", "row_unrecorded", "user:job"),
        ("UPDATE users SET password_hash = 'x' WHERE id = 'job'", "row_unrecorded", "user:job"),
        (
            "UPDATE departments SET parent_id = 'urban' WHERE id = 'traffic'",
            "row_unrecorded",
            "department:traffic",
        ),
        ("UPDATE groups SET department_id = 'urban'", "row_unrecorded", "group:g"),
        ("DELETE FROM camera_tags WHERE tag = '河'", "row_unrecorded", "camera:bridge"),
        ("DELETE FROM group_cameras", "row_unrecorded", "camera:bridge"),
        ("UPDATE cameras SET department_id = 'urban'", "row_unrecorded", "camera:bridge"),
        ("UPDATE roles SET installation = '[\"camera:share\"]'", "row_unrecorded", "role:clerk"),
        ("DELETE FROM roles", "row_missing", "role:clerk"),
    ],
)
def test_what_sql_changed_is_found(data, statement, code, kind):
    found = data("PRAGMA foreign_keys = OFF", statement)
    assert found
    assert all(found_code == code and name.startswith(kind) for found_code, name in found)
