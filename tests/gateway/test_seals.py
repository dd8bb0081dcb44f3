"""Whoever writes the database past the gateway gains nothing by it."""

import hashlib
import shutil

import pytest
import sqlalchemy as sa
from support.controls import ROOT, Clock, add_user, open_city
from support.seals import freeze_grants

from gateway.store.schema import cameras, departments, grants, policy_sums, user_roles, users
from gateway.store.sealed_rows import TABLES
from policies.access import Action, Object, ObjectKind, Reason


def _decision(city, user="urban-operator", camera="gate", action=Action.LIVE_VIEW):
    return city.services.enforcement.decide(user, action, Object(ObjectKind.CAMERA, camera), "patrol")


async def _write(city, *statements):
    """As somebody with the database's password would, behind the gateway's back."""

    async def unit(work):
        for statement in statements:
            await work.conn.execute(statement)

    await city.services.store.run(unit)


async def _alarms(city):
    return await city.records(kind="policy_alarm")


async def _void(city):
    """Why each grant counts for nothing, as its owner is told."""
    return {
        entry["id"]: entry["void"] for entry in (await city.call("traffic-admin", "GET", "/grants"))["items"]
    }


async def _frozen(city):
    return [event.detail["reasons"] for event in await city.records(kind="policy_frozen")]


@pytest.fixture
def reopen(tmp_path):
    clock = Clock()
    return lambda **more: open_city(tmp_path, clock=clock, **more)


async def test_an_untouched_city_starts_clean(reopen):
    async with reopen() as city:
        await city.grant()
        gone = await city.grant("traffic-operator")
        await city.grant("urban-admin", effect="deny")
        await city.call("traffic-admin", "DELETE", f"/grants/{gone}")
        await city.call("root", "POST", "/roles", {"name": "clerk", "department": ["camera:read"]})
        await city.call("root", "POST", "/roles", {"name": "passer", "department": ["camera:read"]})
        await city.call("root", "DELETE", "/roles/passer")
        group = {"id": "g", "name": "g", "department_id": "traffic"}
        await city.call("traffic-admin", "POST", "/groups", group)
        await city.call("traffic-admin", "PATCH", "/groups/g", {"name": "G"})
        change = {
            "groups": ["g"],
            "tags": ["桥"],
            "sharing": {"mode": "unconditional", "departments": ["urban"]},
        }
        await city.call("traffic-admin", "PATCH", "/cameras/bridge", change)
        await city.call("traffic-admin", "DELETE", "/cameras/gate")
        await city.call("root", "PATCH", "/users/auditor", {"enabled": False})
        await city.call("root", "PATCH", "/departments/urban", {"name": "Urban"})
        status = await city.call("root", "GET", "/policy")
    for _ in range(2):
        async with reopen() as city:
            assert await _alarms(city) == []
            assert await _frozen(city) == []
            assert await city.call("root", "GET", "/policy") == status
            assert status["void"] == {}
            assert (status["frozen_since"], status["unconfirmed"]) == (None, 0)
            assert status["file"]["is_accepted"]
            assert len(await city.records(kind="policy_file_accepted")) == 1
            await city.login("urban-operator")


async def test_a_grant_that_sql_inserted_gives_nothing(reopen):
    async with reopen() as city:
        real = await city.grant("traffic-operator")
        row = sa.select(grants).where(grants.c.id == real).subquery()
        columns = [column for column in grants.c if column.name not in {"id", "subject_id", "seal"}]
        copy = sa.select(
            sa.literal("forged"), sa.literal("urban-operator"), *(row.c[c.name] for c in columns)
        )
        await _write(
            city, sa.insert(grants).from_select(["id", "subject_id", *(c.name for c in columns)], copy)
        )
    async with reopen() as city:
        assert _decision(city).reason is Reason.NOT_IN_LEDGER
        assert _decision(city, "traffic-operator").allowed
        assert await _void(city) == {"forged": "not_in_ledger", real: None}
        [alarm] = await _alarms(city)
        assert (alarm.detail["grant_count"], alarm.detail["grant_first"]) == (1, ["forged"])
        assert (await city.call("root", "GET", "/policy"))["void"] == {"grant": 1}
        await city.watch("urban-operator", expect=403)


