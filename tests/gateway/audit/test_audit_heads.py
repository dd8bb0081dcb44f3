"""Signed heads, keys, and their publication."""

import asyncio
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.heads import (
    HEADS_FILE,
    KEY_FILE,
    MAX_HEAD_BYTES,
    PUBLIC_KEY_FILE,
    HeadFormatError,
    LedgerKeyError,
    SignedHead,
    Signer,
    TreeHead,
    Verifier,
    parse_head,
)
from gateway.audit.publication import HeadPublisher

ROOT = bytes(range(32))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer.create(tmp_path, "custos/test")


def test_what_is_signed_is_a_checkpoint(signer: Signer) -> None:
    signed = signer.sign(12, 7, ROOT, 1_700_000_000_000_000)
    assert signed.head.body().decode().split("\n") == [
        "custos/test",
        "12",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "time 1700000000000000",
        "previous 7",
        "",
    ]
    assert signer.verifier.verify(signed)
    assert parse_head(signed.to_line()) == signed


@pytest.mark.parametrize(
    "change",
    [
        {"size": 13},
        {"previous_size": 6},
        {"root": ROOT[::-1]},
        {"signed_at": 6},
        {"origin": "custos/other"},
    ],
)
def test_no_field_can_be_changed(signer: Signer, change: dict[str, object]) -> None:
    signed = signer.sign(12, 7, ROOT, 5)
    fields = {"origin": "custos/test", "size": 12, "previous_size": 7, "root": ROOT, "signed_at": 5} | change
    assert not signer.verifier.verify(SignedHead(TreeHead(**fields), signed.signature))


def test_the_key_stays_private_and_can_be_read_again(signer: Signer, tmp_path: Path) -> None:
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600
    again = Signer.load(tmp_path, "custos/test")
    assert again.verifier == signer.verifier
    assert (tmp_path / PUBLIC_KEY_FILE).read_text() == signer.verifier.to_text() + "\n"
    assert "PRIVATE" not in repr(signer)
    with pytest.raises(FileExistsError):
        Signer.create(tmp_path, "custos/test")


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerKeyError):
        Signer.load(tmp_path, "custos/test")
    (tmp_path / KEY_FILE).write_bytes(b"-----BEGIN PRIVATE KEY-----\nnothing")
    with pytest.raises(LedgerKeyError):
        Signer.load(tmp_path, "custos/test")
    other = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / KEY_FILE).write_bytes(other)
    with pytest.raises(LedgerKeyError):
        Signer.load(tmp_path, "custos/test")


def test_public_keys_are_verifier_keys_of_signed_notes(signer: Signer) -> None:
    text = signer.verifier.to_text()
    origin, key_id, key = text.split("+", 2)
    assert (origin, len(key_id), len(key)) == ("custos/test", 8, 44)
    assert Verifier.from_text(text + "\n") == signer.verifier
    for wrong in ("", "x", text[:-4], text.replace("test", "tset"), text.replace(key_id, "00000000")):
        with pytest.raises(LedgerKeyError):
            Verifier.from_text(wrong)


@given(st.text(st.characters(), max_size=200))
def test_only_our_own_error_leaves_the_key_parser(text: str) -> None:
    with pytest.raises(LedgerKeyError):
        Verifier.from_text(text)


@given(st.binary(max_size=200))
def test_only_our_own_error_leaves_the_head_parser(data: bytes) -> None:
    with pytest.raises(HeadFormatError):
        parse_head(data)


def test_heads_are_bounded(signer: Signer) -> None:
    line = signer.sign(1, 0, ROOT, 0).to_line()
    assert parse_head(line + b" " * (MAX_HEAD_BYTES - len(line))).head.size == 1
    with pytest.raises(HeadFormatError):
        parse_head(line + b" " * (MAX_HEAD_BYTES + 1 - len(line)))


def sizes(folder: Path) -> list[int]:
    return [json.loads(line)["size"] for line in (folder / HEADS_FILE).read_bytes().splitlines()]


async def test_the_newest_head_is_published_once(signer: Signer, tmp_path: Path) -> None:
    publisher = HeadPublisher(tmp_path, 60, 1000)
    await publisher.publish()
    assert not (tmp_path / HEADS_FILE).exists()
    publisher.offer(signer.sign(1, 0, ROOT, 0))
    publisher.offer(signer.sign(2, 1, ROOT, 0))
    await publisher.publish()
    await publisher.publish()
    publisher.offer(signer.sign(3, 2, ROOT, 0))
    await publisher.publish()
    assert sizes(tmp_path) == [2, 3]
    again = HeadPublisher(tmp_path, 60, 1000)
    again.offer(signer.sign(3, 2, ROOT, 0))
    await again.publish()
    assert sizes(tmp_path) == [2, 3]


async def test_a_line_torn_by_a_crash_is_written_anew(signer: Signer, tmp_path: Path) -> None:
    path = tmp_path / HEADS_FILE
    path.write_bytes(signer.sign(1, 0, ROOT, 0).to_line() + signer.sign(2, 1, ROOT, 0).to_line()[:50])
    publisher = HeadPublisher(tmp_path, 60, 1000)
    publisher.offer(signer.sign(2, 1, ROOT, 0))
    await publisher.publish()
    assert sizes(tmp_path) == [1, 2]


async def published(folder: Path, count: int) -> None:
    """Wait for the file: like any witness."""
    async with asyncio.timeout(10):
        while not (folder / HEADS_FILE).exists() or len(sizes(folder)) < count:
            await asyncio.sleep(0.005)


async def test_heads_are_published_after_so_many_records(signer: Signer, tmp_path: Path) -> None:
    publisher = HeadPublisher(tmp_path, 3600, 1000)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(publisher.run())
        publisher.offer(signer.sign(999, 0, ROOT, 0))
        publisher.offer(signer.sign(1000, 999, ROOT, 0))
        await published(tmp_path, 1)
        running.cancel()
    assert sizes(tmp_path) == [1000]


async def test_heads_are_published_after_some_time(signer: Signer, tmp_path: Path) -> None:
    publisher = HeadPublisher(tmp_path, 0.01, 1000)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(publisher.run())
        publisher.offer(signer.sign(1, 0, ROOT, 0))
        await published(tmp_path, 1)
        running.cancel()
    assert sizes(tmp_path) == [1]


async def test_a_file_that_cannot_be_written_is_tried_again(signer: Signer, tmp_path: Path) -> None:
    publisher = HeadPublisher(tmp_path, 0.01, 1000)
    (tmp_path / HEADS_FILE).mkdir()
    publisher.offer(signer.sign(1, 0, ROOT, 0))
    with pytest.raises(OSError, match="directory"):
        await publisher.publish()
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(publisher.run())
        await asyncio.sleep(0.03)
        (tmp_path / HEADS_FILE).rmdir()
        await published(tmp_path, 1)
        running.cancel()
