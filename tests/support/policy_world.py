"""Generated policy worlds, and Casbin's stock enforcer over them as the oracle of what must be decided."""

import random
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import casbin
import msgspec
from casbin.model import Model

from policies.access import (
    INSTALLATION,
    MEDIA_ACTIONS,
    PURPOSELESS_ACTIONS,
    AccessRequest,
    Action,
    Effect,
    GrantRule,
    Object,
    ObjectKind,
    Reason,
    RoleAssignment,
    Schedule,
    Sharing,
    SharingMode,
    Subject,
    SubjectKind,
    WeeklyWindow,
)
from policies.enforcer import MODEL
from policies.engine import PolicyEngine
from policies.roles import parse_roles

EPOCH = datetime(2026, 3, 28, 21, tzinfo=UTC)  # a Saturday; Berlin's clocks go forward at hour 4
HOURS = 8  # coarse time: requests often fall exactly on the edge of a validity or a window
ZONES = ("UTC", "Asia/Shanghai", "Europe/Berlin")
TAGS = ("t0", "t1")
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
MADE_ROLES = parse_roles("roles: {made: {department: [camera:read], installation: [usage:read]}}")
ROLE_NAMES = (*ROLES, *MADE_ROLES)


def at(hour):
    return EPOCH + timedelta(hours=hour)


