"""The PDP's facts follow the database: after each commit, and at a start."""

import sqlalchemy as sa
from support.controls import Clock, open_city

from gateway.store.schema import grants, groups
from policies.access import Action, Object, ObjectKind

GATE = Object(ObjectKind.CAMERA, "gate")


def _decisions(city):
    """What everybody may do with both cameras."""
    enforcement = city.services.enforcement
    return {
        (user, camera, action): enforcement.decide(
            user, action, Object(ObjectKind.CAMERA, camera), "patrol"
        ).rule
        for user in ("traffic-admin", "urban-admin", "traffic-operator", "urban-operator", "auditor", "job")
        for camera in ("gate", "bridge")
        for action in Action
    }


async def test_a_restart_decides_as_before(tmp_path, database_url):
    clock = Clock()
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        await city.call(
            "traffic-admin", "POST", "/groups", {"id": "g", "name": "g", "department_id": "traffic"}
        )
        await city.call("traffic-admin", "PATCH", "/cameras/bridge", {"groups": ["g"]})
        body = {
            "subject": {"kind": "department", "id": "urban"},
            "object": {"kind": "group", "id": "g"},
            "actions": ["live:view"],
        }
        await city.call("traffic-admin", "POST", "/grants", body)
        await city.grant("job", actions=["frames:consume"], purposes=["patrol"])
        revoked = await city.grant("traffic-operator")
        await city.grant("urban-admin", effect="deny")
        await city.call("traffic-admin", "DELETE", f"/grants/{revoked}")
        await city.call("root", "PATCH", "/users/auditor", {"enabled": False})
        await city.call("root", "PATCH", "/users/traffic-operator", {"roles": ["department-administrator"]})
        before, revision = _decisions(city), city.services.enforcement.revision
    assert sum(rule is not None for rule in before.values()) > 10
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        assert _decisions(city) == before
        assert city.services.enforcement.revision == revision


async def test_every_write_raises_the_revision_by_one(tmp_path):
    async with open_city(tmp_path) as city:
        revision = city.services.enforcement.revision
        grant = await city.grant()
        assert city.services.enforcement.revision == revision + 1
        await city.watch("urban-operator")
        await city.watch("urban-admin", expect=403)
        assert city.services.enforcement.revision == revision + 1
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        assert city.services.enforcement.revision == revision + 2


async def test_rows_that_make_no_sense_allow_nothing_and_stop_nothing(tmp_path):
    """As a restored backup, or somebody with the database's password, might leave them."""
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        await city.grant()
        good = await city.grant("traffic-operator")

        async def spoil(work):
            parent = None
            for depth in range(40):
                row = {"id": f"g{depth}", "parent_id": parent, "department_id": "traffic", "name": "g"}
                await work.conn.execute(sa.insert(groups).values(**row, created_at=1))
                parent = f"g{depth}"
            await work.conn.execute(sa.update(groups).where(groups.c.id == "g0").values(parent_id="g5"))
            await work.conn.execute(
                sa.update(grants)
                .where(grants.c.id != good)
                .values(actions=["everything"], obligations={"x": 1})
            )

        await city.services.store.run(spoil)
    async with open_city(tmp_path, clock=clock) as city:
        await city.watch("urban-operator", expect=403)
        await city.watch("traffic-operator")
        await city.call("traffic-admin", "GET", "/grants")
