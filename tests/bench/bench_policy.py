"""How fast the PDP decides: `python tests/bench/bench_policy.py [cameras grants users]`, one JSON line."""

import gc
import json
import random
import resource
import sys
import time
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

AT = datetime(2026, 1, 1, tzinfo=UTC)
ROLES = Path(__file__).parents[2] / "config" / "policies.yaml"
DEPARTMENTS = 130
GROUPS = 200


def grant(rng, number, cameras, users):
    target = rng.choices(
        (
            Object(ObjectKind.CAMERA, f"camera-{rng.randrange(cameras)}"),
            Object(ObjectKind.GROUP, f"group-{rng.randrange(GROUPS)}"),
            Object(ObjectKind.DEPARTMENT, f"department-{rng.randrange(1, DEPARTMENTS)}"),
        ),
        (8, 1, 1),
    )[0]
    return GrantRule(
        id=f"grant-{number}",
        subject=Subject(SubjectKind.USER, f"user-{rng.randrange(users)}"),
        object=target,
        actions=frozenset({Action.LIVE_VIEW, Action.CAMERA_READ}),
        valid_to=AT + timedelta(days=30),
        purposes=frozenset({"patrol"}),
    )


def world(rng, cameras, grants, users):
    engine = PolicyEngine(parse_roles(ROLES.read_text(encoding="utf-8")))
    for number in range(DEPARTMENTS):
        engine.set_department(f"department-{number}", f"department-{(number - 1) // 5}" if number else None)
    for number in range(GROUPS):
        engine.set_group(f"group-{number}", None)
    for number in range(cameras):
        group = [f"group-{number % GROUPS}"] if number % 3 == 0 else []
        engine.set_camera(f"camera-{number}", f"department-{rng.randrange(DEPARTMENTS)}", group)
    for number in range(users):
        department = f"department-{rng.randrange(DEPARTMENTS)}"
        role = "operator" if number % 50 else "department-administrator"
        engine.set_user(f"user-{number}", department, [RoleAssignment(role, department)])
    rules = [grant(rng, number, cameras, users) for number in range(grants)]
    for rule in rules:
        engine.set_grant(rule)
    engine.advance(1)
    return engine, rules


def request(rng, rule, engine, cameras):
    camera = rule.object.id
    if rule.object.kind is not ObjectKind.CAMERA:
        camera = rng.choice(sorted(engine.cameras_in(rule.object)) or ["camera-0"])
    return AccessRequest(
        user_id=rule.subject.id,
        action=Action.LIVE_VIEW,
        object=Object(ObjectKind.CAMERA, camera),
        at=AT,
        purpose="patrol",
    )


def microseconds(function, arguments):
    taken = []
    for argument in arguments:
        start = time.thread_time_ns()
        function(argument)
        taken.append((time.thread_time_ns() - start) / 1000)
    taken.sort()
    return taken


def percentile(taken, share):
    return round(taken[min(len(taken) - 1, int(len(taken) * share))], 1)


def main(cameras=50_000, grants=10_000, users=5_000, samples=5_000):
    rng = random.Random(1)
    start = time.perf_counter()
    engine, rules = world(rng, cameras, grants, users)
    load_s = time.perf_counter() - start
    gc.freeze()
    granted = [request(rng, rng.choice(rules), engine, cameras) for _ in range(samples)]
    anyone = [
        AccessRequest(
            user_id=f"user-{rng.randrange(users)}",
            action=Action.LIVE_VIEW,
            object=Object(ObjectKind.CAMERA, f"camera-{rng.randrange(cameras)}"),
            at=AT,
            purpose="patrol",
        )
        for _ in range(samples)
    ]
    microseconds(engine.decide, granted[:500])
    decide, deny = microseconds(engine.decide, granted), microseconds(engine.decide, anyone)
    more = [grant(rng, grants + number, cameras, users) for number in range(1000)]
    added = microseconds(engine.set_grant, more)
    removed = microseconds(engine.remove_grant, [rule.id for rule in more])
    listed = microseconds(
        lambda user: engine.visible_cameras(user, AT), [f"user-{rng.randrange(users)}" for _ in range(300)]
    )
    figures = {
        "cameras": cameras,
        "grants": grants,
        "users": users,
        "decide_p50_us": percentile(decide, 0.5),
        "decide_p99_us": percentile(decide, 0.99),
        "decide_random_p50_us": percentile(deny, 0.5),
        "decide_random_p99_us": percentile(deny, 0.99),
        "grant_p50_us": percentile(added, 0.5),
        "grant_p99_us": percentile(added, 0.99),
        "revoke_p99_us": percentile(removed, 0.99),
        "list_p50_ms": round(percentile(listed, 0.5) / 1000, 2),
        "list_p95_ms": round(percentile(listed, 0.95) / 1000, 2),
        "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        "load_s": round(load_s, 2),
    }
    print(json.dumps(figures))  # noqa: T201


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]))
