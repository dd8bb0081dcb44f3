"""The PDP's facts follow the database: after each commit, and at a start."""

import asyncio

import pytest
import sqlalchemy as sa
from support.controls import ROOT, Clock, open_city
from support.seals import seal

from gateway import policy_feed, reading_apart
from gateway.policy_feed import PolicyFeed
from gateway.reading_apart import CamerasHere
from gateway.store import key_pages
from gateway.store.schema import camera_tags, cameras, grants, groups
from gateway.store.sealed_rows import Sealed
from gateway.store.store import Store, StoreSettings
from policies.access import AccessRequest, Action, Object, ObjectKind, Reason
from policies.engine import PolicyEngine
from policies.roles import parse_roles

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


@pytest.mark.parametrize(("page_rows", "few"), [(1, 9), (2, 9), (3, 9), (1000, 9), (1000, 0)])
async def test_a_restart_decides_as_before(tmp_path, database_url, monkeypatch, page_rows, few):
    monkeypatch.setattr(key_pages, "PAGE_ROWS", page_rows)
    monkeypatch.setattr(reading_apart, "FEW_CAMERAS", few)
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


async def test_a_camera_is_read_with_its_tags_and_how_it_is_shared(tmp_path, database_url, monkeypatch):
    monkeypatch.setattr(key_pages, "PAGE_ROWS", 1)
    clock = Clock()
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        await city.grant("traffic-operator", "gate")

        async def describe(work):
            values = [{"tag": tag, "camera_id": "bridge"} for tag in ("河", "桥")]
            await work.conn.execute(sa.insert(camera_tags), values)
            await work.conn.execute(
                sa.update(cameras)
                .where(cameras.c.id == "bridge")
                .values(sharing_mode="unconditional", sharing_departments=["urban"])
            )
            by_tag = {"subject_kind": "user", "subject_id": "job", "object_kind": "tag", "object_id": "桥"}
            await work.conn.execute(
                sa.insert(grants).values(
                    **by_tag, id="by-tag", actions=["live:view"], effect="allow", obligations={},
                    created_by="traffic-admin", created_at=1,
                )
            )  # fmt: skip

            await seal(work, (Sealed.CAMERA, "bridge"), (Sealed.GRANT, "by-tag"))

        await city.services.store.run(describe)
    async with open_city(tmp_path, clock=clock, url=database_url) as city:
        decisions = _decisions(city)
        assert decisions["job", "bridge", Action.LIVE_VIEW] == "by-tag"
        assert decisions["job", "gate", Action.LIVE_VIEW] is None
        assert decisions["urban-operator", "bridge", Action.LIVE_VIEW] == "sharing:bridge"
        assert decisions["urban-operator", "gate", Action.LIVE_VIEW] is None


async def test_what_cannot_be_read_allows_nothing(tmp_path):
    """Text in a column of JSON, a time beyond the calendar: SQLite takes anything from who edits its file."""
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        broken = await city.grant()
        late = await city.grant("urban-admin")
        denial = await city.grant("traffic-operator", effect="deny")
        for camera in ("gate", "bridge"):
            await city.grant("traffic-operator", camera)

        async def spoil(work):
            for grant, column, value in (
                (broken, "actions", '["live:view"'),
                (late, "valid_to", 2**62),
                (denial, "purposes", "{"),
            ):
                spoilt = sa.text(f"UPDATE grants SET {column} = :value WHERE id = :grant")  # noqa: S608
                await work.conn.execute(spoilt, {"value": value, "grant": grant})
            await work.conn.execute(
                sa.text(
                    "UPDATE cameras SET sharing_mode = 'unconditional', sharing_departments = '{' "
                    "WHERE id = 'bridge'"
                )
            )
            await work.conn.execute(sa.text("UPDATE cameras SET sharing_purposes = '{' WHERE id = 'gate'"))

        await city.services.store.run(spoil)
    async with open_city(tmp_path, clock=clock) as city:
        decisions = _decisions(city)
        for user in ("urban-operator", "urban-admin", "traffic-operator"):
            assert decisions[user, "gate", Action.LIVE_VIEW] in (None, denial)
        assert decisions["urban-operator", "bridge", Action.LIVE_VIEW] is None


def _request(user, **more):
    return AccessRequest(
        user_id=user, action=Action.LIVE_VIEW, object=GATE, at=Clock().now, purpose="patrol", **more
    )


class _Held(PolicyFeed):
    """Stops where the cameras are to be read, until told to go on."""

    def __init__(self, engine):
        super().__init__(engine)
        self.stopped, self.may_go_on = asyncio.Event(), asyncio.Event()

    async def _load_cameras(self, cameras, found):
        self.stopped.set()
        await self.may_go_on.wait()
        await super()._load_cameras(cameras, found)


async def test_what_is_revoked_while_the_facts_are_read_stays_revoked(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        early, late, kept = [
            await city.grant(user) for user in ("urban-operator", "urban-admin", "traffic-operator")
        ]
    engine = PolicyEngine(parse_roles((ROOT / "config" / "policies.yaml").read_text()))
    feed = _Held(engine)
    told = []
    feed.listeners.append(lambda: told.append(engine.revision))

    async def revoke(grant):
        async def unit(work):
            await work.conn.execute(sa.update(grants).where(grants.c.id == grant).values(revoked_at=1))
            await feed.write(work, lambda facts: facts.remove_grant(grant))

        await store.run(unit)

    async with Store.open(StoreSettings(tmp_path / "data", url=database_url)) as store:
        await revoke(early)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed.load(store, CamerasHere(store)))
            await feed.stopped.wait()
            await revoke(late)
            stale = engine.decide(_request("traffic-operator", min_revision=1))
            assert stale.reason is Reason.STALE_REVISION
            feed.may_go_on.set()
    assert told == [engine.revision]
    answers = [
        engine.decide(_request(user)).rule for user in ("urban-operator", "urban-admin", "traffic-operator")
    ]
    assert answers == [None, None, kept]


async def test_what_an_import_adds_waits_but_not_for_the_next_write(tmp_path, monkeypatch):
    monkeypatch.setattr(policy_feed, "ADDED_AT_ONCE", 1)
    engine = PolicyEngine(parse_roles((ROOT / "config" / "policies.yaml").read_text()))
    feed = PolicyFeed(engine)
    told = []
    feed.listeners.append(lambda: told.append(engine.revision))

    def additions(*names):
        return [lambda facts, name=name: facts.set_camera(name, "traffic") for name in names]

    def known():
        return {name for name in "abcd" if engine.ordinal(name) is not None}

    async with Store.open(StoreSettings(tmp_path)) as store:
        await feed.load(store, CamerasHere(store))
        begun = engine.revision
        await store.run(lambda work: feed.write(work, additions=additions("a", "b")))
        assert (known(), engine.revision, told) == (set(), begun, [])
        await store.run(lambda work: feed.write(work, lambda facts: facts.set_department("traffic", None)))
        assert (known(), engine.revision, told) == ({"a", "b"}, begun + 2, [begun + 1, begun + 2])
        await store.run(lambda work: feed.write(work, additions=additions("c", "d")))
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed.catch_up())
            await asyncio.sleep(0)
            assert (known(), engine.revision) == ({"a", "b", "c"}, begun + 2)
        assert (known(), engine.revision) == (set("abcd"), begun + 3)
