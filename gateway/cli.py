"""The command line: parsing and printing; the work is elsewhere. Errors go to stderr with their code.

Each command imports what it needs: whoever verifies a ledger does not wait for a web server to load. The
supervisor runs on plain asyncio: uvloop resets the ignored SIGINT that its children are to inherit.
"""

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from gateway.bench.command import bench_app
from gateway.import_command import export_cameras, import_cameras
from gateway.policy_command import explain, grant_app, policy_app
from gateway.policy_state_command import accept, confirm, status
from gateway.security_command import erase, undertaking
from gateway.terminal import JsonOption, config_folder, console, errors, fail, output
from gateway.witness.command import rotate_key, witness

if TYPE_CHECKING:
    from gateway.audit.check import Report
    from gateway.demo.run import Ready
    from gateway.settings import Settings
    from gateway.trace import TracedSession

MIN_TABLE_WIDTH = 100

app = typer.Typer(
    name="custos",
    help="Video resource sharing and access control: who looked, why, and who allowed it.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
user_app = typer.Typer(help="Accounts that must exist before anyone can log in.", no_args_is_help=True)
audit_app = typer.Typer(help="The ledger, offline.", no_args_is_help=True)
app.add_typer(user_app, name="user")
app.add_typer(audit_app, name="audit")
app.add_typer(bench_app, name="bench")
app.add_typer(grant_app, name="grant")
app.add_typer(policy_app, name="policy")
policy_app.command("status")(status)
policy_app.command("accept")(accept)
policy_app.command("confirm")(confirm)
policy_app.command("undertaking")(undertaking)
app.command("explain")(explain)
app.command("import")(import_cameras)
app.command("export")(export_cameras)
app.command("witness")(witness)
audit_app.command("rotate-key")(rotate_key)
audit_app.command("erase")(erase)

ConfigOption = Annotated[Path, typer.Option("--config", help="The configuration file.")]


DEFAULT_CONFIG = config_folder() / "custos.yaml"


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="Port of the portal and the API; 0 takes a free one.")] = 8080,
    data: Annotated[Path, typer.Option(help="Where everything is kept.")] = Path("data/demo"),
    as_json: JsonOption = False,
) -> None:
    """Start a small city on this machine: simulated cameras, accounts, grants, and the gateway."""
    from gateway.demo.run import run_demo
    from gateway.logs import configure_logs
    from gateway.settings import LogSettings

    log = LogSettings(format="json" if as_json else "console", level="warning")
    configure_logs(log.format, log.level, "node")
    with errors(), _rendering(quiet=as_json) as progress:
        asyncio.run(
            run_demo(
                data.resolve(),
                port,
                config_folder() / "policies.yaml",
                log,
                progress,
                lambda ready: _print_ready(ready, as_json=as_json),
            )
        )


