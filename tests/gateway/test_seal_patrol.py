"""What somebody writes past a running gateway is found by its patrol; what the gateway writes never is."""

import asyncio
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
import structlog
from support.controls import Clock, open_city

from gateway import seal_patrol
from gateway.seal_patrol import ROUND_SECONDS, SLICE_ROWS, SealPatrol
from gateway.settings import LedgerSettings
from gateway.store.schema import cameras, departments, grants, groups, policy_sums, user_roles, users
from policies.access import Action, Object, ObjectKind, Reason


def _decision(city, user="urban-operator", camera="gate", action=Action.LIVE_VIEW):
    return city.services.enforcement.decide(user, action, Object(ObjectKind.CAMERA, camera), "patrol")


async def _write(city, *statements):
    async def unit(work):
        for statement in statements:
            await work.conn.execute(statement)

    await city.services.store.run(unit)


async def _read(city, query):
    async with city.services.store.read() as conn:
        return (await conn.execute(query)).one()


async def _alarms(city):
    return await city.records(kind="policy_alarm")


async def _frozen(city):
    return [event.detail["reasons"] for event in await city.records(kind="policy_frozen")]


@pytest.fixture
def reopen(tmp_path):
    """A city whose patrol does not rest: it walks when the test says so."""
    clock = Clock()

    @asynccontextmanager
    async def opened(**more):
        ledger = LedgerSettings(patrol_rows_per_second=1e9)
        async with open_city(tmp_path, clock=clock, ledger=ledger, **more) as city:
            city.patrol = city.services.patrol
            yield city

    return opened


async def test_a_round_over_what_the_gateway_wrote_finds_nothing(reopen, monkeypatch):
    monkeypatch.setattr(seal_patrol, "SLICE_ROWS", 3)
    monkeypatch.setattr(seal_patrol, "SUMMED_ROWS", 2)
    async with reopen() as city:
        await city.grant()
        gone = await city.grant("traffic-operator")
        await city.grant("urban-admin", effect="deny")
        await city.call("traffic-admin", "DELETE", f"/grants/{gone}")
        await city.call("root", "POST", "/roles", {"name": "clerk", "department": ["camera:read"]})
        await city.call("traffic-admin", "PATCH", "/cameras/bridge", {"tags": ["桥"]})
        await city.call("traffic-admin", "DELETE", "/cameras/gate")
        await city.call("root", "PATCH", "/users/auditor", {"enabled": False})
        revision = city.services.enforcement.revision
        for _ in range(2):
            await city.patrol.round()
        assert await _alarms(city) == await _frozen(city) == []
        assert city.services.enforcement.revision == revision
        assert (await city.call("root", "GET", "/policy"))["void"] == {}


async def test_what_the_gateway_writes_during_a_round_raises_no_alarm(reopen, monkeypatch):
    """Between any two reads, so also between a kind's slices and inside its sums."""
    monkeypatch.setattr(seal_patrol, "SLICE_ROWS", 4)
    monkeypatch.setattr(seal_patrol, "SUMMED_ROWS", 3)
    async with reopen() as city:
        kept = []

        async def busy(_seconds):
            kept.append(await city.grant(camera="bridge"))
            if len(kept) > 2:
                await city.call("traffic-admin", "DELETE", f"/grants/{kept.pop(0)}")
            await city.call("traffic-admin", "PATCH", "/cameras/bridge", {"tags": [f"t{len(kept)}"]})

        services = city.services
        patrol = SealPatrol(services.store, services.freeze._feed, services.roles, services.freeze, 1e9, busy)
        await patrol.round()
        assert len(kept) == 2
        assert await _alarms(city) == await _frozen(city) == []


async def test_a_grant_that_sql_widened_ends_what_rests_on_it(reopen):
    async with reopen() as city:
        grant = await city.grant(purposes=["patrol"])
        other = await city.grant("traffic-operator")
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        await _write(city, sa.update(grants).where(grants.c.id == grant).values(purposes=None))
        assert _decision(city).allowed
        await city.patrol.round()
        assert _decision(city).reason is Reason.NOT_IN_LEDGER
        await worker.ended(opened["id"])
        assert _decision(city, "traffic-operator").rule == other
        await city.patrol.round()
        [alarm] = await _alarms(city)
        assert (alarm.reason, alarm.detail) == ("not_in_ledger", {"grant_count": 1, "grant_first": [grant]})
        assert (await city.call("root", "GET", "/policy"))["void"] == {"grant": 1}
        assert await _frozen(city) == []
    async with reopen() as city:
        assert len(await _alarms(city)) == 2
        await city.patrol.round()
        assert len(await _alarms(city)) == 2


