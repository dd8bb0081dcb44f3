"""The offline verifier: finds every alteration, raises no false alarm, and says what it cannot know."""

import asyncio
import random
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.databases import looked
from support.ledgers import DATABASE, RECORDS, Written, write_ledger

from gateway.audit.check import MAX_FINDINGS
from gateway.audit.heads import HEADS_FILE, KEY_FILE, PUBLIC_KEY_FILE, Verifier
from gateway.audit.verify import (
    VerificationInputError,
    load_public_key,
    verify_data_folder,
    verify_export,
)
from gateway.store.store import Store, StoreSettings


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Written:
    return asyncio.run(write_ledger(tmp_path_factory.mktemp("original")))


@pytest.fixture
def original(written: Written) -> Path:
    return written.folder


@pytest.fixture
def folder(written: Written, tmp_path: Path) -> Path:
    """A copy to spoil."""
    return written.copied(tmp_path / "copy")


@pytest.fixture(params=["jsonl", "csv"])
def export(request: pytest.FixtureRequest, written: Written, tmp_path: Path) -> Path:
    file = tmp_path / f"ledger.{request.param}"
    file.write_bytes(written.exports[request.param])
    return file


def key_of(folder: Path) -> Verifier:
    return load_public_key(str(folder / PUBLIC_KEY_FILE))


def restored(original: Path, folder: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        (folder / f"{DATABASE}{suffix}").unlink(missing_ok=True)
    shutil.copy(original / DATABASE, folder / DATABASE)


def test_what_nobody_touched_is_intact_once_witnessed(original: Path, tmp_path: Path) -> None:
    seen: list[int] = []
    alone = verify_data_folder(original)
    assert (alone.findings, alone.status, alone.exit_code) == ([], "unwitnessed", 3)
    assert (alone.records, alone.heads, alone.published_heads) == (RECORDS, 29, 2)
    witness = tmp_path / "held-elsewhere.jsonl"
    first, last = (original / HEADS_FILE).read_bytes().splitlines()
    witness.write_bytes(first + b"\n")
    witnessed = verify_data_folder(original, witness, progress=seen.append)
    assert (witnessed.status, witnessed.exit_code) == ("intact", 0)
    assert witnessed.witnessed_size is not None
    assert 0 < witnessed.witnessed_size < RECORDS
    for document in (last, b"[%b, %b]" % (last, first), b'{"items": [%b], "next_page_token": null}' % last):
        witness.write_bytes(document)
        assert verify_data_folder(original, witness).witnessed_size == RECORDS


def test_a_finding_names_the_record(original: Path, folder: Path) -> None:
    with closing(sqlite3.connect(folder / "custos.db")) as connection, connection:
        connection.execute("UPDATE audit_records SET unit_name = 'x' WHERE seq = 17")
    assert [(f.code, f.seq) for f in verify_data_folder(folder).findings] == [("columns", 17)]
    restored(original, folder)
    with closing(sqlite3.connect(folder / "custos.db")) as connection, connection:
        connection.execute("DELETE FROM audit_subjects WHERE seq = 20 AND subject = 'owner:d2'")
        connection.execute("INSERT INTO audit_subjects VALUES (21, 'camera:c2'), (300, 'owner:d2')")
    assert [(f.code, f.seq) for f in verify_data_folder(folder).findings] == [
        ("columns", 20),
        ("columns", 21),
        ("columns", None),
    ]
    restored(original, folder)
    with closing(sqlite3.connect(folder / "custos.db")) as connection, connection:
        connection.execute("DELETE FROM audit_records WHERE seq = 40")
    report = verify_data_folder(folder)
    assert (report.findings[0].code, report.findings[0].seq) == ("missing", 40)
    assert len(report.findings) == MAX_FINDINGS < report.findings_total


def test_bits_that_flip_in_the_file_are_found_or_harmless(original: Path, folder: Path) -> None:
    """Wherever the flip is, the verifier answers; where it is in a record, it finds it."""
    rng = random.Random(5)
    data = (original / "custos.db").read_bytes()
    leaves = [i for i in range(len(data) - 8) if data[i : i + 8] == b'"kind":"']
    for position in rng.sample(leaves, 10):
        flipped = bytearray(data)
        flipped[position + 9] ^= 4
        restored(original, folder)
        (folder / "custos.db").write_bytes(flipped)
        assert verify_data_folder(folder).exit_code == 1
    for position in rng.sample(range(len(data)), 30):
        flipped = bytearray(data)
        flipped[position] ^= 1 << rng.randrange(8)
        restored(original, folder)
        (folder / "custos.db").write_bytes(flipped)
        assert verify_data_folder(folder).exit_code in (1, 3)


def test_published_heads_are_held_against_the_records(folder: Path) -> None:
    path = folder / HEADS_FILE
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"size":300', b'"size":301'))
    assert verify_data_folder(folder).findings[0].code == "bad_signature"
    path.write_bytes(b"{}\n" + whole)
    assert verify_data_folder(folder).findings[0].code == "bad_head"
    first, last = whole.splitlines(keepends=True)
    path.write_bytes(last + first)
    assert verify_data_folder(folder).findings[0].code == "head_order"
    path.write_bytes(whole + last[:40])
    assert verify_data_folder(folder).exit_code == 3


async def test_an_older_copy_is_found_by_a_head_held_elsewhere(folder: Path, tmp_path: Path) -> None:
    older = Path(shutil.copytree(folder, tmp_path / "older"))
    async with Store.open(StoreSettings(folder)) as store:
        await store.record(looked("what somebody would rather undo"))
    witness = tmp_path / "witness.jsonl"
    shutil.copy(folder / HEADS_FILE, witness)
    assert verify_data_folder(older).exit_code == 3
    report = verify_data_folder(older, witness)
    assert ([f.code for f in report.findings], report.exit_code) == (["truncated"], 1)
    # a database rolled back under its own published heads needs no witness
    shutil.copy(folder / HEADS_FILE, older / HEADS_FILE)
    assert verify_data_folder(older).exit_code == 1


async def test_a_ledger_rebuilt_with_the_stolen_key_is_found_by_a_witness(
    folder: Path, tmp_path: Path
) -> None:
    witness = tmp_path / "witness.jsonl"
    shutil.copy(folder / HEADS_FILE, witness)
    for name in ("audit_subjects", "audit_records", "audit_heads", "audit_nodes"):
        with closing(sqlite3.connect(folder / "custos.db")) as connection, connection:
            connection.execute(f"DELETE FROM {name}")  # noqa: S608
            connection.execute("UPDATE audit_state SET size = 0, frontier = x'', last_at = 0")
    (folder / HEADS_FILE).unlink()
    async with Store.open(StoreSettings(folder)) as store:
        await store.record(*(looked(f"innocent {i}") for i in range(RECORDS)))
    assert verify_data_folder(folder).exit_code == 3
    report = verify_data_folder(folder, witness)
    assert ([f.code for f in report.findings], report.exit_code) == (["root_mismatch"], 1)


async def test_a_ledger_of_another_key_is_found(folder: Path, tmp_path: Path) -> None:
    key = key_of(folder)
    witness = tmp_path / "witness.jsonl"
    shutil.copy(folder / HEADS_FILE, witness)
    other = tmp_path / "other"
    other.mkdir()
    await write_ledger(other, 5, 2)
    assert verify_data_folder(other).exit_code == 3
    assert verify_data_folder(other, public_key=key).exit_code == 1
    assert verify_data_folder(other, witness).exit_code == 1


async def test_a_running_gateway_can_be_verified(folder: Path) -> None:
    async with Store.open(StoreSettings(folder)) as store:
        await store.record(looked())
        report = await asyncio.to_thread(verify_data_folder, folder)
    assert (report.records, report.exit_code) == (RECORDS + 1, 3)


async def test_an_empty_ledger_is_consistent(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)):
        pass
    assert verify_data_folder(tmp_path).exit_code == 3


