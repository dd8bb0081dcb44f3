"""`custos grant`, `custos explain` and `custos policy`: parsing and printing; the work is elsewhere.

Grants and explanations are asked of a running gateway, by a person who logs in. Policy files are checked
offline. Exit code 0: done, all as expected, no difference; 1: an expectation failed, or there is a
difference; 2: refused.
"""

import asyncio
import contextlib
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer
from rich.table import Table

from gateway.client import (
    DEFAULT_URL,
    ApiClient,
    ApiError,
    PasswordFileOption,
    UrlOption,
    UserOption,
    ask,
    read_password,
)
from gateway.terminal import EXIT_REFUSED, JsonOption, console, fail, output

if TYPE_CHECKING:
    from gateway.policy_check import Outcome

EXIT_DIFFERENT = 1
PAGE_SIZE = 500
MIN_TABLE_WIDTH = 120
MAX_ROWS = 200
"""Differences in a table; `--json` prints all."""

grant_app = typer.Typer(help="Grants of a running gateway.", no_args_is_help=True)
policy_app = typer.Typer(help="Policies: in files, offline, and the one in force.", no_args_is_help=True)

DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")]
_PARTY = "KIND:ID, as in user:zhang"
SubjectOption = Annotated[str, typer.Option("--subject", help=f"user, role or department; {_PARTY}.")]
ObjectOption = Annotated[str, typer.Option("--object", help=f"camera, group, tag or department; {_PARTY}.")]