@contextlib.contextmanager
def _rendering(*, quiet: bool) -> Iterator[Any]:
    with Progress(
        SpinnerColumn(),
        TextColumn("Rendering the cameras' scenes"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=quiet,
    ) as bar:
        task = bar.add_task("rendering", total=1.0, visible=False)

        def progress(share: float) -> None:
            bar.update(task, completed=share, visible=share < 1.0)
            if share >= 1.0:
                bar.stop()

        yield progress


def _print_ready(ready: "Ready", *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(ready).decode() + "\n")
        sys.stdout.flush()
        return
    output.print(f"\nCustos is ready: [bold]{ready.url}[/]   (Ctrl-C ends it)\n", highlight=False)
    table = Table(title="Accounts", title_justify="left")
    for heading in ("user name", "password", "role", "department"):
        table.add_column(heading, no_wrap=True)
    for account in ready.accounts:
        shown = account.password or "(shown at the first start)"
        table.add_row(account.username, shown, account.role, account.department)
    output.print(table, crop=False, overflow="ignore", width=_table_width())
    cameras = Table("camera", "name", "department", title="Cameras", title_justify="left")
    for camera in ready.cameras:
        cameras.add_row(camera.id, camera.name, camera.department)
    output.print(cameras)
    if ready.second_factor == "nobody":
        output.print("Nobody needs a second factor here; elsewhere administrators do.", highlight=False)
    output.print("Public key of the ledger (keep it elsewhere):", highlight=False)
    output.print(ready.audit_public_key, highlight=False, soft_wrap=True)


def _table_width() -> int:
    """A password that is shown once is never cut, however narrow the terminal."""
    return max(output.width, MIN_TABLE_WIDTH)


@app.command()
def serve(
    config: ConfigOption = DEFAULT_CONFIG,
    workers: Annotated[int | None, typer.Option(help="Relay workers, instead of the file's.")] = None,
) -> None:
    """Run a node until SIGTERM or Ctrl-C; sessions get their end record, at most 10 s."""
    from gateway.logs import configure_logs
    from gateway.settings import load_settings

    with errors():
        settings = load_settings(config)
        if workers is not None:
            settings = dataclasses.replace(settings, workers=workers)
        configure_logs(settings.log.format, settings.log.level, "node")
        _check_tls(settings)
        asyncio.run(_serve(settings))


def _check_tls(settings: "Settings") -> None:
    """Raises TlsError here, in words, instead of in every worker."""
    from gateway.relay.tls import Certificate

    if settings.tls.certificate and settings.tls.key:
        Certificate(Path(settings.tls.certificate), Path(settings.tls.key))


async def _serve(settings: "Settings") -> None:
    from gateway.node import reserved_ports, run_folder, supervisor

    data = Path(settings.data)
    await asyncio.to_thread(data.mkdir, mode=0o700, parents=True, exist_ok=True)
    scheme = "https" if settings.tls.certificate else "http"
    with reserved_ports(settings) as ports, run_folder(data) as run:
        await supervisor(settings, run, ports).run(
            lambda: console.print(
                f"listening on {scheme}://{settings.http.host}:{ports.http}", highlight=False
            )
        )


@app.command("check-config")
def check_config(config: ConfigOption = DEFAULT_CONFIG, as_json: JsonOption = False) -> None:
    """Read the configuration as `serve` would, and say what is wrong with it."""
    from gateway.settings import load_settings

    with errors():
        settings = load_settings(config)
        _check_tls(settings)
    if as_json:
        sys.stdout.write(msgspec.json.encode(settings).decode() + "\n")
    else:
        output.print(f"{config}: good", highlight=False)


@user_app.command("bootstrap")
def user_bootstrap(
    username: Annotated[str, typer.Argument(help="The first system administrator's user name.")],
    department: Annotated[str, typer.Option(help="The name of the root department.")],
    config: ConfigOption = DEFAULT_CONFIG,
    password_stdin: Annotated[
        bool, typer.Option(help="Read the password from stdin instead of generating one.")
    ] = False,
) -> None:
    """Make the first system administrator of a new installation, once, while the gateway is down."""
    from gateway.passwords import MAX_PASSWORD_LENGTH, MIN_PASSWORD_LENGTH, generate_password
    from gateway.settings import load_settings
    from gateway.supervisor import locked_data_folder

    password = sys.stdin.readline().rstrip("\n") if password_stdin else generate_password()
    if len(password) < MIN_PASSWORD_LENGTH:
        fail("password_too_short", f"at least {MIN_PASSWORD_LENGTH} characters")
    if len(password) > MAX_PASSWORD_LENGTH:  # nobody could log in with it, and there is no second bootstrap
        fail("password_too_long", f"at most {MAX_PASSWORD_LENGTH} characters")
    with errors():
        settings = load_settings(config)
        data = Path(settings.data)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        with locked_data_folder(data):
            asyncio.run(_bootstrap(settings, username, department, password))
    if not password_stdin:
        output.print(f"{username}: {password}", highlight=False, markup=False)


async def _bootstrap(settings: "Settings", username: str, department: str, password: str) -> None:
    from gateway.accounts import bootstrap
    from gateway.passwords import Passwords, PasswordSettings
    from gateway.settings import DATABASE_URL
    from gateway.store.store import Store, StoreSettings

    store_settings = StoreSettings(data_folder=Path(settings.data), url=os.environ.get(DATABASE_URL))
    async with Store.open(store_settings) as store:
        password_hash = await Passwords(PasswordSettings()).hash(password)
        await bootstrap(store, password_hash, username, department)


@audit_app.command("verify")
def audit_verify(
    data: Annotated[Path | None, typer.Option(help="A data folder (SQLite), also while it is used.")] = None,
    export: Annotated[Path | None, typer.Option(help="An export of the ledger.")] = None,
    key: Annotated[str | None, typer.Option(help="The public key, or a file that holds it.")] = None,
    head: Annotated[
        str | None, typer.Option(help="Signed heads that somebody else holds: a file, or an http(s) address.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Recompute everything, offline.

    Exit code 0: as it was written, and a head held elsewhere agrees. 1: altered. 3: consistent, but nobody
    else's head was given (unwitnessed).
    """
    from gateway.audit.verify import load_public_key, verify_data_folder, verify_export

    if (data is None) == (export is None):
        fail("usage", "give either --data or --export")
    with errors():
        public_key = load_public_key(key) if key is not None else None
        held = _held_heads(head)
        if data is not None:
            report = verify_data_folder(data, held, public_key=public_key)
        else:
            if public_key is None or export is None:
                fail("usage", "an export is verified with --key")
            report = verify_export(export, public_key, held)
    _print_report(report, as_json=as_json)
    raise typer.Exit(report.exit_code)


def _held_heads(head: str | None) -> Path | bytes | None:
    """Raises FetchError."""
    if head is None or not head.startswith(("http://", "https://")):
        return None if head is None else Path(head)
    from gateway.bounded_fetch import fetch_once

    return asyncio.run(fetch_once(head))


@app.command()
def trace(
    clip: Annotated[Path, typer.Argument(help="A recording that was not encoded again.")],
    data: Annotated[Path, typer.Option(help="The data folder of the gateway that it came from.")],
    as_json: JsonOption = False,
) -> None:
    """Name the viewing session that a leaked recording came from.

    Exit code 0: a mark of this installation was found and proven. 1: none was.
    """
    from gateway.trace import trace_recording

    with errors():
        sessions = trace_recording(clip, data)
    proven = any(session.authentic for session in sessions)
    if as_json:
        for session in sessions:
            sys.stdout.write(msgspec.json.encode(session).decode() + "\n")
    else:
        _print_traced(sessions)
    raise typer.Exit(0 if proven else 1)


def _print_traced(sessions: "list[TracedSession]") -> None:
    if not sessions:
        output.print("no mark found: the recording is not ours, or was encoded again")
    for session in sessions:
        verdict = f"{session.authentic} of {session.keyframes} keyframes proven"
        output.print(f"session {session.session}: {verdict}", highlight=False)
        if session.viewer is not None:
            line = f"  {session.viewer}, {session.unit}; camera {session.camera}; purpose {session.purpose}; "
            output.print(line + f"from {session.started_at}", markup=False, highlight=False)
        else:
            output.print("  the ledger does not know it", highlight=False)


def _print_report(report: "Report", *, as_json: bool) -> None:
    if as_json:
        fields = {**dataclasses.asdict(report), "status": report.status}
        sys.stdout.write(msgspec.json.encode(fields).decode() + "\n")
        return
    colour = {"intact": "green", "unwitnessed": "yellow", "altered": "red"}[report.status]
    output.print(f"[bold {colour}]{report.status}[/]: {report.records} records, {report.heads} signed heads")
    if report.removed:
        output.print(f"The first {report.removed} were removed when their years had passed.")
    if report.status == "unwitnessed":
        output.print("Nobody else's head was given: whoever owns this machine could have rebuilt it all.")
    for finding in report.findings:
        place = "" if finding.seq is None else f" at record {finding.seq}"
        output.print(f"  {finding.code}{place}: {finding.detail}", markup=False, highlight=False)
    if report.findings_total > len(report.findings):
        output.print(f"  and {report.findings_total - len(report.findings)} more")


def main() -> None:
    app()