async def test_a_grant_that_sql_copied_with_its_seal_freezes_all(reopen):
    """The sum does not fit: nobody can say what else is not as it was."""
    async with reopen() as city:
        real = await city.grant("traffic-operator")
        row = sa.select(grants).where(grants.c.id == real).subquery()
        columns = [column for column in grants.c if column.name not in {"id", "subject_id"}]
        copy = sa.select(
            sa.literal("forged"), sa.literal("urban-operator"), *(row.c[c.name] for c in columns)
        )
        await _write(
            city, sa.insert(grants).from_select(["id", "subject_id", *(c.name for c in columns)], copy)
        )
    async with reopen() as city:
        assert not _decision(city).allowed
        assert _decision(city, "traffic-operator").reason is Reason.FROZEN
        assert await _frozen(city) == [["grant_sum"]]


async def test_a_grant_that_sql_widened_gives_nothing_any_more(reopen):
    async with reopen() as city:
        grant = await city.grant(purposes=["case"])
        await _write(city, sa.update(grants).where(grants.c.id == grant).values(purposes=None))
    async with reopen() as city:
        assert _decision(city).reason is Reason.NOT_IN_LEDGER
        assert await _frozen(city) == []


@pytest.mark.parametrize("with_seal", [False, True])
async def test_a_revocation_that_sql_undid_stays(reopen, with_seal):
    async with reopen() as city:
        grant = await city.grant()
        async with city.services.store.read() as conn:
            seal = (await conn.execute(sa.select(grants.c.seal).where(grants.c.id == grant))).scalar_one()
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        back = {"revoked_at": None, "seal": seal} if with_seal else {"revoked_at": None}
        await _write(city, sa.update(grants).where(grants.c.id == grant).values(**back))
    async with reopen() as city:
        reason = Reason.FROZEN if with_seal else Reason.NOT_IN_LEDGER
        assert _decision(city).reason is reason
        assert await _frozen(city) == ([["grant_sum"]] if with_seal else [])
        await city.watch("urban-operator", expect=403)


async def test_an_older_row_with_the_sums_of_its_time_freezes_all(reopen):
    """All fits, but for the ledger's newest record of a change."""
    async with reopen() as city:
        grant = await city.grant()
        async with city.services.store.read() as conn:
            row = (await conn.execute(sa.select(grants).where(grants.c.id == grant))).one()._asdict()
            sums = [row._asdict() for row in await conn.execute(sa.select(policy_sums))]
        await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
        back = [sa.update(grants).where(grants.c.id == grant).values(**row)]
        back += [sa.delete(policy_sums), sa.insert(policy_sums).values(sums)]
        await _write(city, *back)
    async with reopen() as city:
        assert _decision(city).reason is Reason.FROZEN
        assert await _frozen(city) == [["older_policy"]]


@pytest.mark.parametrize(
    "change",
    [
        sa.delete(grants).where(grants.c.effect == "deny"),
        sa.update(grants).where(grants.c.effect == "deny").values(revoked_at=1),
        sa.update(grants).where(grants.c.effect == "deny").values(effect="allow"),
        sa.update(grants).where(grants.c.effect == "deny").values(subject_id="nobody"),
    ],
    ids=["deleted", "revoked", "turned", "of another"],
)
async def test_a_denial_that_is_lost_freezes_all_once(reopen, change):
    async with reopen() as city:
        await city.grant()
        await city.grant(effect="deny")
        await _write(city, change)
    for _ in range(2):
        async with reopen() as city:
            assert not _decision(city).allowed
            assert len(await _frozen(city)) == 1