@grant_app.command("create")
def grant_create(
    subject: SubjectOption,
    target: ObjectOption,
    user: UserOption,
    action: Annotated[list[str], typer.Option(help="As live:view; may be given several times.")],
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    effect: Annotated[str, typer.Option(help="allow or deny.")] = "allow",
    valid_from: Annotated[str | None, typer.Option("--from", help="ISO 8601, with a zone.")] = None,
    valid_to: Annotated[str | None, typer.Option("--to", help="ISO 8601, with a zone.")] = None,
    window: Annotated[
        list[str] | None, typer.Option(help="DAYS@START-END, as 12345@08:00-18:00; 1 is Monday.")
    ] = None,
    zone: Annotated[str, typer.Option(help="The time zone of the windows.")] = "Asia/Shanghai",
    purpose: Annotated[list[str] | None, typer.Option(help="Only for this purpose.")] = None,
    watermark: Annotated[str | None, typer.Option(help="none, visible or burned-in.")] = None,
    max_duration: Annotated[int | None, typer.Option(help="Of a session, in seconds.")] = None,
    max_height: Annotated[int | None, typer.Option(help="Of the picture, in pixels.")] = None,
    max_concurrent: Annotated[int | None, typer.Option(help="Sessions at once by this grant.")] = None,
    reason: Annotated[str, typer.Option(help="Why; the ledger keeps it.")] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Grant actions on cameras to somebody, or deny them."""
    obligations = {
        "watermark": watermark,
        "max_duration_seconds": max_duration,
        "max_height": max_height,
        "max_concurrent": max_concurrent,
    }
    body = {
        "subject": _party(subject, "--subject"),
        "object": _party(target, "--object"),
        "actions": action,
        "effect": effect,
        "valid_from": valid_from,
        "valid_to": valid_to,
        "schedule": {"zone": zone, "windows": [_window(text) for text in window]} if window else None,
        "purposes": purpose or None,
        "obligations": {name: value for name, value in obligations.items() if value is not None},
        "reason": reason,
    }
    with _refusals():
        answer = ask(url, user, password_file, "POST", "/grants", json=body, params=_dry(dry_run=dry_run))
    if dry_run:
        _print_rehearsal(answer, as_json=as_json)
    elif as_json:
        _print_line(answer)
    else:
        output.print(answer["id"], highlight=False, markup=False)


@grant_app.command("list")
def grant_list(
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    subject: Annotated[str | None, typer.Option(help=f"Only to this one; {_PARTY}.")] = None,
    target: Annotated[str | None, typer.Option("--object", help=f"Only on this one; {_PARTY}.")] = None,
    active: Annotated[
        bool, typer.Option("--active", help="Only those that have begun and are not over.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Grants on what you share, those that you gave, and those that you have."""
    params = {"page_size": str(PAGE_SIZE), "active": str(active).lower()}
    for name, text, option in (("subject", subject, "--subject"), ("object", target, "--object")):
        if text is not None:
            party = _party(text, option)
            params |= {f"{name}_kind": party["kind"], name: party["id"]}
    with _refusals():
        items = asyncio.run(_pages(url, user, read_password(password_file), "/grants", params))
    if as_json:
        for item in items:
            _print_line(item)
        return
    table = Table()
    table.add_column("grant", no_wrap=True)
    for heading in ("effect", "subject", "object", "actions", "until", "for", "given by"):
        table.add_column(heading, overflow="fold")
    for item in items:
        table.add_row(
            item["id"],
            item["effect"],
            *(f"{item[part]['kind']}:{item[part]['id']}" for part in ("subject", "object")),
            ", ".join(item["actions"]),
            item["valid_to"] or "",
            "any purpose" if item["purposes"] is None else ", ".join(item["purposes"]),
            item["created_by"],
        )
    # whoever revokes needs the whole id, however narrow the terminal
    output.print(table, crop=False, overflow="ignore", width=max(output.width, MIN_TABLE_WIDTH))


@grant_app.command("revoke")
def grant_revoke(
    grant: Annotated[str, typer.Argument(help="Its id.")],
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    reason: Annotated[str, typer.Option(help="Why; the ledger keeps it.")] = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Revoke a grant and all that was given by right of it; their pictures end within a second."""
    with _refusals():
        answer = ask(
            url,
            user,
            password_file,
            "DELETE",
            f"/grants/{grant}",
            params={"reason": reason, **_dry(dry_run=dry_run)},
        )
    if dry_run:
        _print_rehearsal(answer, as_json=as_json)


def explain(
    principal: Annotated[str, typer.Option("--user", help="The id of the person who is asked about.")],
    camera: Annotated[str, typer.Option(help="Its id.")],
    login: Annotated[
        str, typer.Option("--as", prompt="User name", envvar="CUSTOS_USER", help="Who logs in.")
    ],
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    action: Annotated[str, typer.Option(help="As live:view.")] = "live:view",
    purpose: Annotated[str | None, typer.Option(help="The purpose that is declared.")] = None,
    lang: Annotated[str, typer.Option(help="zh or en.")] = "en",
    as_json: JsonOption = False,
) -> None:
    """Why somebody may, or may not: the rule that decided, all that matched, and what nearly did."""
    if lang not in {"zh", "en"}:
        fail("usage", "--lang: zh or en")
    params = {"camera": camera, "action": action, "principal": principal}
    if purpose is not None:
        params["purpose"] = purpose
    with _refusals():
        answer = ask(url, login, password_file, "GET", "/explain", params=params)
    if as_json:
        _print_line(answer)
    else:
        output.print(answer["text"][lang], highlight=False, markup=False, soft_wrap=True)


@policy_app.command("test")
def policy_test(
    file: Annotated[Path, typer.Argument(help="A policy and what is expected of it, in YAML.")],
    as_json: JsonOption = False,
) -> None:
    """Hold a policy to what is expected of it. Exit code 1: something came out otherwise."""
    from gateway.policy_check import hold
    from gateway.policy_file import read_policy

    with _refusals():
        outcomes = hold(read_policy(file))
    failed = [outcome for outcome in outcomes if not outcome.passed]
    if as_json:
        for outcome in outcomes:
            _print_line(outcome)
    else:
        if failed:
            output.print(_failures(failed))
        output.print(f"{len(outcomes) - len(failed)} of {len(outcomes)} as expected", highlight=False)
    raise typer.Exit(EXIT_DIFFERENT if failed else 0)


@policy_app.command("diff")
def policy_diff(
    old: Annotated[Path, typer.Argument(help="A policy in YAML, or a policies file.")],
    new: Annotated[Path, typer.Argument(help="The same, changed.")],
    at: Annotated[str | None, typer.Option(help="When, ISO 8601 with a zone; without it, now.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Who gains and who loses what between two policies. Exit code 1: somebody does."""
    from gateway.policy_check import access_changes, role_changes
    from gateway.policy_file import read_policy

    moment = _moment(at)
    with _refusals():
        before, after = read_policy(old), read_policy(new)
    roles = list(role_changes(before.roles, after.roles))
    accesses = list(access_changes(before, after, moment))
    if as_json:
        for change in (*roles, *accesses):
            _print_line(change)
    elif roles or accesses:
        _print_changes(
            "Roles", ("role", "", "scope", "action"), [(c.role, c.change, c.scope, c.action) for c in roles]
        )
        _print_changes(
            "People",
            ("user", "", "camera", "action"),
            [(c.user, c.change, c.camera, c.action) for c in accesses],
        )
    else:
        output.print("no difference")
    raise typer.Exit(EXIT_DIFFERENT if roles or accesses else 0)


async def _pages(url: str, user: str, password: str, path: str, params: dict[str, str]) -> list[Any]:
    items: list[Any] = []
    async with ApiClient.open(url, user, password) as client:
        while True:
            page = await client.request("GET", path, params=params)
            items += page["items"]
            if page["next_page_token"] is None:
                return items
            params = {**params, "page_token": page["next_page_token"]}


@contextlib.contextmanager
def _refusals() -> Iterator[None]:
    """What the gateway or a file refuses becomes a line with its code, and exit code 2."""
    from gateway.strict_yaml import FileRefusedError

    try:
        yield
    except ApiError as error:
        fail(error.code, str(error))
    except FileRefusedError as error:
        console.print(str(error), markup=False, highlight=False, soft_wrap=True)
        raise typer.Exit(EXIT_REFUSED) from None


def _party(text: str, option: str) -> dict[str, str]:
    kind, separator, identifier = text.partition(":")
    if not (kind and separator and identifier):
        fail("usage", f"{option}: {_PARTY}")
    return {"kind": kind, "id": identifier}


def _window(text: str) -> dict[str, object]:
    days, separator, hours = text.partition("@")
    start, dash, end = hours.partition("-")
    if not (separator and dash and days.isascii() and days.isdigit()):
        fail("usage", "--window: DAYS@START-END, as 12345@08:00-18:00")
    return {"days": [int(day) for day in days], "start": start, "end": end}


def _dry(*, dry_run: bool) -> dict[str, str]:
    return {"dry_run": "true"} if dry_run else {}


def _moment(text: str | None) -> datetime:
    if text is None:
        return datetime.now(UTC)
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        fail("usage", "--at: ISO 8601, as 2026-01-05T08:00:00+08:00")
    if moment.tzinfo is None:
        fail("usage", "--at: with a zone")
    return moment


def _print_line(value: object) -> None:
    sys.stdout.write(msgspec.json.encode(value).decode() + "\n")


def _failures(failed: "list[Outcome]") -> Table:
    table = Table("line", "user", "camera", "action", "purpose", "at", "expected", "decided", "rule")
    for outcome in failed:
        table.add_row(
            str(outcome.line),
            outcome.user,
            outcome.camera,
            outcome.action,
            outcome.purpose or "",
            outcome.at.isoformat(),
            outcome.expected,
            outcome.decided,
            outcome.rule or "",
        )
    return table


def _print_changes(title: str, headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    if not rows:
        return
    table = Table(*headings, title=title, title_justify="left")
    for row in rows[:MAX_ROWS]:
        table.add_row(*row)
    output.print(table)
    if len(rows) > MAX_ROWS:
        output.print(f"and {len(rows) - MAX_ROWS} more: --json prints all", highlight=False)


def _print_rehearsal(told: Any, *, as_json: bool) -> None:
    if as_json:
        _print_line(told)
        return
    for name, title in (("gains", "Gains"), ("losses", "Losses")):
        rows = [(item["user"], item["camera"], item["action"]) for item in told[name]["items"]]
        _print_changes(f"{title}: {told[name]['count']}", ("user", "camera", "action"), rows)
    sessions = [(item["id"], item["user_name"], item["camera"]) for item in told["sessions"]]
    _print_changes(
        f"Sessions that would end: {told['session_count']}", ("session", "user", "camera"), sessions
    )
    if not (told["gains"]["count"] or told["losses"]["count"] or told["session_count"]):
        output.print("nobody gains or loses anything, and nothing would end")
    if told["truncated"]:
        output.print("It reaches more people than were asked about: these are the least.")
