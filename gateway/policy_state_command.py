"""`custos policy status | accept | confirm`: asked of a running gateway by a person who logs in."""

import hashlib
import sys
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from gateway.client import DEFAULT_URL, PasswordFileOption, UrlOption, UserOption, ask
from gateway.terminal import JsonOption, errors, fail, output


def status(
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
    as_json: JsonOption = False,
) -> None:
    """Whether grants are frozen, which rows count for nothing, and whether the policies file is accepted."""
    answer = _ask(url, user, password_file, "GET", "/policy")
    if as_json:
        sys.stdout.write(msgspec.json.encode(answer).decode() + "\n")
        return
    file = answer["file"]
    frozen = answer["frozen_since"]
    lines = [
        "no grant is frozen"
        if frozen is None
        else f"{answer['unconfirmed']} grants are frozen since {frozen}",
        f"policies file {file['sha256']}: {'accepted' if file['is_accepted'] else 'not accepted'}",
    ]
    if file["changed_roles"]:
        lines.append(f"roles that give nothing until it is: {', '.join(file['changed_roles'])}")
    lines += [f"{count} of kind {kind} are not in the ledger" for kind, count in answer["void"].items()]
    output.print("\n".join(lines), highlight=False, markup=False, soft_wrap=True)


def accept(
    file: Annotated[Path, typer.Argument(help="The policies file, as the gateway read it when it started.")],
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
) -> None:
    """Let the roles of a changed policies file count. Look at the difference first: `custos policy diff`."""
    try:
        sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        fail("file_unreadable", f"{file}: {error.strerror}")
    _ask(url, user, password_file, "POST", "/policy/file/accept", json={"sha256": sha256})


def confirm(
    department: Annotated[str, typer.Argument(help="Its id; departments below it are meant too.")],
    user: UserOption,
    url: UrlOption = DEFAULT_URL,
    password_file: PasswordFileOption = None,
) -> None:
    """Say of the frozen grants on a department's cameras that they stand: `custos grant list` shows them."""
    answer = _ask(url, user, password_file, "POST", "/policy/confirm", json={"department_id": department})
    output.print(f"{answer['confirmed']} grants confirmed", highlight=False)


def _ask(url: str, user: str, password_file: Path | None, method: str, path: str, **options: Any) -> Any:
    with errors():
        return ask(url, user, password_file, method, path, **options)
