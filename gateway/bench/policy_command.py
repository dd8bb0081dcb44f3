"""`custos bench policy` on the command line: what is asked for, and the table."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
from rich.table import Table

from gateway.bench.policy import CASES, PolicyBench, PolicyResult


def bench_wanted(roles: Path, cameras: int | None, grants: int | None, users: int | None) -> PolicyBench:
    """Every case without numbers; with some, one city of those and else the greatest case's."""
    if cameras is None and grants is None and users is None:
        return PolicyBench(roles=roles)
    wanted = {"cameras": cameras, "grants": grants, "users": users}
    size = replace(CASES[-1], **{name: number for name, number in wanted.items() if number is not None})
    return PolicyBench(roles=roles, cases=(size,))


def policy_line(result: PolicyResult) -> bytes:
    """One line of JSON."""
    rounded = {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in msgspec.structs.asdict(result).items()
    }
    return msgspec.json.encode(rounded) + b"\n"


def policy_table(results: Sequence[PolicyResult]) -> Table:
    """For people: a column per city."""
    table = Table(title="Policy decisions: CPU time and memory", title_justify="left")
    table.add_column("")
    for result in results:
        table.add_column(f"{result.cameras:,} cameras", justify="right", no_wrap=True)
    for heading, show in _LINES:
        table.add_row(heading, *map(show, results))
    return table


def _both(first: str, second: str, digits: int = 1) -> Callable[[Any], str]:
    return lambda result: f"{getattr(result, first):.{digits}f}, {getattr(result, second):.{digits}f}"


_LINES: Sequence[tuple[str, Callable[[PolicyResult], str]]] = (
    ("grants", lambda r: f"{r.grants:,}"),
    ("users", lambda r: f"{r.users:,}"),
    ("decision, p50 and p99 (µs)", _both("decide_p50_us", "decide_p99_us")),
    ("of anybody for anything (µs)", _both("decide_random_p50_us", "decide_random_p99_us")),
    ("among 100 rules for the asker (µs)", _both("decide_100_rules_p50_us", "decide_100_rules_p99_us")),
    ("explanation by Casbin, p50 (µs)", lambda r: f"{r.explain_p50_us:.1f}"),
    ("grant, p50 and p99 (µs)", _both("grant_p50_us", "grant_p99_us")),
    ("revocation, p99 (µs)", lambda r: f"{r.revoke_p99_us:.1f}"),
    ("visible cameras, p50 and p95 (ms)", _both("list_p50_ms", "list_p95_ms", 2)),
    ("who may see a camera, p95 (ms)", lambda r: f"{r.who_p95_ms:.2f}"),
    ("memory (MB)", lambda r: f"{r.rss_mb:.0f}"),
    ("loading (s)", lambda r: f"{r.load_s:.1f}"),
)