async def test_a_denial_that_sql_inserted_denies(reopen):
    async with reopen() as city:
        grant = await city.grant()
        await _write(city, sa.update(grants).where(grants.c.id == grant).values(effect="deny"))
        good = await city.grant(camera="bridge")
    async with reopen() as city:
        assert (_decision(city).reason, _decision(city).rule) == (Reason.DENIED_BY_RULE, grant)
        assert _decision(city, camera="bridge").rule == good


async def test_who_got_a_role_by_sql_holds_nothing(reopen):
    async with reopen() as city:
        values = {"user_id": "urban-operator", "role": "system-administrator", "department_id": "urban"}
        await _write(city, sa.insert(user_roles).values(**values))
    async with reopen() as city:
        decision = _decision(city, action=Action.CAMERA_READ)
        assert decision.reason is Reason.PRINCIPAL_DISABLED
        await city.login("urban-operator", expect=401)
        assert (await _alarms(city))[0].detail["user_first"] == ["urban-operator"]


async def test_a_password_that_sql_exchanged_opens_nothing(reopen):
    async with reopen() as city:
        query = sa.select(users.c.password_hash).where(users.c.id == "urban-admin").scalar_subquery()
        await add_user(city, "burglar", "urban", "operator", login=False)
        await _write(city, sa.update(users).where(users.c.id == "burglar").values(password_hash=query))
        for _ in range(2):
            await city.login("burglar", expect=401)
        [alarm] = await _alarms(city)
        assert (alarm.resource, alarm.reason) == ("user:burglar", "not_in_ledger")
        # nor does a change by somebody honest make it good
        told = await city.call("root", "PATCH", "/users/burglar", {"display_name": "B"}, expect=409)
        assert told["reason"] == "not_in_ledger"


async def test_a_camera_that_sql_moved_or_opened_is_unknown(reopen):
    async with reopen() as city:
        await city.grant()
        await _write(
            city,
            sa.update(cameras).where(cameras.c.id == "gate").values(department_id="urban"),
            sa.update(cameras)
            .where(cameras.c.id == "bridge")
            .values(sharing_mode="unconditional", sharing_departments=["urban"]),
        )
        changed = await city.call("traffic-admin", "PATCH", "/cameras/gate", {"name": "x"}, expect=409)
        assert changed["reason"] == "not_in_ledger"
    async with reopen() as city:
        for camera in ("gate", "bridge"):
            for user in ("urban-admin", "urban-operator", "traffic-admin"):
                assert _decision(city, user, camera, Action.CAMERA_READ).reason is Reason.UNKNOWN_RESOURCE
        assert sorted((await _alarms(city))[0].detail["camera_first"]) == ["bridge", "gate"]


async def test_all_in_a_department_that_sql_moved_is_denied(reopen):
    async with reopen() as city:
        await _write(
            city, sa.update(departments).where(departments.c.id == "traffic").values(parent_id="urban")
        )
    async with reopen() as city:
        for user in ("urban-admin", "traffic-admin", "root"):
            assert not _decision(city, user, action=Action.CAMERA_READ).allowed
        assert (await _alarms(city))[0].detail["department_first"] == ["traffic"]


async def test_a_role_that_sql_made_is_no_role(reopen):
    async with reopen() as city:
        await city.call("root", "POST", "/roles", {"name": "clerk", "department": ["camera:read"]})
        await city.call("root", "PATCH", "/users/urban-operator", {"roles": ["clerk"]})
        await _write(city, sa.text("UPDATE roles SET installation = '[\"camera:share\"]', department = '[]'"))
    async with reopen() as city:
        assert "clerk" not in [role["name"] for role in (await city.call("root", "GET", "/roles"))["items"]]
        assert not _decision(city, action=Action.CAMERA_SHARE).allowed
        assert (await _alarms(city))[0].detail["role_first"] == ["clerk"]


