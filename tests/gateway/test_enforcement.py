"""A Grant comes from one place only; a refusal leaves its decision and nothing else."""

import pytest
import sqlalchemy as sa
from support.controls import open_city

from gateway.enforcement import Circumstances, Grant, Refused
from gateway.problems import Problem
from gateway.store.schema import cameras
from policies.access import Action, Decision, Effect, Object, ObjectKind, Reason

GATE = Object(ObjectKind.CAMERA, "gate")


async def _principal(city, username):
    return await city.services.authentication.principal(city.tokens[username])


def test_a_grant_cannot_be_made_by_hand():
    decision = Decision(effect=Effect.ALLOW, reason=Reason.GRANTED, rule="r", revision=1)
    fields = {
        "principal": None, "action": Action.LIVE_VIEW, "target": GATE, "decision": decision,
        "circumstances": None, "at": None,
    }  # fmt: skip
    for mint in (None, object(), "mint"):
        with pytest.raises(TypeError):
            Grant(mint, **fields)


async def test_what_an_act_raises_undoes_all_and_what_it_returns_refuses(tmp_path):
    async with open_city(tmp_path) as city:
        principal = await _principal(city, "traffic-admin")
        circumstances = Circumstances(remote="r", request_id="i")

        async def perform(act):
            return await city.services.enforcement.perform(
                principal, Action.CAMERA_MANAGE, GATE, circumstances, "try", act
            )

        async def write(work, _):
            await work.conn.execute(sa.update(cameras).where(cameras.c.id == "gate").values(name="changed"))
            return 7

        async def fail(work, grant):
            await write(work, grant)
            raise RuntimeError("a bug")

        async def refuse(_work, _grant):
            return Refused(Problem("conflict", "no"))

        before = len(await city.records())
        with pytest.raises(RuntimeError):
            await perform(fail)
        assert len(await city.records()) == before
        with pytest.raises(Problem, match="conflict"):
            await perform(refuse)
        assert [record.outcome for record in (await city.records())[before:]] == ["allow"]
        assert (await city.call("root", "GET", "/cameras/gate"))["camera"]["name"] == "gate 摄像机"
        assert await perform(write) == 7
        assert (await city.call("root", "GET", "/cameras/gate"))["camera"]["name"] == "changed"


async def test_a_denial_never_acts(tmp_path):
    async with open_city(tmp_path) as city:
        acted = []

        async def act(work, grant):
            acted.append(grant)

        with pytest.raises(Problem) as caught:
            await city.services.enforcement.perform(
                await _principal(city, "urban-admin"),
                Action.CAMERA_MANAGE,
                GATE,
                Circumstances(remote="r", request_id="i"),
                "try",
                act,
            )
        assert (caught.value.code, caught.value.reason, acted) == ("access_denied", "no_matching_grant", [])
