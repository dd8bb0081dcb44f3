"""One small city that policy tests start from, and short names for what they ask about it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

from policies.access import (
    AccessRequest,
    Action,
    GrantRule,
    Object,
    ObjectKind,
    RoleAssignment,
    Subject,
    SubjectKind,
)
from policies.engine import PolicyEngine
from policies.roles import parse_roles

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
ROLES_FILE = Path(__file__).parents[2] / "config" / "policies.yaml"
ROLES = parse_roles(ROLES_FILE.read_text(encoding="utf-8"))

GATE = Object(ObjectKind.CAMERA, "gate")
HARBOUR = Object(ObjectKind.CAMERA, "harbour")
SCHOOLS = Object(ObjectKind.GROUP, "schools")
POLICE = Object(ObjectKind.DEPARTMENT, "police")
TRAFFIC = Object(ObjectKind.DEPARTMENT, "traffic")
OLGA = Subject(SubjectKind.USER, "olga")


def city():
    """Police (with its precinct, which owns `gate`) and traffic (`harbour`); one person for each role."""
    engine = PolicyEngine(ROLES)
    engine.set_department("police", None)
    engine.set_department("precinct", "police")
    engine.set_department("traffic", None)
    engine.set_group("schools", None)
    engine.set_camera("gate", "precinct", ["schools"])
    engine.set_camera("harbour", "traffic")
    engine.set_user("olga", "traffic", [RoleAssignment("operator", "traffic")])
    engine.set_user("paul", "police", [RoleAssignment("department-administrator", "police")])
    engine.set_user("tara", "traffic", [RoleAssignment("department-administrator", "traffic")])
    engine.set_user("root", None, [RoleAssignment("system-administrator")])
    engine.set_user("anna", "police", [RoleAssignment("auditor", "police")])
    engine.set_user("job", "traffic", [RoleAssignment("job", "traffic")])
    engine.advance(7)
    return engine


def grant(grant_id="g1", subject=OLGA, resource=GATE, actions=(Action.LIVE_VIEW,), **fields):
    return GrantRule(id=grant_id, subject=subject, object=resource, actions=frozenset(actions), **fields)


def asks(user_id="olga", action=Action.LIVE_VIEW, resource=GATE, at=NOW, **fields):
    return AccessRequest(user_id=user_id, action=action, object=resource, at=at, **fields)
