"""What all commands share: where they print, and how an expected failure looks."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console

EXIT_REFUSED = 2
_OURS = ("gateway.", "policies.", "streams.", "analytics.")

console = Console(stderr=True)
output = Console()

JsonOption = Annotated[bool, typer.Option("--json", help="Print machine-readable lines.")]


def config_folder() -> Path:
    """`config` of the source tree, or where the wheel put it."""
    beside = Path(__file__).resolve().parent.parent / "config"
    return beside if beside.is_dir() else Path(sys.prefix) / "share" / "custos"


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """Expected failures, which carry a `code`, become one line and exit code 2; bugs keep their traceback."""
    try:
        yield
    except Exception as error:
        cause = _first(error)
        code = getattr(cause, "code", None)
        if not isinstance(code, str) or not type(cause).__module__.startswith(_OURS):
            raise
        fail(code, str(cause))


def fail(code: str, message: str) -> NoReturn:
    console.print(f"[bold red]error[/] {code}:", end=" ")
    console.print(message, markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(EXIT_REFUSED)


def _first(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