class World:
    """The facts, as plain dictionaries, and an engine that is told of every change."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.engine = PolicyEngine(ROLES)
        self.departments, self.groups, self.cameras, self.users, self.grants = {}, {}, {}, {}, {}
        self.roles = dict(ROLES)
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
        home = (
            self.rng.choice(list(self.departments)),
            self.sample(self.groups, 2),
            self.sample(TAGS, 1),
            self.sharing(),
        )
        self.cameras[name] = home
        department, groups, tags, sharing = home
        self.engine.set_camera(name, department, groups, tags=tags, sharing=sharing)

    def sharing(self):
        modes = (*SharingMode, SharingMode.CONDITIONAL, SharingMode.CONDITIONAL)
        return Sharing(
            mode=self.rng.choice(modes),
            departments=tuple(self.sample(self.departments, 2)),
            until=at(self.rng.randrange(HOURS + 1)) if self.rng.random() < 0.15 else None,
            purposes=frozenset(self.sample(PURPOSES, 3)) if self.rng.random() < 0.1 else None,
        )

    def set_or_remove_role(self):
        name, role = next(iter(MADE_ROLES.items()))
        if name in self.roles:
            del self.roles[name]
            self.engine.remove_role(name)
        else:
            self.roles[name] = role
            self.engine.set_role(name, role)

    def set_user(self, name):
        roles = [
            RoleAssignment(self.rng.choice(ROLE_NAMES), self.rng.choice([None, *self.departments]))
            for _ in range(self.rng.randrange(3))
        ]
        until = at(self.rng.randrange(HOURS + 1)) if self.rng.random() < 0.05 else None
        home = self.rng.choice([None, *self.departments]), roles, self.rng.random() < 0.95, until
        self.users[name] = home
        self.engine.set_user(name, home[0], roles, enabled=home[2], until=until)

    def add_grant(self):
        rng = self.rng
        self.number += 1
        times = sorted(rng.sample(range(HOURS + 1), 2))
        grant = GrantRule(
            id=f"grant{self.number}",
            subject=rng.choice(
                [
                    Subject(SubjectKind.USER, rng.choice(list(self.users))),
                    Subject(SubjectKind.ROLE, rng.choice(ROLE_NAMES)),
                    Subject(SubjectKind.DEPARTMENT, rng.choice(list(self.departments))),
                ]
            ),
            object=rng.choice(
                [
                    Object(ObjectKind.CAMERA, rng.choice(list(self.cameras))),
                    Object(ObjectKind.GROUP, rng.choice(list(self.groups))),
                    Object(ObjectKind.DEPARTMENT, rng.choice(list(self.departments))),
                    Object(ObjectKind.TAG, rng.choice(TAGS)),
                ]
            ),
            actions=frozenset(self.sample(ACTIONS, 2)) or frozenset({Action.LIVE_VIEW}),
            effect=Effect.DENY if rng.random() < 0.15 else Effect.ALLOW,
            valid_from=at(times[0]) if rng.random() < 0.5 else None,
            valid_to=at(times[1]) if rng.random() < 0.5 else None,
            purposes=frozenset(self.sample(PURPOSES, 2)) if rng.random() < 0.4 else None,
            granted_by=rng.choice(list(self.users)) if rng.random() < 0.3 else None,
            schedule=self.schedule() if rng.random() < 0.2 else None,
            void=Reason.FROZEN if rng.random() < 0.03 else None,
        )
        if rng.random() < 0.25:
            grant = msgspec.structs.replace(grant, actions=grant.actions | {Action.CAMERA_SHARE})
        givers = [g.id for g in self.grants.values() if Action.CAMERA_SHARE in g.actions]
        if grant.effect is Effect.ALLOW and givers and rng.random() < 0.4:
            grant = self.given_on(grant, rng.choice([*givers, "gone"] if rng.random() < 0.2 else givers))
        self.grants[grant.id] = grant
        self.engine.set_grant(grant)

    def given_on(self, grant, parent_id):
        """Mostly a grant that its parent could have given; if not, it must not serve."""
        parent = self.grants.get(parent_id)
        if parent is not None and self.rng.random() < 0.8:
            grant = msgspec.structs.replace(grant, object=parent.object, actions=parent.actions)
        return msgspec.structs.replace(grant, parent=parent_id)

    def schedule(self):
        windows = []
        for _ in range(self.rng.randrange(1, 3)):
            start, end = self.rng.randrange(24), self.rng.randrange(25)
            days = self.rng.sample(range(1, 8), self.rng.randrange(1, 8))
            windows.append(WeeklyWindow(days=tuple(days), start=f"{start:02}:00", end=f"{end:02}:00"))
        return Schedule(zone=self.rng.choice(ZONES), windows=tuple(windows))

    def remove_grant(self):
        if self.grants:
            self.engine.remove_grant(self.grants.pop(self.rng.choice(list(self.grants))).id)

    def edit(self):
        """One random change of the facts, told to the engine."""
        rng = self.rng
        kind = rng.randrange(7)
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
        elif kind == 5:
            self.set_or_remove_role()
        self.add_grant()
        if len(self.grants) > 9:
            self.remove_grant()

    # Questions

    def request(self):
        """A request; in two of three cases one that some allowing grant was meant for."""
        rng = self.rng
        allows = [grant for grant in self.grants.values() if grant.effect is Effect.ALLOW]
        grant = rng.choice(allows) if allows and rng.random() < 0.9 else None
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
                    Object(ObjectKind.TAG, rng.choice(TAGS)),
                ]
            )
        purposes = sorted(grant.purposes) if grant and grant.purposes else [*PURPOSES, None]
        actions = sorted(grant.actions) if grant else [*ACTIONS, Action.AUDIT_READ, Action.CAMERA_SHARE]
        hours = [at(hour) for hour in range(HOURS + 1)]
        if grant and rng.random() < 0.8:
            hours = [hour for hour in hours if is_in_time(grant, hour)] or hours
        return AccessRequest(
            user_id=rng.choice(users),
            action=rng.choice(actions),
            object=resource,
            at=rng.choice(hours),
            purpose=rng.choice(purposes),
        )

    def counts_as(self, user, subject):
        department, roles, _, _ = self.users[user]
        match subject.kind:
            case SubjectKind.USER:
                return user == subject.id
            case SubjectKind.ROLE:
                return any(assignment.role == subject.id for assignment in roles)
            case SubjectKind.DEPARTMENT:
                return subject.id in upwards(self.departments, department)

    def lies_in(self, camera, resource):
        department, groups, tags, _ = self.cameras[camera]
        match resource.kind:
            case ObjectKind.CAMERA:
                return camera == resource.id
            case ObjectKind.GROUP:
                return any(resource.id in upwards(self.groups, group) for group in groups)
            case ObjectKind.TAG:
                return resource.id in tags
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
        for grant in world.grants.values():
            subject = subjects[grant.subject.kind] + grant.subject.id
            resource = f"{grant.object.kind[0]}:{grant.object.id}"
            self.enforcer.add_policies(
                [[subject, resource, str(action), str(grant.effect), grant.id] for action in grant.actions]
            )

        for camera, (_, _, _, sharing) in world.cameras.items():
            if sharing.mode is SharingMode.UNCONDITIONAL:
                rows = [
                    [f"o:{d}", f"c:{camera}", "live:view", "allow", "shared"] for d in sharing.departments
                ]
                self.enforcer.add_policies(rows)

    def role_rules(self):
        for name, role in self.world.roles.items():
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
        places += [[f"t:{tag}", "i:"] for tag in TAGS]
        for camera, (department, groups, tags, _) in self.world.cameras.items():
            places += [
                [f"c:{camera}", f"d:{department}"],
                *([f"c:{camera}", f"g:{group}"] for group in groups),
                *([f"c:{camera}", f"t:{tag}"] for tag in tags),
            ]
        for user, (department, roles, _, _) in self.world.users.items():
            if department:
                members.append([f"u:{user}", f"o:{department}"])
            for assignment in roles:
                members.append([f"u:{user}", f"r:{assignment.role}"])
                if assignment.department_id:
                    members.append([f"u:{user}", f"a:{assignment.role}@{assignment.department_id}"])
        self.enforcer.add_named_grouping_policies("g", [list(row) for row in {tuple(row) for row in members}])
        self.enforcer.add_named_grouping_policies("g2", places)

    def is_live(self, request, gid):
        if gid.startswith("role:"):
            return True
        grant = self.world.grants.get(gid)
        is_allow = grant is None or grant.effect is Effect.ALLOW
        if is_allow and request.object.kind is ObjectKind.CAMERA and request.action in MEDIA_ACTIONS:
            department, _, _, sharing = self.world.cameras[request.object.id]
            is_over = sharing.until is not None and sharing.until <= request.at
            if grant is None and is_over:
                return False
            if sharing.purposes is not None and request.purpose not in sharing.purposes:
                return False
            closed = is_over or sharing.mode is SharingMode.NOT_SHARED
            if closed and department not in upwards(
                self.world.departments, self.world.users[request.user_id][0]
            ):
                return False
        return grant is None or (
            is_in_time(grant, request.at)
            and not (is_allow and grant.void is not None)
            and (
                grant.purposes is None
                or request.purpose in grant.purposes
                or (request.action in PURPOSELESS_ACTIONS and len(grant.purposes) > 0)
            )
            and not (is_allow and grant.granted_by == request.user_id)
            and (grant.parent is None or self.is_given_on(grant.parent, request))
        )

    def is_given_on(self, parent_id, request):
        parent = self.world.grants.get(parent_id)
        return (
            parent is not None
            and parent.effect is Effect.ALLOW
            and {request.action, Action.CAMERA_SHARE} <= parent.actions
            and parent.void is None
            and is_in_time(parent, request.at)
            and self.contains(parent.object, request.object)
            and (parent.parent is None or self.is_given_on(parent.parent, request))
        )

    def contains(self, outer, inner):
        if outer == inner:
            return True
        trees = {ObjectKind.DEPARTMENT: self.world.departments, ObjectKind.GROUP: self.world.groups}
        if inner.kind is ObjectKind.CAMERA:
            return inner.id in self.world.cameras and self.world.lies_in(inner.id, outer)
        return (
            inner.kind is outer.kind
            and inner.kind in trees
            and outer.id in upwards(trees[inner.kind], inner.id)
        )

    def allows(self, request):
        world = self.world
        known = {
            ObjectKind.CAMERA: world.cameras,
            ObjectKind.GROUP: world.groups,
            ObjectKind.DEPARTMENT: world.departments,
            ObjectKind.TAG: {tag for camera in world.cameras.values() for tag in camera[2]},
            ObjectKind.INSTALLATION: {""},
        }[request.object.kind]
        if request.object.id not in known or request.user_id not in world.users:
            return False
        _, _, is_enabled, until = world.users[request.user_id]
        if not is_enabled or (until is not None and until <= request.at):
            return False
        return self.enforcer.enforce(
            f"u:{request.user_id}",
            f"{request.object.kind[0]}:{request.object.id}",
            str(request.action),
            request,
        )


def is_in_time(grant, moment):
    return (
        (grant.valid_from is None or grant.valid_from <= moment)
        and (grant.valid_to is None or moment < grant.valid_to)
        and (grant.schedule is None or is_inside(grant.schedule, moment))
    )


def is_inside(schedule, moment):
    """Whether the clock on the wall shows a time of a window: whole minutes, looked at one by one."""
    local = moment.astimezone(ZoneInfo(schedule.zone))
    now = local.hour * 60 + local.minute
    for window in schedule.windows:
        (start, end) = (int(text[:2]) * 60 + int(text[3:]) for text in (window.start, window.end))
        length = (end - start) % 1440 or 1440
        for days_ago in (0, 1):
            weekday = (local.weekday() - days_ago) % 7 + 1
            if weekday in window.days and start <= now + days_ago * 1440 < start + length:
                return True
    return False