async def test_each_kind_of_row_stops_to_count(reopen, database_url):
    async with reopen(url=database_url) as city:
        await city.grant()
        await city.grant("urban-admin", camera="bridge")
        await city.call("root", "POST", "/roles", {"name": "clerk", "department": ["camera:read"]})
        await city.call("root", "PATCH", "/users/traffic-operator", {"roles": ["clerk"]})
        await city.call(
            "traffic-admin", "POST", "/groups", {"id": "g", "name": "g", "department_id": "traffic"}
        )
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"groups": ["g"]})
        assert _decision(city, "traffic-operator", action=Action.CAMERA_READ).allowed
        forged = {"user_id": "urban-operator", "role": "system-administrator", "department_id": "urban"}
        await _write(
            city,
            sa.insert(user_roles).values(**forged),
            sa.update(cameras).where(cameras.c.id == "bridge").values(department_id="urban"),
            sa.text("UPDATE roles SET installation = '[\"camera:share\"]'"),
            sa.update(groups).values(department_id="urban"),
        )
        await city.patrol.round()
        assert not _decision(city).allowed
        assert _decision(city, "urban-admin", "bridge").reason is Reason.UNKNOWN_RESOURCE
        assert not _decision(city, "traffic-operator", action=Action.CAMERA_READ).allowed
        assert "clerk" not in [role["name"] for role in (await city.call("root", "GET", "/roles"))["items"]]
        assert _decision(city, "traffic-admin", action=Action.CAMERA_READ).reason is Reason.UNKNOWN_RESOURCE
        status = await city.call("root", "GET", "/policy")
        assert status["void"] == {"user": 1, "group": 1, "camera": 1, "role": 1}
        assert len(await _alarms(city)) == 4
        assert await _frozen(city) == []


async def test_all_in_a_department_that_sql_moved_is_denied(reopen):
    async with reopen() as city:
        await city.grant()
        moved = sa.update(departments).where(departments.c.id == "traffic").values(parent_id="urban")
        await _write(city, moved)
        assert _decision(city, "traffic-admin", action=Action.CAMERA_READ).allowed
        await city.patrol.round()
        for user in ("traffic-admin", "urban-operator", "root"):
            assert not _decision(city, user, action=Action.CAMERA_READ).allowed
        assert not _decision(city).allowed
        assert (await _alarms(city))[0].detail["department_first"] == ["traffic"]
        assert await _frozen(city) == []


@pytest.mark.parametrize(
    "change", [sa.delete(grants), sa.update(grants).values(revoked_at=1)], ids=["deleted", "revoked"]
)
async def test_rows_that_are_gone_freeze_all_once_and_theirs_too(reopen, database_url, change):
    async with reopen(url=database_url) as city:
        gone = await city.grant()
        await city.grant("traffic-operator")
        await _write(city, change.where(grants.c.id == gone))
        await city.patrol.round()
        assert _decision(city, "traffic-operator").reason is Reason.FROZEN
        assert _decision(city).reason is Reason.FROZEN
        await city.call("traffic-admin", "POST", "/policy/confirm", {"department_id": "traffic"})
        assert _decision(city, "traffic-operator").allowed
        assert not _decision(city).allowed
        await city.patrol.round()
        assert await _frozen(city) == [["grant_sum"]]
    async with reopen(url=database_url) as city:
        assert await _frozen(city) == [["grant_sum"]]
        assert not _decision(city).allowed


@pytest.mark.parametrize("change", [{"effect": "allow"}, {"subject_id": "nobody"}], ids=str)
async def test_a_denial_that_is_lost_goes_on_to_deny_and_freezes_all_once(reopen, change):
    async with reopen() as city:
        await city.grant()
        await city.grant("traffic-operator")
        await city.grant(effect="deny")
        await _write(city, sa.update(grants).where(grants.c.effect == "deny").values(**change))
        for _ in range(2):
            await city.patrol.round()
            assert not _decision(city).allowed
            assert _decision(city, "traffic-operator").reason is Reason.FROZEN
            assert await _frozen(city) == [["denial_lost"]]
    async with reopen() as city:
        assert len(await _frozen(city)) == 1


async def test_an_older_row_with_its_seal_freezes_all(reopen):
    async with reopen() as city:
        await city.grant()
        before = await _read(city, sa.select(users).where(users.c.id == "traffic-operator"))
        await city.call("root", "PATCH", "/users/traffic-operator", {"enabled": False})
        older = sa.update(users).where(users.c.id == "traffic-operator").values(**before._asdict())
        await _write(city, older)
        await city.patrol.round()
        assert await _frozen(city) == [["user_sum"]]
        assert _decision(city).reason is Reason.FROZEN