def test_an_export_verifies_with_the_key_alone(original: Path, export: Path, tmp_path: Path) -> None:
    key = load_public_key((original / PUBLIC_KEY_FILE).read_text())
    alone = verify_export(export, key)
    assert (alone.findings, alone.exit_code, alone.records, alone.heads) == ([], 3, RECORDS, 29)
    assert verify_export(export, key, original / HEADS_FILE).exit_code == 0
    shorter = tmp_path / "older-head"
    shorter.write_bytes((original / HEADS_FILE).read_bytes().splitlines()[0])
    assert verify_export(export, key, shorter).exit_code == 0


def test_an_export_of_another_ledger_is_found(export: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    asyncio.run(write_ledger(other, 5, 2))
    assert verify_export(export, key_of(other)).exit_code == 1


def test_wrong_inputs_are_told_apart_from_alterations(folder: Path, export: Path, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.write_bytes(b"")
    text = tmp_path / "text"
    text.write_bytes(b"\xff\xfe hello\n")
    key = key_of(folder)
    for call in (
        lambda: verify_data_folder(tmp_path),
        lambda: verify_data_folder(folder, tmp_path / "none"),
        lambda: verify_data_folder(folder, empty),
        lambda: verify_data_folder(folder, text),
        lambda: verify_export(tmp_path / "none", key),
        lambda: verify_export(empty, key),
        lambda: verify_export(text, key),
        lambda: verify_export(export, key, folder / KEY_FILE),
        lambda: load_public_key("nothing"),
        lambda: load_public_key(str(text)),
        lambda: load_public_key("x" * 5000),
    ):
        with pytest.raises(VerificationInputError):
            call()
    (folder / PUBLIC_KEY_FILE).unlink()
    with pytest.raises(VerificationInputError):
        verify_data_folder(folder)
    assert verify_data_folder(folder, public_key=key).exit_code == 3
