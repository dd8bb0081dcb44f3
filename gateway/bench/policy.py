"""`custos bench policy`: how fast the PDP decides, in CPU time. `python -m gateway.bench.policy` is one case.

Each case has a process of its own: memory that one case took would count for the next.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from gateway.bench.errors import BenchError
from gateway.bench.policy_city import AT, PURPOSE, City, CitySize, OnProgress
from gateway.bench.processes import usage
from gateway.bench.quantile import quantile
from policies.access import AccessRequest, Action, GrantRule, Object, ObjectKind
from policies.roles import RolesError

CASES = (
    CitySize(cameras=86_000, grants=20_000, users=5_000),
    CitySize(cameras=1_000_000, grants=100_000, users=50_000),
)
"""The city that this was made for, and ten of them."""

MIN_GRANTS = 200
_MAX_DECISIONS = 20_000

T = TypeVar("T")


class PolicyResult(msgspec.Struct, frozen=True, kw_only=True):
    """One printed line. Times are CPU time of the deciding thread.

    `decide`: of requests that a grant was given for; `decide_random`: of anybody for any camera, mostly
    denied; `decide_100_rules`: where 100 rules name the asker and the camera and one of them is live.
    `list`: the numbers of all cameras that somebody sees; `who`: all users who may see a camera.
    `rss_mb`: of a process that holds nothing else.
    """

    cameras: int
    grants: int
    users: int
    decide_p50_us: float
    decide_p99_us: float
    decide_random_p50_us: float
    decide_random_p99_us: float
    decide_100_rules_p50_us: float
    decide_100_rules_p99_us: float
    explain_p50_us: float
    grant_p50_us: float
    grant_p99_us: float
    revoke_p99_us: float
    list_p50_ms: float
    list_p95_ms: float
    who_p95_ms: float
    allowed_share: float
    rss_mb: float
    load_s: float


def measure(size: CitySize, roles: Path, on_progress: OnProgress) -> PolicyResult:
    """Build the city and ask. Raises BenchError, RolesError."""
    if min(size.cameras, size.users) < 1 or size.grants < MIN_GRANTS:
        raise BenchError(f"a city has a camera, a user and at least {MIN_GRANTS} grants")
    started = time.process_time()
    city = City(size, roles, on_progress)
    city.build()
    load_s = time.process_time() - started
    rss_mb = usage(os.getpid()).rss_kb / 1024
    return _asked(city, load_s, rss_mb, on_progress)


def _asked(city: City, load_s: float, rss_mb: float, on_progress: OnProgress) -> PolicyResult:
    size = city.size
    on_progress(f"{size.cameras:,} cameras: deciding", 0.5)
    decide = city.engine.decide
    asked = min(_MAX_DECISIONS, size.cameras)
    edited, listed = max(1, asked // 10), max(1, asked // 50)
    granted = [_request_for(city, city.rng.choice(city.grants)) for _ in range(asked)]
    anybody = [_request(city.a_user(), city.a_camera()) for _ in range(asked)]
    crowded = [_request(city.crowded_user, city.crowded_camera.id)] * asked
    for request in granted:  # each user's closure and each place's ancestors are found once
        decide(request)
    decided, random, crowd = (_cpu_us(decide, requests) for requests in (granted, anybody, crowded))
    explained = _cpu_us(city.engine.explain, granted[:edited])
    on_progress(f"{size.cameras:,} cameras: granting and listing", 0.8)
    more = [city.a_grant(size.grants + number) for number in range(edited)]
    given = _cpu_us(city.engine.set_grant, more)
    taken = _cpu_us(city.engine.remove_grant, [grant.id for grant in more])
    lists = _cpu_us(
        lambda user: city.engine.visible_ordinals(user, AT), [city.a_user() for _ in range(listed)]
    )
    whos = _cpu_us(
        lambda camera: city.engine.principals_of(camera, Action.LIVE_VIEW, AT),
        [Object(ObjectKind.CAMERA, city.a_camera()) for _ in range(listed)],
    )
    return PolicyResult(
        cameras=size.cameras,
        grants=size.grants,
        users=size.users,
        decide_p50_us=quantile(decided, 0.5),
        decide_p99_us=quantile(decided, 0.99),
        decide_random_p50_us=quantile(random, 0.5),
        decide_random_p99_us=quantile(random, 0.99),
        decide_100_rules_p50_us=quantile(crowd, 0.5),
        decide_100_rules_p99_us=quantile(crowd, 0.99),
        explain_p50_us=quantile(explained, 0.5),
        grant_p50_us=quantile(given, 0.5),
        grant_p99_us=quantile(given, 0.99),
        revoke_p99_us=quantile(taken, 0.99),
        list_p50_ms=quantile(lists, 0.5) / 1000,
        list_p95_ms=quantile(lists, 0.95) / 1000,
        who_p95_ms=quantile(whos, 0.95) / 1000,
        allowed_share=sum(decide(request).allowed for request in granted) / len(granted),
        rss_mb=rss_mb,
        load_s=load_s,
    )


def _request_for(city: City, grant: GrantRule) -> AccessRequest:
    camera = grant.object.id
    if grant.object.kind is not ObjectKind.CAMERA:
        cameras = city.engine.ordinals_in(grant.object)
        camera = (
            city.engine.camera_of(cameras[city.rng.randrange(len(cameras))]) if cameras else city.camera(0)
        )
    return _request(grant.subject.id, camera)


def _request(user_id: str, camera_id: str) -> AccessRequest:
    return AccessRequest(
        user_id=user_id,
        action=Action.LIVE_VIEW,
        object=Object(ObjectKind.CAMERA, camera_id),
        at=AT,
        purpose=PURPOSE,
    )


def _cpu_us(function: Callable[[T], Any], arguments: Iterable[T]) -> list[float]:
    """Of each call. Reading the clock costs about 0.5 µs of it."""
    taken = []
    for argument in arguments:
        start = time.thread_time_ns()
        function(argument)
        taken.append((time.thread_time_ns() - start) / 1000)
    return taken


class _Progress(msgspec.Struct, frozen=True, tag="progress"):
    what: str
    share: float


class _Done(msgspec.Struct, frozen=True, tag="done"):
    result: PolicyResult


class _Failed(msgspec.Struct, frozen=True, tag="failed"):
    message: str


_Message = _Progress | _Done | _Failed


@dataclass(frozen=True, kw_only=True)
class PolicyBench:
    """What to measure; `roles` is a policies.yaml."""

    roles: Path
    cases: tuple[CitySize, ...] = CASES


def bench_policy(
    bench: PolicyBench, on_result: Callable[[PolicyResult], None], on_progress: OnProgress
) -> None:
    """Measure every case in a process of its own. Raises BenchError."""
    for size in bench.cases:
        on_result(_measure_apart(size, bench.roles, on_progress))


def _measure_apart(size: CitySize, roles: Path, on_progress: OnProgress) -> PolicyResult:
    numbers = (size.cameras, size.grants, size.users)
    command = [sys.executable, "-m", __name__, str(roles), *map(str, numbers)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as child:  # noqa: S603 - ourselves
        for line in child.stdout or ():
            message: _Message = msgspec.json.decode(line, type=_Message)
            match message:
                case _Progress(what, share):
                    on_progress(what, share)
                case _Done(result):
                    return result
                case _Failed(why):
                    raise BenchError(why)
    raise BenchError(f"the measuring process ended with {child.returncode}")


def main(arguments: Sequence[str]) -> None:
    """One case, from `policies.yaml cameras grants users`, as JSON lines on standard output."""
    roles, cameras, grants, users = arguments

    def tell(message: _Message) -> None:
        sys.stdout.buffer.write(msgspec.json.encode(message) + b"\n")
        sys.stdout.buffer.flush()

    size = CitySize(cameras=int(cameras), grants=int(grants), users=int(users))
    try:
        result = measure(size, Path(roles), lambda what, share: tell(_Progress(what, share)))
    except (BenchError, RolesError, OSError) as error:
        tell(_Failed(str(error)))
    else:
        tell(_Done(result))


if __name__ == "__main__":
    main(sys.argv[1:])
