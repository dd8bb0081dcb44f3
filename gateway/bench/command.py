"""`custos bench`: parsing and printing; the measuring is beside it, and imported when it is asked for."""

import asyncio
import contextlib
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from gateway.terminal import JsonOption, config_folder, console, errors, output

BENCH_WIDTH = 180

bench_app = typer.Typer(help="Measure this machine with a node of its own.", no_args_is_help=True)


@bench_app.command("relay")
def bench_relay(
    case: Annotated[
        list[str] | None, typer.Option(help="one-1000, one-3000, 300x10 or distinct; all without any.")
    ] = None,
    url: Annotated[
        list[str] | None, typer.Option(help="Measure another HTTP-FLV server; {n} is the viewer's number.")
    ] = None,
    pid: Annotated[list[int] | None, typer.Option(help="The other server's processes.")] = None,
    viewers: Annotated[int | None, typer.Option(min=1, help="Instead of the case's number.")] = None,
    cameras: Annotated[int | None, typer.Option(min=1, help="Instead of the case's number.")] = None,
    seconds: Annotated[float, typer.Option(min=1, help="How long is measured.")] = 8.0,
    merge_ms: Annotated[
        list[int] | None, typer.Option(min=0, max=350, help="Merge writes for so long; without: 0, then 100.")
    ] = None,
    workers: Annotated[int, typer.Option(min=0, max=64, help="Relay workers; 0: one per core.")] = 0,
    rounds: Annotated[int, typer.Option(min=1, help="Floor and gateway in turn; medians are shown.")] = 1,
    open_rate: Annotated[float, typer.Option(min=0.1, help="Sessions opened in a second.")] = 50.0,
    bit_rate: Annotated[int, typer.Option(min=100_000, help="Of each camera, in bit/s.")] = 1_000_000,
    tls: Annotated[bool, typer.Option("--tls", help="HTTPS, with a certificate of its own.")] = False,
    as_json: JsonOption = False,
) -> None:
    """The relay under load: server CPU per viewer, and what reached the viewers."""
    from gateway.bench.relay import RelayBench, bench_relay, chosen_cases
    from gateway.bench.report import CaseResult, rounded, table_of
    from gateway.logs import configure_logs

    configure_logs("console", "error", "bench")
    results: list[CaseResult] = []

    def show(result: CaseResult) -> None:
        results.append(result)
        if as_json:
            sys.stdout.write(msgspec.json.encode(rounded(result)).decode() + "\n")
            sys.stdout.flush()

    with errors(), _benching() as progress:
        bench = RelayBench(
            policies=config_folder() / "policies.yaml",
            cases=chosen_cases(case or (), cameras, viewers),
            merge_ms=tuple(merge_ms or ((0,) if url else (0, 100))),
            seconds=seconds,
            workers=workers,
            rounds=rounds,
            open_rate=open_rate,
            bit_rate_bps=bit_rate,
            tls=tls,
            urls=tuple(url or ()),
            pids=tuple(pid or ()),
        )
        asyncio.run(bench_relay(bench, show, progress))
    if not url and any(result.floor_us_per_viewer_second is None for result in results):
        console.print("No C compiler (cc, gcc or clang): there is no floor to compare with.")
    if not as_json:
        output.print(table_of(results), crop=False, overflow="ignore", width=max(output.width, BENCH_WIDTH))


@bench_app.command("policy")
def bench_policy(
    cameras: Annotated[int | None, typer.Option(min=1, help="Instead of 86,000 and 1,000,000.")] = None,
    grants: Annotated[int | None, typer.Option(min=1, help="Among them 100 on one camera.")] = None,
    users: Annotated[int | None, typer.Option(min=1)] = None,
    as_json: JsonOption = False,
) -> None:
    """How fast decisions and lists of visible cameras are, in CPU time, and what they keep in memory."""
    from gateway.bench.policy import PolicyResult, bench_policy
    from gateway.bench.policy_command import bench_wanted, policy_line, policy_table

    results: list[PolicyResult] = []

    def show(result: PolicyResult) -> None:
        results.append(result)
        if as_json:
            sys.stdout.write(policy_line(result).decode())
            sys.stdout.flush()

    with errors(), _benching() as progress:
        bench_policy(bench_wanted(config_folder() / "policies.yaml", cameras, grants, users), show, progress)
    if not as_json:
        output.print(policy_table(results), crop=False, overflow="ignore")


@contextlib.contextmanager
def _benching() -> Iterator[Any]:
    with Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        refresh_per_second=2,
    ) as bar:
        task = bar.add_task("", total=1.0)
        yield lambda what, share: bar.update(task, description=what, completed=share)
