"""`custos audit erase` and `custos policy undertaking`, of a running gateway by a person who logs in."""

import sys
from pathlib import Path
from typing import Annotated

import msgspec
import typer

from gateway.client import DEFAULT_URL, PasswordFileOption, UrlOption, UserOption, ask
from gateway.terminal import JsonOption, errors, fail, output

MAX_WORDING_CHARS = 64 * 1024
"""More than the gateway accepts, less than a mistaken file may have."""


def erase(
    record: Annotated[int, typer.Argument(min=0, help="Its number, as an auditor tells it.")],
    field: Annotated[
        list[str],
        typer.Option(
            help="actor_name, content, purpose_reference, purpose_note or remote; may be given several times."
        ),
    ],
    reason: Annotated[str, typer.Option(help="Why; the ledger keeps it.")],
    purpose: Annotated[str, typer.Option(help="One for which the ledger may be read.")],
    user: UserOption,
    reference: Annotated[str | None, typer.Option(help="Its number, where the purpose needs one.")] = None,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
) -> None:
    """Erase what is about a person from a record, for good and on the record; every proof stays good."""
    body = {"fields": field, "reason": reason, "purpose": {"code": purpose, "reference": reference}}
    with errors():
        ask(url, user, password_file, "POST", f"/audit/records/{record}/erasure", json=body)


def undertaking(
    user: UserOption,
    zh: Annotated[Path | None, typer.Option(help="A file with the next version in Chinese.")] = None,
    en: Annotated[Path | None, typer.Option(help="A file with the next version in English.")] = None,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show what everybody undertakes, or publish what is to be accepted before the next picture."""
    if (zh is None) != (en is None):
        fail("usage", "give both --zh and --en")
    with errors():
        if zh is None or en is None:
            answer = ask(url, user, password_file, "GET", "/undertaking")
        else:
            text = {"zh": _wording(zh), "en": _wording(en)}
            answer = ask(url, user, password_file, "POST", "/undertakings", json={"text": text})
    if as_json:
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        return
    words = [f"version {answer['version']}", answer["text"]["zh"], answer["text"]["en"]]
    output.print("\n\n".join(words), highlight=False, markup=False, soft_wrap=True)


def _wording(path: Path) -> str:
    try:
        with path.open(encoding="utf-8") as file:
            text = file.read(MAX_WORDING_CHARS + 1)
    except (OSError, UnicodeDecodeError) as error:
        fail("file_unreadable", f"{path}: {type(error).__name__}")
    if len(text) > MAX_WORDING_CHARS:
        fail("file_unreadable", f"{path}: more than {MAX_WORDING_CHARS} characters")
    return text.strip()