async def test_a_backup_freezes_all_until_owners_confirm(tmp_path):
    clock = Clock()
    async with open_city(tmp_path, clock=clock) as city:
        revoked = await city.grant()
        await city.grant("traffic-operator")
    shutil.copy(tmp_path / "data" / "custos.db", tmp_path / "backup.db")
    async with open_city(tmp_path, clock=clock) as city:
        await city.call("traffic-admin", "DELETE", f"/grants/{revoked}")
    for name in ("custos.db-wal", "custos.db-shm"):
        (tmp_path / "data" / name).unlink(missing_ok=True)
    shutil.copy(tmp_path / "backup.db", tmp_path / "data" / "custos.db")
    async with open_city(tmp_path, clock=clock) as city:
        assert _decision(city).reason is Reason.FROZEN
        assert await _frozen(city) == [["ledger_went_back"]]
        status = await city.call("traffic-admin", "GET", "/policy")
        assert status["frozen_since"] is not None
        assert status["unconfirmed"] == 2
        await city.call("traffic-admin", "DELETE", f"/grants/{revoked}")
        await city.call("urban-admin", "POST", "/policy/confirm", {"department_id": "traffic"}, expect=403)
        confirmed = await city.call("traffic-admin", "POST", "/policy/confirm", {"department_id": "traffic"})
        assert confirmed == {"confirmed": 1}
        assert _decision(city, "traffic-operator").allowed
        assert not _decision(city).allowed
        [record] = await city.records(kind="policy_confirmed")
        assert (record.actor_id, record.detail["grants"]) == ("traffic-admin", 1)
    async with open_city(tmp_path, clock=clock) as city:
        assert len(await _frozen(city)) == 1
        assert _decision(city, "traffic-operator").allowed
        status = await city.call("traffic-admin", "GET", "/policy")
        assert (status["frozen_since"], status["unconfirmed"]) == (None, 0)


async def test_what_is_given_after_a_freeze_needs_no_confirmation(reopen):
    async with reopen() as city:
        old = await city.grant("traffic-operator")
        await freeze_grants(city)
        assert _decision(city, "traffic-operator").reason is Reason.FROZEN
        new = await city.grant()
        assert _decision(city).rule == new
        assert await _void(city) == {old: "frozen", new: None}
    async with reopen() as city:
        assert _decision(city).rule == new
        assert _decision(city, "traffic-operator").reason is Reason.FROZEN
        assert await _frozen(city) == [["grant_sum", "older_policy"]]
        await city.call("traffic-admin", "POST", "/policy/confirm", {"department_id": "traffic"})
        assert _decision(city, "traffic-operator").rule == old


async def test_who_breaks_the_policys_state_makes_nothing_count(reopen):
    async with reopen() as city:
        await city.grant()
        await _write(city, sa.text("DELETE FROM installation WHERE key = 'policy_state'"))
    async with reopen() as city:
        assert _decision(city).reason is Reason.FROZEN
        assert not _decision(city, "traffic-admin", action=Action.CAMERA_READ).allowed
        assert "state_unknown" in (await _frozen(city))[0]


async def test_the_lost_key_of_the_seals_freezes_all(reopen, tmp_path):
    async with reopen() as city:
        await city.grant()
    (tmp_path / "data" / "keys" / "seal.key").unlink()
    async with reopen() as city:
        assert _decision(city).reason is Reason.FROZEN
        assert _decision(city, "traffic-admin", action=Action.CAMERA_READ).allowed
        assert [event.reason for event in await city.records(kind="policy_frozen")] == ["seal_key_lost"]
        await city.call("traffic-admin", "POST", "/policy/confirm", {"department_id": "traffic"})
    async with reopen() as city:
        assert _decision(city).allowed
        assert await _alarms(city) == []


