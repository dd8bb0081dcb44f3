"""One small city, measured as the great ones are, and what is printed of it."""

import io

import msgspec
import pytest
from rich.console import Console
from support.policy_city import ROLES_FILE
from typer.testing import CliRunner

from gateway.bench.errors import BenchError
from gateway.bench.policy import CASES, MIN_GRANTS, PolicyBench, bench_policy
from gateway.bench.policy_city import AT, CROWDED_RULES, PURPOSE, City, CitySize
from gateway.bench.policy_command import bench_wanted, policy_line, policy_table
from gateway.cli import app
from policies.access import AccessRequest, Action

REQUIRED = {
    "cameras", "grants", "users", "decide_p50_us", "decide_p99_us", "decide_100_rules_p50_us",
    "decide_100_rules_p99_us", "grant_p99_us", "list_p95_ms", "rss_mb", "load_s",
}  # fmt: skip
SMALL = CitySize(cameras=300, grants=MIN_GRANTS, users=50)


@pytest.fixture(scope="module")
def results():
    found, seen = [], []
    bench_policy(
        PolicyBench(roles=ROLES_FILE, cases=(SMALL,)), found.append, lambda *progress: seen.append(progress)
    )
    assert seen
    assert all(0 <= share <= 1 for _, share in seen)
    return found


def test_a_line_has_what_others_rely_on(results):
    line = msgspec.json.decode(policy_line(results[0]))
    assert set(line) >= REQUIRED
    assert (line["cameras"], line["grants"], line["users"]) == (300, MIN_GRANTS, 50)
    assert line["allowed_share"] > 0.5
    assert all(line[name] > 0 for name in REQUIRED)


def test_the_table_has_a_column_for_each_city(results):
    text = io.StringIO()
    Console(file=text, width=100).print(policy_table(results))
    assert "300 cameras" in text.getvalue()
    assert "among 100 rules" in text.getvalue()


def test_the_crowded_camera_is_what_it_says():
    city = City(CitySize(cameras=10, grants=MIN_GRANTS, users=5), ROLES_FILE, lambda *_: None)
    city.build()
    request = AccessRequest(
        user_id=city.crowded_user, action=Action.LIVE_VIEW, object=city.crowded_camera, at=AT, purpose=PURPOSE
    )
    explanation = city.engine.explain(request)
    assert explanation.decision.rule == f"crowded-{CROWDED_RULES - 1}"
    assert len(explanation.matching) == 1
    assert len(explanation.near_misses) == CROWDED_RULES - 1


def test_a_city_too_small_is_refused():
    size = CitySize(cameras=1, grants=MIN_GRANTS - 1, users=1)
    with pytest.raises(BenchError, match=f"at least {MIN_GRANTS} grants"):
        bench_policy(PolicyBench(roles=ROLES_FILE, cases=(size,)), print, lambda *_: None)


def test_the_cases_are_the_citys_and_one_of_other_numbers():
    assert bench_wanted(ROLES_FILE, None, None, None).cases == CASES
    assert [case.cameras for case in CASES] == [86_000, 1_000_000]
    (size,) = bench_wanted(ROLES_FILE, 7, None, None).cases
    assert (size.cameras, size.grants, size.users) == (7, 100_000, 50_000)


def test_on_the_command_line():
    arguments = ["bench", "policy", "--cameras", "50", "--grants", str(MIN_GRANTS), "--users", "9", "--json"]
    printed = CliRunner().invoke(app, arguments)
    assert printed.exit_code == 0
    assert msgspec.json.decode(printed.stdout.strip().splitlines()[-1])["cameras"] == 50
