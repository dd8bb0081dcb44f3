"""Signed heads in files: those that the ledger published, and those that a witness holds."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import msgspec

from gateway.audit.check import HeadTrail, Report
from gateway.audit.heads import MAX_HEAD_BYTES, HeadFormatError, SignedHead, parse_head
from gateway.audit.key_history import KeyHistory
from gateway.audit.line_files import last_lines

MAX_HEAD_FILE_BYTES = 64 * 1024 * 1024


class VerificationInputError(Exception):
    """There is nothing to verify, or with nothing to verify it: a wrong path, an empty file, a bad key."""

    code = "verification_input"


def published_heads(path: Path, report: Report) -> Iterator[SignedHead]:
    end = path.stat().st_size if path.exists() else 0
    return _head_lines(path, end, report)


def _head_lines(path: Path, end: int, report: Report) -> Iterator[SignedHead]:
    if end == 0:
        return
    with path.open("rb") as file:
        for number in itertools.count(1):
            line = file.readline(min(MAX_HEAD_BYTES + 1, end - file.tell()))
            # a line without its end was being written, or is what a crash left: not published
            if not line or (file.tell() == end and not line.endswith(b"\n")):
                return
            try:
                yield parse_head(line)
            except HeadFormatError:
                report.add("bad_head", f"{path.name}: line {number} is not a signed head")


def witness_trail(held: Path | bytes | None, keys: KeyHistory, report: Report) -> HeadTrail:
    """Heads that somebody else holds: a file, or what was fetched from him. Raise VerificationInputError.

    Of a file of more than `MAX_HEAD_FILE_BYTES` the newest lines count: they say what earlier ones did.
    """
    if held is None:
        return HeadTrail("witness", keys, report)
    name = held.name if isinstance(held, Path) else "the heads that were fetched"
    try:
        heads = [parse_head(text) for text in _head_texts(_read(held))]
    except (OSError, HeadFormatError) as error:
        raise VerificationInputError(f"no signed heads in {name}") from error
    if not heads:
        raise VerificationInputError(f"no signed heads in {name}")
    distinct = {(signed.head, signed.signature): signed for signed in heads}
    ordered = sorted(distinct.values(), key=lambda signed: signed.head.size)
    return HeadTrail(name, keys, report, iter(ordered))


def _read(held: Path | bytes) -> bytes:
    if isinstance(held, bytes):
        return held
    if held.stat().st_size > MAX_HEAD_FILE_BYTES:
        return b"\n".join(last_lines(held, MAX_HEAD_FILE_BYTES))
    return held.read_bytes()


def _head_texts(data: bytes) -> list[bytes]:
    """Lines as in `heads.jsonl`, or one JSON document: a head, a list of heads, or the API's page of them."""
    try:
        document = msgspec.json.decode(data, type=_HeadPage | list[msgspec.Raw])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return [line for line in data.splitlines() if line.strip()]
    return [bytes(item) for item in (document.items if isinstance(document, _HeadPage) else document)]


class _HeadPage(msgspec.Struct, frozen=True):
    items: list[msgspec.Raw]