async def test_on_either_database_only_what_is_sealed_counts(reopen, database_url):
    async with reopen(url=database_url) as city:
        forged = await city.grant(purposes=["case"])
        good = await city.grant("traffic-operator")
        undone = await city.grant("urban-admin")
        await city.call("traffic-admin", "DELETE", f"/grants/{undone}")
    async with reopen(url=database_url) as city:
        assert _decision(city, "traffic-operator").rule == good
        assert await _alarms(city) == await _frozen(city) == []
        roles = {"user_id": "urban-operator", "role": "system-administrator", "department_id": "urban"}
        await _write(
            city,
            sa.update(grants).where(grants.c.id == forged).values(purposes=None),
            sa.update(grants).where(grants.c.id == undone).values(revoked_at=None),
            sa.insert(user_roles).values(**roles),
            sa.update(cameras).where(cameras.c.id == "bridge").values(department_id="urban"),
        )
    async with reopen(url=database_url) as city:
        status = await city.call("root", "GET", "/policy")
        assert status["void"] == {"grant": 2, "user": 1, "camera": 1}
        assert _decision(city, "traffic-operator").rule == good
        assert not _decision(city).allowed
        assert _decision(city, "urban-admin").reason is Reason.NOT_IN_LEDGER
        assert not _decision(city, "urban-admin", "bridge", Action.CAMERA_READ).allowed
        await _write(city, sa.delete(grants).where(grants.c.id == good))
    async with reopen(url=database_url) as city:
        assert await _frozen(city) == [["grant_sum"]]
        assert not _decision(city, "traffic-operator").allowed


async def test_what_a_city_has_before_it_has_seals_is_taken_over_once(reopen, tmp_path):
    async with reopen() as city:
        grant = await city.grant()
        await _write(
            city,
            *(sa.update(table).values(seal=None) for table in TABLES.values()),
            sa.delete(policy_sums),
            sa.text("DELETE FROM installation WHERE key = 'policy_state'"),
        )
    (tmp_path / "data" / "keys" / "seal.key").unlink()
    for _ in range(2):
        async with reopen() as city:
            assert _decision(city).rule == grant
            assert await _alarms(city) == await _frozen(city) == []
            taken = [e for e in await city.records(kind="installation") if "taken over" in e.content]
            assert len(taken) == 4
    # from then on there is nothing to take over
    async with reopen() as city:
        await _write(city, sa.update(grants).values(seal=None))
    async with reopen() as city:
        assert not _decision(city).allowed


@pytest.fixture
def edited(tmp_path):
    """The shipped policies file with more for an operator."""
    text = (ROOT / "config" / "policies.yaml").read_text()
    text = text.replace("operator: {} ", "operator: {installation: [camera:read, camera:share]} ", 1)
    path = tmp_path / "edited.yaml"
    path.write_text(text)
    return path


async def test_an_edited_policies_file_gives_nothing_until_it_is_accepted(reopen, edited):
    async with reopen():
        pass
    async with reopen(policies=str(edited)) as city:
        assert not _decision(city, action=Action.CAMERA_SHARE).allowed
        assert _decision(city, "traffic-admin", action=Action.CAMERA_SHARE).allowed
        [alarm] = await _alarms(city)
        assert (alarm.reason, alarm.detail["changed_roles"]) == ("policy_file_changed", ["operator"])
        status = (await city.call("security", "GET", "/policy"))["file"]
        sha256 = hashlib.sha256(edited.read_bytes()).hexdigest()
        assert status == {"sha256": sha256, "is_accepted": False, "changed_roles": ["operator"]}
        accept = ("POST", "/policy/file/accept", {"sha256": sha256})
        await city.call("root", *accept, expect=403)
        await city.call("security", *accept[:2], {"sha256": "0" * 64}, expect=409)
        await city.call("security", *accept[:2], {"sha256": sha256[1:]}, expect=422)
        assert (await city.call("security", *accept))["is_accepted"]
        assert _decision(city, action=Action.CAMERA_SHARE).allowed
        assert (await city.records(kind="policy_file_accepted"))[-1].actor_id == "security"
    async with reopen(policies=str(edited)) as city:
        assert _decision(city, action=Action.CAMERA_SHARE).allowed
        assert len(await _alarms(city)) == 1
    # back to what was accepted before: that was long ago
    async with reopen() as city:
        assert (await city.call("root", "GET", "/policy"))["file"]["changed_roles"] == ["operator"]
