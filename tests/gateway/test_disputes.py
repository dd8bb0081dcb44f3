"""Disputes: a doubted grant allows nothing, at once; two people decide, not one."""

import pytest
from support.controls import add_user, open_city


async def _city(city):
    """Running: `urban-operator` watches the gate by a grant of `traffic-admin`'s. `second`: another owner."""
    await add_user(city, "second", "traffic", "department-administrator")
    await add_user(city, "traffic-auditor", "traffic", "auditor")
    await add_user(city, "urban-auditor", "urban", "auditor")
    grant = await city.grant()
    worker = await city.worker()
    opened = await city.watch("urban-operator")
    await worker.redeem(opened["id"], opened["media"]["ticket"])
    return grant, worker, opened["id"]


async def _dispute(city, grant, by="traffic-auditor", expect=None, reason="目的与授权不符"):
    return await city.call(by, "POST", "/disputes", {"grant": grant, "reason": reason}, expect)


async def _close(city, dispute, outcome, by, expect=None):
    body = {"outcome": outcome, "reason": "核实完毕"}
    return await city.call(by, "POST", f"/disputes/{dispute}/close", body, expect)


async def _void(city, user):
    """Why the grants that somebody sees count for nothing."""
    return {entry["void"] for entry in (await city.call(user, "GET", "/grants"))["items"]}


@pytest.mark.parametrize("by", ["traffic-auditor", "auditor", "second", "traffic-admin"])
async def test_a_dispute_suspends_at_once_and_the_viewer_is_told(tmp_path, by):
    async with open_city(tmp_path) as city:
        grant, worker, session = await _city(city)
        dispute = await _dispute(city, grant, by)
        told = await worker.ended(session)
        unit = "City 市" if by == "auditor" else "traffic"
        assert (told.reason, told.detail, told.by) == ("disputed", "disputed", unit)
        assert (await city.watch("urban-operator", expect=403))["reason"] == "disputed"
        (end,) = await city.recorded(kind="session_end", session_id=session)
        assert (end.reason, end.detail["ended_by_unit"]) == ("disputed", unit)
        (opened,) = await city.records(kind="dispute_opened")
        assert (opened.actor_id, opened.detail["grant"], opened.detail["dispute"]) == (
            by,
            grant,
            dispute["id"],
        )
        assert "目的与授权不符" in opened.content
        assert dispute["outcome"] is None


async def test_dismissed_it_counts_again(tmp_path):
    async with open_city(tmp_path) as city:
        grant, _, _ = await _city(city)
        dispute = await _dispute(city, grant)
        assert (await _dispute(city, grant, "second", 409))["code"] == "conflict"
        closed = await _close(city, dispute["id"], "dismissed", "second")
        assert (closed["outcome"], closed["closed_by"]["id"]) == ("dismissed", "second")
        await city.watch("urban-operator")
        assert (await _close(city, dispute["id"], "upheld", "second", 409))["code"] == "conflict"
        (record,) = await city.records(kind="dispute_closed")
        assert record.actor_id == "second"
        await _dispute(city, grant)  # a new doubt is a new dispute


async def test_upheld_it_is_revoked_with_what_was_given_by_right_of_it(tmp_path):
    async with open_city(tmp_path) as city:
        grant, _, _ = await _city(city)
        shared = await city.grant("urban-admin", actions=["live:view", "camera:share"])
        below = await city.grant("urban-operator", by="urban-admin")
        dispute = await _dispute(city, shared)
        await _close(city, dispute["id"], "upheld", "traffic-admin")
        revoked = await city.records(kind="revoke")
        assert {record.resource for record in revoked} == {f"grant:{shared}", f"grant:{below}"}
        listed = (await city.call("traffic-admin", "GET", "/grants"))["items"]
        assert [item["id"] for item in listed] == [grant]


@pytest.mark.parametrize("by", ["traffic-admin", "second"])
async def test_a_grant_that_is_revoked_is_no_longer_disputed(tmp_path, database_url, by):
    async with open_city(tmp_path, url=database_url) as city:
        grant, _, _ = await _city(city)
        shared = await city.grant("urban-admin", actions=["live:view", "camera:share"])
        below = await city.grant("urban-operator", by="urban-admin")
        other = await city.grant("urban-admin")
        about = {(await _dispute(city, one, "second"))["id"]: one for one in (grant, shared, below, other)}
        await city.call(by, "DELETE", f"/grants/{shared}?reason=不再需要")
        await city.call(by, "DELETE", f"/grants/{grant}")
        (left,) = (await city.call("auditor", "GET", "/disputes?open=1"))["items"]
        assert left["grant"] == other
        listed = {one["grant"]: one for one in (await city.call("auditor", "GET", "/disputes"))["items"]}
        told = "the grant was revoked"
        for one, why in ((shared, f"{told}; 不再需要"), (below, f"{told}; 不再需要"), (grant, told)):
            entry = listed[one]
            assert (entry["outcome"], entry["closed_by"]["id"]) == ("revoked", by)
            assert entry["closing_reason"] == why
        records = await city.records(kind="dispute_closed")
        assert {r.detail["dispute"]: r.detail["grant"] for r in records} == {
            dispute: one for dispute, one in about.items() if one != other
        }
        assert {(r.actor_id, r.outcome) for r in records} == {(by, "ok")}
        dispute = listed[grant]["id"]
        assert (await _close(city, dispute, "dismissed", "second", 409))["code"] == "conflict"
        await _close(city, left["id"], "revoked", "traffic-admin", 422)


