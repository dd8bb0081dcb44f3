"""`custos witness` and `custos audit rotate-key`: parsing and printing; the work is elsewhere."""

import asyncio
import contextlib
import signal
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import msgspec
import typer

from gateway.client import DEFAULT_URL, PasswordFileOption, UrlOption, UserOption, ask
from gateway.terminal import JsonOption, errors, fail, output

if TYPE_CHECKING:
    from gateway.witness.witness import Witness

EXIT_ALARM = 1


@dataclass(frozen=True)
class WitnessOptions:
    """`listen`: host and port, None: serve nothing."""

    gateway: str
    key: str
    state: Path
    every_seconds: float
    listen: tuple[str, int] | None
    once: bool
    as_json: bool


def witness(
    url: Annotated[str, typer.Argument(help="Where the gateway is: http(s)://HOST[:PORT].")],
    key: Annotated[str, typer.Option(help="Its first public key, or a file that holds it.")],
    state: Annotated[Path, typer.Option(help="The file of heads that is kept.")],
    every: Annotated[float, typer.Option(min=1.0, max=60.0, help="Seconds between two questions.")] = 60.0,
    listen: Annotated[str | None, typer.Option(help="HOST:PORT to show heads and status on.")] = None,
    once: Annotated[bool, typer.Option("--once", help="Ask once; exit code 1 if it alarms.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Hold a gateway's signed heads in another department, and alarm on a fork, a rollback or silence.

    The file is for `custos audit verify --head`. An alarm ends nothing. Exit code of --once: 0 all is well,
    1 an alarm or no answer.
    """
    options = WitnessOptions(url, key, state, every, _host_and_port(listen), once, as_json)
    with errors():
        is_well = asyncio.run(_witness(options))
    if once and not is_well:
        raise typer.Exit(EXIT_ALARM)


def _host_and_port(listen: str | None) -> tuple[str, int] | None:
    if listen is None:
        return None
    host, _, port = listen.rpartition(":")
    if not host or not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - RFC 9293
        fail("usage", "--listen takes HOST:PORT")
    return host.strip("[]"), int(port)


async def _witness(options: WitnessOptions) -> bool:
    """Whether all was well at the end."""
    from gateway.audit.verify import load_public_key
    from gateway.bounded_fetch import fetching, parse_address
    from gateway.clock import system_clock
    from gateway.witness.server import serving, status
    from gateway.witness.source import GatewaySource
    from gateway.witness.state import Alarm, AlarmOver, WitnessState, WitnessStateError
    from gateway.witness.witness import Witness

    def told(event: Alarm | AlarmOver) -> None:
        if options.as_json:
            sys.stdout.write(msgspec.json.encode(event).decode() + "\n")
            sys.stdout.flush()
            return
        at = datetime.fromtimestamp(event.at / 1e6, UTC).isoformat(timespec="seconds")
        if isinstance(event, Alarm):
            output.print(f"[bold red]alarm[/] {event.code} {at}", end=" ", highlight=False)
            output.print(event.detail, markup=False, highlight=False, soft_wrap=True)
        else:
            output.print(f"[green]over[/] {event.code} {at}", highlight=False)

    try:
        held = WitnessState(options.state, load_public_key(options.key))
    except OSError as error:
        raise WitnessStateError(f"{options.state}: {error.strerror}") from error
    async with fetching() as http:
        source = GatewaySource(http, parse_address(options.gateway))
        observer = Witness(source, held, system_clock, time.monotonic, told)
        if options.once:
            await observer.pull()
            _print_status(observer.last_error, held.held_size, as_json=options.as_json)
            return status(observer).ok
        async with contextlib.AsyncExitStack() as stack:
            if options.listen is not None:
                try:
                    port = await stack.enter_async_context(serving(observer, *options.listen))
                except OSError as error:
                    fail("cannot_listen", f"{options.listen[0]}: {error.strerror}")
                if not options.as_json:
                    output.print(f"listening on http://{options.listen[0]}:{port}", highlight=False)
            await _until_ended(observer, options.every_seconds)
    return True


async def _until_ended(observer: "Witness", every_seconds: float) -> None:
    """Until SIGTERM or SIGINT."""
    async with asyncio.TaskGroup() as tasks:
        pulling = tasks.create_task(observer.run(every_seconds))
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, pulling.cancel)


def _print_status(last_error: str | None, held_size: int, *, as_json: bool) -> None:
    if as_json:
        line = {"type": "status", "held_size": held_size, "last_error": last_error}
        sys.stdout.write(msgspec.json.encode(line).decode() + "\n")
    elif last_error is None:
        output.print(f"{held_size} records are witnessed", highlight=False)
    else:
        output.print(last_error, markup=False, highlight=False, soft_wrap=True)


def rotate_key(
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Sign the ledger's heads with a new key from now on; what was signed with the old one still verifies."""
    with errors():
        answer = ask(url, user, password_file, "POST", "/audit/keys")
    if as_json:
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
    else:
        output.print(f"heads of more than {answer['after_size']} records are signed with", highlight=False)
        output.print(answer["public_key"], highlight=False, markup=False, soft_wrap=True)
