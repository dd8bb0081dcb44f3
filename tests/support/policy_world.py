"""Generated policy worlds, and Casbin's stock enforcer over them as the oracle of what must be decided."""

import random
from datetime import UTC, datetime, timedelta

import casbin
from casbin.model import Model

from policies.access import (
    INSTALLATION,
    AccessRequest,
    Action,
    Effect,
    GrantRule,
    Object,
    ObjectKind,
    RoleAssignment,
    Subject,
    SubjectKind,
)
from policies.enforcer import MODEL
from policies.engine import PolicyEngine
from policies.roles import parse_roles

EPOCH = datetime(2026, 3, 1, tzinfo=UTC)
HOURS = 8  # coarse time: requests often fall exactly on the edge of a validity
PURPOSES = ("patrol", "theft", "traffic")
ACTIONS = (Action.LIVE_VIEW, Action.LIVE_SNAPSHOT, Action.CAMERA_READ)
ROLES = parse_roles(
    """
    roles:
      watcher: {}
      owner: {department: [camera:read, camera:share]}
      inspector: {installation: [audit:read], department: [session:read]}
    """
)


def at(hour):
    return EPOCH + timedelta(hours=hour)


class World:
    """The facts, as plain dictionaries, and an engine that is told of every change."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.engine = PolicyEngine(ROLES)
        self.departments, self.groups, self.cameras, self.users, self.grants = {}, {}, {}, {}, {}
        self.number = 0
        for name in ("d0", "d1", "d2", "d3"):
            self.set_department(name)
        for name in ("g0", "g1", "g2"):
            self.set_group(name)
        for number in range(6):
            self.set_camera(f"c{number}")
        for number in range(4):
            self.set_user(f"u{number}")
        for _ in range(7):
            self.add_grant()

    # Edits

    def set_department(self, name):
        parent = self.rng.choice([None, *(d for d in self.departments if d < name)])
        self.departments[name] = parent
        self.engine.set_department(name, parent)

    def set_group(self, name):
        parent = self.rng.choice([None, *(g for g in self.groups if g < name)])
        self.groups[name] = parent
        self.engine.set_group(name, parent)

    def set_camera(self, name):
        home = self.rng.choice(list(self.departments)), self.sample(self.groups, 2)
        self.cameras[name] = home
        self.engine.set_camera(name, *home)

    def set_user(self, name):
        roles = [
            RoleAssignment(self.rng.choice(list(ROLES)), self.rng.choice([None, *self.departments]))
            for _ in range(self.rng.randrange(3))
        ]
        home = self.rng.choice([None, *self.departments]), roles, self.rng.random() < 0.95
        self.users[name] = home
        self.engine.set_user(name, home[0], roles, enabled=home[2])

    def add_grant(self):
        rng = self.rng
        self.number += 1
        times = sorted(rng.sample(range(HOURS + 1), 2))
        grant = GrantRule(
            id=f"grant{self.number}",
            subject=rng.choice(
                [
                    Subject(SubjectKind.USER, rng.choice(list(self.users))),
                    Subject(SubjectKind.ROLE, rng.choice(list(ROLES))),
                    Subject(SubjectKind.DEPARTMENT, rng.choice(list(self.departments))),
                ]
            ),
            object=rng.choice(
                [
                    Object(ObjectKind.CAMERA, rng.choice(list(self.cameras))),
                    Object(ObjectKind.GROUP, rng.choice(list(self.groups))),
                    Object(ObjectKind.DEPARTMENT, rng.choice(list(self.departments))),
                ]
            ),
            actions=frozenset(self.sample(ACTIONS, 2)) or frozenset({Action.LIVE_VIEW}),
            effect=Effect.DENY if rng.random() < 0.2 else Effect.ALLOW,
            valid_from=at(times[0]) if rng.random() < 0.5 else None,
            valid_to=at(times[1]) if rng.random() < 0.5 else None,
            purposes=frozenset(self.sample(PURPOSES, 2)) if rng.random() < 0.4 else None,
            granted_by=rng.choice(list(self.users)) if rng.random() < 0.3 else None,
        )
        self.grants[grant.id] = grant
        self.engine.set_grant(grant)

    def remove_grant(self):
        if self.grants:
            self.engine.remove_grant(self.grants.pop(self.rng.choice(list(self.grants))).id)

    def edit(self):
        """One random change of the facts, told to the engine."""
        rng = self.rng
        kind = rng.randrange(6)
        if kind == 0:
            self.set_department(rng.choice(list(self.departments)))
        elif kind == 1:
            self.set_group(rng.choice(list(self.groups)))
        elif kind == 2:
            self.set_camera(rng.choice(list(self.cameras)))
        elif kind == 3:
            self.set_user(rng.choice(list(self.users)))
        elif kind == 4:
            self.remove_grant()
        self.add_grant()
        if len(self.grants) > 9:
            self.remove_grant()

    # Questions

    def request(self):
        """A request; in two of three cases one that some allowing grant was meant for."""
        rng = self.rng
        allows = [grant for grant in self.grants.values() if grant.effect is Effect.ALLOW]
        grant = rng.choice(allows) if allows and rng.random() < 0.8 else None
        users = [u for u in self.users if grant and self.counts_as(u, grant.subject)] or [
            *self.users,
            "nobody",
        ]
        cameras = [c for c in self.cameras if grant and self.lies_in(c, grant.object)] or [
            *self.cameras,
            "c?",
        ]
        resource = Object(ObjectKind.CAMERA, rng.choice(cameras))
        if rng.random() < 0.1:
            resource = rng.choice(
                [
                    INSTALLATION,
                    Object(ObjectKind.DEPARTMENT, rng.choice(list(self.departments))),
                    Object(ObjectKind.GROUP, rng.choice(list(self.groups))),
                ]
            )
        purposes = sorted(grant.purposes) if grant and grant.purposes else [*PURPOSES, None]
        actions = sorted(grant.actions) if grant else [*ACTIONS, Action.AUDIT_READ, Action.CAMERA_SHARE]
        return AccessRequest(
            user_id=rng.choice(users),
            action=rng.choice(actions),
            object=resource,
            at=at(rng.randrange(HOURS + 1)),
            purpose=rng.choice(purposes),
        )

    def counts_as(self, user, subject):
        department, roles, _ = self.users[user]
        match subject.kind:
            case SubjectKind.USER:
                return user == subject.id
            case SubjectKind.ROLE:
                return any(assignment.role == subject.id for assignment in roles)
            case SubjectKind.DEPARTMENT:
                return subject.id in upwards(self.departments, department)

    def lies_in(self, camera, resource):
        department, groups = self.cameras[camera]
        match resource.kind:
            case ObjectKind.CAMERA:
                return camera == resource.id
            case ObjectKind.GROUP:
                return any(resource.id in upwards(self.groups, group) for group in groups)
            case _:
                return resource.id in upwards(self.departments, department)

    def sample(self, items, at_most):
        return self.rng.sample(list(items), self.rng.randrange(at_most + 1))


def upwards(parents, node):
    while node is not None:
        yield node
        node = parents[node]


class Oracle:
    """casbin.Enforcer as it comes, with stock role managers and simpleeval, over the same model.conf."""

    def __init__(self, world):
        self.world = world
        model = Model()
        model.load_model_from_text(MODEL.read_text(encoding="utf-8"))
        self.enforcer = casbin.Enforcer(model)
        self.enforcer.add_function("live", self.is_live)
        self.add_links()
        for role, department, actions, place in self.role_rules():
            subject = f"a:{role}@{department}" if department else f"r:{role}"
            self.enforcer.add_policies([[subject, place, str(a), "allow", f"role:{role}"] for a in actions])
        subjects = {SubjectKind.USER: "u:", SubjectKind.ROLE: "r:", SubjectKind.DEPARTMENT: "o:"}
        objects = {ObjectKind.CAMERA: "c:", ObjectKind.GROUP: "g:", ObjectKind.DEPARTMENT: "d:"}
        for grant in world.grants.values():
            subject = subjects[grant.subject.kind] + grant.subject.id
            resource = objects[grant.object.kind] + grant.object.id
            self.enforcer.add_policies(
                [[subject, resource, str(action), str(grant.effect), grant.id] for action in grant.actions]
            )

    def role_rules(self):
        for name, role in ROLES.items():
            yield name, None, role.installation, "i:"
            for department in self.world.departments:
                yield name, department, role.department, f"d:{department}"

    def add_links(self):
        members, places = [], []
        for department, parent in self.world.departments.items():
            places.append([f"d:{department}", f"d:{parent}" if parent else "i:"])
            if parent:
                members.append([f"o:{department}", f"o:{parent}"])
        for group, parent in self.world.groups.items():
            places.append([f"g:{group}", f"g:{parent}" if parent else "i:"])
        for camera, (department, groups) in self.world.cameras.items():
            places += [
                [f"c:{camera}", f"d:{department}"],
                *([f"c:{camera}", f"g:{group}"] for group in groups),
            ]
        for user, (department, roles, _) in self.world.users.items():
            if department:
                members.append([f"u:{user}", f"o:{department}"])
            for assignment in roles:
                members.append([f"u:{user}", f"r:{assignment.role}"])
                if assignment.department_id:
                    members.append([f"u:{user}", f"a:{assignment.role}@{assignment.department_id}"])
        self.enforcer.add_named_grouping_policies("g", [list(row) for row in {tuple(row) for row in members}])
        self.enforcer.add_named_grouping_policies("g2", places)

    def is_live(self, request, gid):
        grant = self.world.grants.get(gid)
        if grant is None:
            return gid.startswith("role:")
        return (
            (grant.valid_from is None or grant.valid_from <= request.at)
            and (grant.valid_to is None or request.at < grant.valid_to)
            and (grant.purposes is None or request.purpose in grant.purposes)
            and not (grant.effect is Effect.ALLOW and grant.granted_by == request.user_id)
        )

    def allows(self, request):
        world = self.world
        known = {
            ObjectKind.CAMERA: world.cameras,
            ObjectKind.GROUP: world.groups,
            ObjectKind.DEPARTMENT: world.departments,
            ObjectKind.INSTALLATION: {""},
        }[request.object.kind]
        if request.object.id not in known or not world.users.get(request.user_id, (None, None, False))[2]:
            return False
        prefix = "i" if request.object.kind is ObjectKind.INSTALLATION else request.object.kind[0]
        return self.enforcer.enforce(
            f"u:{request.user_id}", f"{prefix}:{request.object.id}", str(request.action), request
        )