async def test_what_hangs_on_a_disputed_grant_is_suspended_too(tmp_path):
    async with open_city(tmp_path) as city:
        await add_user(city, "second", "traffic", "department-administrator")
        shared = await city.grant("urban-admin", actions=["live:view", "camera:share"])
        await city.grant("urban-operator", by="urban-admin")
        await city.watch("urban-operator")
        dispute = await _dispute(city, shared, "auditor")
        await city.watch("urban-operator", expect=403)
        assert await _void(city, "urban-admin") == {"disputed"}
        await _close(city, dispute["id"], "dismissed", "second")
        assert await _void(city, "urban-admin") == {None}


async def test_nobody_decides_his_own_case(tmp_path):
    async with open_city(tmp_path) as city:
        grant, _, _ = await _city(city)
        dispute = (await _dispute(city, grant, "second"))["id"]
        for by, outcome, reason in (
            ("second", "upheld", "own_dispute"),
            ("traffic-admin", "dismissed", "own_grant"),
        ):
            refused = await _close(city, dispute, outcome, by, 422)
            assert (refused["code"], refused["reason"]) == ("dispute_refused", reason)
        for by in ("traffic-auditor", "auditor", "urban-admin", "urban-operator", "root", "security"):
            assert (await _close(city, dispute, "upheld", by, 403))["code"] == "access_denied"
        await city.watch("urban-operator", expect=403)
        await _close(city, dispute, "dismissed", "second")  # who raised it takes it back
        await city.watch("urban-operator")
        dispute = (await _dispute(city, grant))["id"]
        await _close(city, dispute, "upheld", "traffic-auditor", 403)
        await _close(city, dispute, "dismissed", "traffic-auditor")
        await city.watch("urban-operator")


async def test_who_may_raise_one(tmp_path):
    async with open_city(tmp_path) as city:
        grant, _, session = await _city(city)
        for by in ("urban-admin", "urban-auditor", "urban-operator", "root", "security", "traffic-operator"):
            assert (await _dispute(city, grant, by, 403))["code"] == "access_denied"
        await city.grant("urban-admin", actions=["camera:share"])  # by a grant, not by office
        refused = await _dispute(city, grant, "urban-admin", 422)
        assert (refused["code"], refused["reason"]) == ("dispute_refused", "beyond_office")
        assert (await _dispute(city, "no-such-grant", expect=404))["code"] == "not_found"
        await _dispute(city, grant, expect=422, reason=" ")
        await _dispute(city, grant, expect=422, reason="x" * 2001)
        assert city.services.live.get(session).ending is None
        assert (await city.call("auditor", "GET", "/disputes"))["items"] == []


async def test_a_denial_is_not_lifted_by_a_doubt(tmp_path):
    async with open_city(tmp_path) as city:
        denial = await city.grant("urban-operator", effect="deny")
        refused = await _dispute(city, denial, "auditor", 422)
        assert (refused["code"], refused["reason"]) == ("dispute_refused", "denial")


async def test_who_sees_disputes(tmp_path):
    async with open_city(tmp_path) as city:
        grant, _, _ = await _city(city)
        dispute = (await _dispute(city, grant, reason="x" * 2000))["id"]
        for by, count in (
            ("traffic-admin", 1),
            ("second", 1),
            ("auditor", 1),
            ("traffic-auditor", 1),
            ("urban-auditor", 0),
            ("urban-admin", 0),
            ("urban-operator", 0),
            ("root", 0),
        ):
            assert len((await city.call(by, "GET", "/disputes"))["items"]) == count, by
        (entry,) = (await city.call("second", "GET", "/disputes?open=1"))["items"]
        assert (entry["id"], entry["subject"], entry["object"]) == (
            dispute,
            "user:urban-operator",
            "camera:gate",
        )
        await _close(city, dispute, "dismissed", "second")
        assert (await city.call("second", "GET", "/disputes?open=1"))["items"] == []
        again = (await _dispute(city, grant))["id"]
        pages, token = [], ""
        while token is not None:
            page = await city.call("second", "GET", f"/disputes?page_size=1&page_token={token}")
            pages += [item["id"] for item in page["items"]]
            token = page["next_page_token"]
        assert pages == sorted([dispute, again])


async def test_a_restart_forgets_no_dispute(tmp_path, database_url):
    async with open_city(tmp_path, url=database_url) as city:
        grant, _, _ = await _city(city)
        dispute = (await _dispute(city, grant))["id"]
        tokens = dict(city.tokens)
    async with open_city(tmp_path, url=database_url) as city:
        city.tokens.update(tokens)
        assert (await city.watch("urban-operator", expect=403))["reason"] == "disputed"
        await _close(city, dispute, "dismissed", "second")
        await city.watch("urban-operator")
    async with open_city(tmp_path, url=database_url) as city:
        await city.watch("urban-operator")


async def test_groups_and_tags_are_their_cameras(tmp_path):
    async with open_city(tmp_path) as city:
        await city.call(
            "traffic-admin", "POST", "/groups", {"id": "g", "name": "g", "department_id": "traffic"}
        )
        await city.call("traffic-admin", "PATCH", "/cameras/gate", {"groups": ["g"], "tags": ["t"]})
        await add_user(city, "urban-auditor", "urban", "auditor")
        for kind, name in (("group", "g"), ("tag", "t")):
            body = {
                "subject": {"kind": "user", "id": "urban-operator"},
                "object": {"kind": kind, "id": name},
                "actions": ["live:view"],
            }
            grant = (await city.call("traffic-admin", "POST", "/grants", body))["id"]
            await city.watch("urban-operator")
            await _dispute(city, grant, "urban-auditor", 403)
            await _dispute(city, grant, "auditor")
            await city.watch("urban-operator", expect=403)
            await city.call("traffic-admin", "DELETE", f"/grants/{grant}")
