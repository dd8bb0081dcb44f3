"""The mutation campaign: whatever is done to a ledger's file or export is found, and nothing else is."""

import asyncio
import random
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import pytest
from support.campaigns import TIMEOUT_SECONDS, length
from support.ledger_mutations import (
    CSV_MUTATIONS,
    DATABASE_MUTATIONS,
    LINE_MUTATIONS,
    NEED_NODES,
    ended,
    forge_line,
    mutate,
    rebuild,
    resigned,
    restore,
)
from support.ledgers import DATABASE, Written, write_ledger

from gateway.audit.export import FORMATS
from gateway.audit.heads import HEADS_FILE
from gateway.audit.lines import HeadLine
from gateway.audit.verify import VerificationInputError, verify_data_folder, verify_export

T = TypeVar("T")
LONG = [pytest.mark.slow, pytest.mark.timeout(TIMEOUT_SECONDS)]
CAMPAIGN = pytest.param(length(10_000, 600), marks=LONG)
"""Of the file and the two exports together."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return asyncio.run(write_ledger(tmp_path_factory.mktemp("small"), 40, 8))


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Written:
    """With a stored node."""
    return asyncio.run(write_ledger(tmp_path_factory.mktemp("large")))


def drawn(mutations: Mapping[str, tuple[T, int]], times: int, rng: random.Random) -> Iterable[tuple[str, T]]:
    """Each at least once, the rest by weight."""
    names, weights = list(mutations), [weight for _, weight in mutations.values()]
    for name in names + rng.choices(names, weights, k=max(0, times - len(names))):
        yield name, mutations[name][0]


def told(capsys: pytest.CaptureFixture[str], what: str, counts: Counter[str]) -> None:
    with capsys.disabled():
        print(f"\n{what}: {counts.total()} mutations, all found")  # noqa: T201
        for name, count in sorted(counts.items()):
            print(f"  {count:5} {name}")  # noqa: T201


@pytest.mark.parametrize("times", [200, CAMPAIGN])
def test_whatever_is_done_to_the_database_is_found(
    small: Written, large: Written, tmp_path: Path, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(times)
    counts: Counter[str] = Counter()
    folders = {id(written): written.copied(tmp_path / str(id(written))) for written in (small, large)}
    mutations = {**DATABASE_MUTATIONS, "restore an older database": (None, 4)}
    for name, mutation in drawn(mutations, times * 4 // 10, rng):
        written = large if name in NEED_NODES else small
        folder = folders[id(written)]
        (folder / DATABASE).write_bytes(written.database)
        what = restore(written, folder, rng) if mutation is None else mutate(folder, mutation, rng)
        report = verify_data_folder(folder)
        assert (report.exit_code, bool(report.findings)) == (1, True), what
        counts[name] += 1
    told(capsys, "database", counts)


@pytest.mark.parametrize("times", [200, CAMPAIGN])
@pytest.mark.parametrize(("name", "mutations"), [("jsonl", LINE_MUTATIONS), ("csv", CSV_MUTATIONS)])
def test_whatever_is_done_to_an_export_is_found(
    small: Written, tmp_path: Path, name: str, mutations, times: int, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(f"{name} {times}")
    counts: Counter[str] = Counter()
    form = FORMATS[name]
    lines = small.exports[name].splitlines(keepends=True)
    spoilt = tmp_path / "spoilt"
    for kind, mutation in drawn(mutations, times * 3 // 10, rng):
        changed = mutation(form, lines, rng)
        spoilt.write_bytes(b"".join(changed))
        try:
            report = verify_export(spoilt, small.verifier)
        except VerificationInputError:
            # without its beginning it is no export
            assert changed[:2] != lines[:2]
        else:
            difference = [pair for pair in zip(lines, changed, strict=False) if pair[0] != pair[1]][:1]
            assert (report.exit_code, bool(report.findings)) == (1, True), (kind, difference)
        counts[kind] += 1
    told(capsys, name, counts)


def test_nothing_is_found_where_nothing_was_done(small: Written, large: Written, tmp_path: Path) -> None:
    for written in (small, large):
        folder = written.copied(tmp_path / f"copy {id(written)}")
        (folder / HEADS_FILE).unlink()
        for database in written.older:
            (folder / DATABASE).write_bytes(database)
            report = verify_data_folder(folder)
            assert (report.findings, report.status) == ([], "unwitnessed")
        for name, export in written.exports.items():
            file = tmp_path / name
            file.write_bytes(export)
            report = verify_export(file, written.verifier, written.heads)
            assert (report.findings, report.status) == ([], "intact")


@pytest.mark.parametrize("times", [8, pytest.param(length(500, 24), marks=LONG)])
def test_what_only_a_head_held_elsewhere_can_show_is_shown_by_one(
    small: Written, tmp_path: Path, times: int
) -> None:
    """Clean truncation, rollback of everything, and a ledger rebuilt with the key."""
    rng = random.Random(times)
    folder, export = small.copied(tmp_path / "copy"), tmp_path / "export"
    (folder / HEADS_FILE).unlink()

    def is_shown(verify) -> bool:
        return (verify(None).status, verify(small.heads).exit_code) == ("unwitnessed", 1)

    for _ in range(times):
        (folder / DATABASE).write_bytes(rng.choice(small.older[:-1]))
        assert is_shown(lambda head: verify_data_folder(folder, head))

        (folder / DATABASE).write_bytes(small.database)
        mutate(folder, rebuild(small.signer), rng)
        assert is_shown(lambda head: verify_data_folder(folder, head))

        for name, form in FORMATS.items():
            lines = small.exports[name].splitlines(keepends=True)
            heads = [i for i, line in enumerate(lines) if isinstance(form.read(line), HeadLine)]
            # where nothing erased is left without the record that says so
            shorter = ended(form, lines[: rng.choice(heads[-4:-1]) + 1])
            rebuilt = resigned(form, forge_line(form, lines, rng), small.signer)
            for changed in (shorter, rebuilt):
                export.write_bytes(b"".join(changed))
                assert is_shown(lambda head: verify_export(export, small.verifier, head))
