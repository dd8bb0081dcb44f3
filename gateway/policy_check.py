"""Expectations of a written policy held against its decisions, and two such policies against each other."""

from collections.abc import Iterator, Mapping
from datetime import datetime

import msgspec

from gateway.policy_file import Policy, moment_of
from policies.access import GRANTABLE_ACTIONS, AccessRequest, Action, Object, ObjectKind
from policies.roles import Role


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """An expectation, by the line of the file where it stands, and what was decided."""

    line: int
    user: str
    camera: str
    action: Action
    purpose: str | None
    at: datetime
    expected: str
    decided: str
    rule: str | None
    passed: bool


class AccessChange(msgspec.Struct, frozen=True, kw_only=True):
    """`change`: gains or loses, for some purpose that the user might declare."""

    change: str
    user: str
    camera: str
    action: Action


class RoleChange(msgspec.Struct, frozen=True, kw_only=True):
    change: str
    role: str
    scope: str
    action: Action


def hold(policy: Policy) -> list[Outcome]:
    """Decide each expectation, in the order of the file."""
    outcomes = []
    for line, expected in zip(policy.lines, policy.description.expect, strict=True):
        at = moment_of(expected, policy.description)
        decision = policy.engine.decide(
            AccessRequest(
                user_id=expected.user,
                action=expected.action,
                object=Object(ObjectKind.CAMERA, expected.camera),
                at=at,
                purpose=expected.purpose,
            )
        )
        reason = "" if expected.reason is None else f" {expected.reason}"
        outcomes.append(
            Outcome(
                line=line,
                user=expected.user,
                camera=expected.camera,
                action=expected.action,
                purpose=expected.purpose,
                at=at,
                expected=f"{expected.effect}{reason}",
                decided=f"{decision.effect} {decision.reason}",
                rule=decision.rule,
                passed=decision.effect == expected.effect and expected.reason in {None, decision.reason},
            )
        )
    return outcomes


def access_changes(old: Policy, new: Policy, at: datetime) -> Iterator[AccessChange]:
    """Who gains and who loses which cameras between two policies, in order of user, action and camera."""
    users = sorted({user.id for policy in (old, new) for user in policy.description.users})
    for user in users:
        for action in sorted(GRANTABLE_ACTIONS):
            before, after = (_cameras(policy, user, action, at) for policy in (old, new))
            for camera in sorted(before ^ after):
                change = "gains" if camera in after else "loses"
                yield AccessChange(change=change, user=user, camera=camera, action=action)


def role_changes(old: Mapping[str, Role], new: Mapping[str, Role]) -> Iterator[RoleChange]:
    """What roles carry more or less, in order of name; a role that is not there carries nothing."""
    for name in sorted(old.keys() | new.keys()):
        before, after = old.get(name, Role()), new.get(name, Role())
        for scope, had, has in (
            ("department", before.department, after.department),
            ("installation", before.installation, after.installation),
        ):
            for action in sorted(had ^ has):
                change = "gains" if action in has else "loses"
                yield RoleChange(change=change, role=name, scope=scope, action=action)


def _cameras(policy: Policy, user: str, action: Action, at: datetime) -> set[str]:
    return set(policy.engine.visible_cameras(user, at, (action,)))
