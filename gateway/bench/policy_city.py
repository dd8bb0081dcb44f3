"""A city's policy of any size, made up but always the same, in a PDP: what `custos bench policy` measures."""

import gc
import random
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from policies.access import (
    Action,
    Effect,
    GrantRule,
    Object,
    ObjectKind,
    RoleAssignment,
    Schedule,
    Sharing,
    SharingMode,
    Subject,
    SubjectKind,
    WeeklyWindow,
)
from policies.engine import PolicyEngine
from policies.roles import parse_roles

AT = datetime(2026, 1, 7, 4, tzinfo=UTC)
"""A Wednesday noon in China: inside OFFICE_HOURS."""
PURPOSE = "patrol"
OFFICE_HOURS = Schedule(
    zone="Asia/Shanghai", windows=(WeeklyWindow(days=(1, 2, 3, 4, 5), start="08:00", end="18:00"),)
)
NIGHTS = Schedule(
    zone="Asia/Shanghai", windows=(WeeklyWindow(days=(1, 2, 3, 4, 5, 6, 7), start="22:00", end="06:00"),)
)
ROLE = "operator"
CROWDED_RULES = 100

_DEPARTMENTS = 130
_GROUPS = 200
_TAGS = 50
_USERS_PER_ADMINISTRATOR = 50
_PROGRESS_EVERY = 10_000

OnProgress = Callable[[str, float], None]


@dataclass(frozen=True, kw_only=True)
class CitySize:
    cameras: int
    grants: int
    users: int


class City:
    """`crowded_camera` has CROWDED_RULES rules that all name `crowded_user`, of which one is live."""

    def __init__(self, size: CitySize, roles: Path, on_progress: OnProgress) -> None:
        self.size = size
        self.rng = random.Random(1)  # noqa: S311 - figures must be of the same city each time
        self.engine = PolicyEngine(parse_roles(roles.read_text(encoding="utf-8")))
        self._on_progress = on_progress
        self._done = 0
        self.grants: list[GrantRule] = []
        self.crowded_user = self.user(0)
        self.crowded_camera = Object(ObjectKind.CAMERA, self.camera(0))

    def build(self) -> None:
        """Tell the engine everything, as a start does: without collections of garbage, and then frozen."""
        gc.disable()
        try:
            self._set_places()
            self._set_users()
            self._set_grants()
        finally:
            gc.enable()
        gc.freeze()
        self.engine.advance(1)

    @staticmethod
    def camera(number: int) -> str:
        return f"camera-{number:025d}"

    @staticmethod
    def user(number: int) -> str:
        return f"user-{number:027d}"

    def a_camera(self) -> str:
        return self.camera(self.rng.randrange(self.size.cameras))

    def a_user(self) -> str:
        return self.user(self.rng.randrange(self.size.users))

    def a_grant(self, number: int) -> GrantRule:
        """Mostly on one camera for one person; few denials, some in office hours only."""
        rng = self.rng
        target = rng.choices(
            (
                Object(ObjectKind.CAMERA, self.a_camera()),
                Object(ObjectKind.GROUP, f"group-{rng.randrange(_GROUPS)}"),
                Object(ObjectKind.TAG, f"tag-{rng.randrange(_TAGS)}"),
                Object(ObjectKind.DEPARTMENT, f"department-{rng.randrange(1, _DEPARTMENTS)}"),
            ),
            (16, 2, 1, 1),
        )[0]
        return GrantRule(
            id=f"grant-{number:026d}",
            subject=Subject(SubjectKind.USER, self.a_user()),
            object=target,
            actions=frozenset({Action.LIVE_VIEW, Action.CAMERA_READ}),
            effect=Effect.ALLOW if number % 20 else Effect.DENY,
            valid_to=AT + timedelta(days=1 + number % 90),
            purposes=frozenset({PURPOSE}) if number % 3 else None,
            schedule=OFFICE_HOURS if number % 5 == 0 else None,
            granted_by=self.a_user(),
        )

    def _set_places(self) -> None:
        rng, engine = self.rng, self.engine
        for number in range(_DEPARTMENTS):
            engine.set_department(
                f"department-{number}", f"department-{(number - 1) // 5}" if number else None
            )
        for number in range(_GROUPS):
            engine.set_group(f"group-{number}", None)
        for number in range(self.size.cameras):
            self._count("cameras", number)
            sharing = None
            if number % 50 == 1:
                mode = SharingMode.NOT_SHARED if number % 100 == 1 else SharingMode.UNCONDITIONAL
                sharing = Sharing(mode=mode, departments=(f"department-{rng.randrange(_DEPARTMENTS)}",))
            engine.set_camera(
                self.camera(number),
                f"department-{rng.randrange(_DEPARTMENTS)}",
                (f"group-{number % _GROUPS}",) if number % 3 == 0 else (),
                tags=(f"tag-{number // 10 % _TAGS}",) if number % 10 == 1 else (),
                sharing=sharing,
            )

    def _set_users(self) -> None:
        for number in range(self.size.users):
            self._count("users", number)
            department = f"department-{self.rng.randrange(_DEPARTMENTS)}"
            role = ROLE if number % _USERS_PER_ADMINISTRATOR else "department-administrator"
            self.engine.set_user(self.user(number), department, [RoleAssignment(role, department)])
        self.engine.set_user(self.crowded_user, "department-1", [RoleAssignment(ROLE, "department-1")])

    def _set_grants(self) -> None:
        crowded = [self._crowded(number) for number in range(CROWDED_RULES)]
        for number in range(self.size.grants - len(crowded)):
            self._count("grants", number)
            grant = self.a_grant(number)
            if grant.object != self.crowded_camera:
                self.grants.append(grant)
                self.engine.set_grant(grant)
        for grant in crowded:
            self.engine.set_grant(grant)

    def _crowded(self, number: int) -> GrantRule:
        """The last is live and ends first; the others are for another purpose, or for the night, in turn."""
        subjects = (
            Subject(SubjectKind.USER, self.crowded_user),
            Subject(SubjectKind.ROLE, ROLE),
            Subject(SubjectKind.DEPARTMENT, "department-1"),
        )
        is_last = number == CROWDED_RULES - 1
        return GrantRule(
            id=f"crowded-{number}",
            subject=subjects[number % len(subjects)],
            object=self.crowded_camera,
            actions=frozenset({Action.LIVE_VIEW}),
            effect=Effect.DENY if number % 10 == 1 else Effect.ALLOW,
            valid_from=AT - timedelta(days=1),
            valid_to=AT + timedelta(days=1 if is_last else 2),
            schedule=NIGHTS if number % 2 and not is_last else OFFICE_HOURS,
            purposes=frozenset({PURPOSE if number % 2 or is_last else "theft"}),
        )

    def _count(self, what: str, number: int) -> None:
        if number % _PROGRESS_EVERY == 0:
            total = self.size.cameras + self.size.grants + self.size.users
            self._on_progress(f"{self.size.cameras:,} cameras: loading {what}", min(1.0, self._done / total))
            self._done += _PROGRESS_EVERY