async def test_who_breaks_the_sums_freezes_all(reopen):
    async with reopen() as city:
        await city.grant()
        await _write(city, sa.delete(policy_sums).where(policy_sums.c.kind == "camera"))
        for _ in range(2):
            await city.patrol.round()
            assert await _frozen(city) == [["camera_sum", "older_policy"]]
        assert _decision(city).reason is Reason.FROZEN


async def test_what_is_written_between_finding_and_freezing_is_in_the_sums(reopen, monkeypatch):
    async with reopen() as city:
        gone = await city.grant()
        await _write(city, sa.delete(grants).where(grants.c.id == gone))
        store, meanwhile = city.services.store, []
        run = store.run

        async def run_late(unit):
            monkeypatch.setattr(store, "run", run)
            meanwhile.append(await city.grant("traffic-operator"))
            return await run(unit)

        monkeypatch.setattr(store, "run", run_late)
        await city.patrol.round()
        assert len(meanwhile) == 1
        assert _decision(city, "traffic-operator").reason is Reason.FROZEN
        await city.patrol.round()
        assert await _frozen(city) == [["grant_sum"]]
    async with reopen() as city:
        assert await _frozen(city) == [["grant_sum"]]


async def test_a_row_that_fits_again_when_it_would_be_voided_is_left_alone(reopen, monkeypatch):
    async with reopen() as city:
        grant = await city.grant()
        row = sa.update(grants).where(grants.c.id == grant)
        await _write(city, row.values(subject_id="nobody"))
        store = city.services.store
        run = store.run

        async def run_late(unit):
            monkeypatch.setattr(store, "run", run)
            await _write(city, row.values(subject_id="urban-operator"))
            return await run(unit)

        monkeypatch.setattr(store, "run", run_late)
        await city.patrol.round()
        assert _decision(city).rule == grant
        assert await _alarms(city) == []
        assert (await city.call("root", "GET", "/policy"))["void"] == {}


async def _walk_twice(patrol, rests):
    async with asyncio.TaskGroup() as tasks:
        walking = tasks.create_task(patrol.run())
        for _ in range(2):
            await rests.get()
            rests.task_done()
        await rests.get()
        walking.cancel()


@pytest.mark.parametrize(
    ("identifier", "failures"),
    [("x'ff'", 0), ("CAST(x'ff' AS TEXT)", 4)],
    ids=["no text", "no character"],
)
async def test_a_row_that_cannot_be_read_hides_no_other(reopen, identifier, failures):
    """SQLite stores anything in any column."""
    async with reopen() as city:
        rests = asyncio.Queue()

        async def sleep(seconds):
            if seconds >= ROUND_SECONDS:
                rests.put_nowait(None)
                await rests.join()

        services = city.services
        patrol = SealPatrol(
            services.store, services.freeze._feed, services.roles, services.freeze, 1e9, sleep
        )
        await city.grant()
        columns = "created_by, created_at, subject_kind, subject_id, object_kind, object_id, actions, effect"
        columns += ", obligations, reason"
        values = "'x', 0, 'user', 'x', 'camera', 'x', '[]', 'allow', '{}', ''"
        await _write(
            city,
            sa.text(f"INSERT INTO grants (id, {columns}) VALUES ({identifier}, {values})"),  # noqa: S608
            sa.update(cameras).where(cameras.c.id == "gate").values(seal=None),
        )
        with structlog.testing.capture_logs() as logs:
            await _walk_twice(patrol, rests)
        assert sum(entry["event"] == "seal_patrol_failed" for entry in logs) == failures
        assert _decision(city).reason is Reason.UNKNOWN_RESOURCE
        assert [alarm.detail["camera_first"] for alarm in await _alarms(city)] == [["gate"]]


async def test_the_pace_is_so_many_rows_a_second(reopen, monkeypatch):
    async with reopen() as city:
        pauses = []

        async def sleep(seconds):
            pauses.append(seconds)

        services = city.services
        await SealPatrol(services.store, None, services.roles, services.freeze, 400, sleep).round()
        assert pauses == [SLICE_ROWS / 400] * 6
        monkeypatch.setattr(seal_patrol, "SLICE_ROWS", 1)
        pauses.clear()
        await SealPatrol(services.store, None, services.roles, services.freeze, 400, sleep).round()
        async with services.store.read() as conn:
            rows = [
                (await conn.execute(sa.select(sa.func.count()).select_from(table))).scalar_one()
                for table in (grants, users, departments, groups, cameras)
            ]
        # after each slice, and one that is empty ends a kind
        assert pauses == [1 / 400] * (sum(rows) + 6)
