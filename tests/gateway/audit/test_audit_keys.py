"""Changing the ledger's key: what is signed with which, what verifies, and a crash between any two steps."""

import asyncio
import contextlib
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from msgspec import Raw
from support.databases import looked

from gateway.audit.export import FORMATS, export_chunks
from gateway.audit.heads import (
    HEADS_FILE,
    KEY_FILE,
    NEXT_KEY_FILE,
    PUBLIC_KEY_FILE,
    LedgerKeyError,
    SignedHead,
    Signer,
    Verifier,
)
from gateway.audit.key_history import (
    PUBLIC_KEY_DETAIL,
    KeyChainError,
    KeyHistory,
    Rotation,
    RotationJson,
    follow,
    parse_rotation,
)
from gateway.audit.merkle import HASH_BYTES
from gateway.audit.records import AuditKind
from gateway.audit.verify import verify_data_folder, verify_export
from gateway.store.errors import StoreBusyError, StoreUnavailableError
from gateway.store.ledger import signed_head
from gateway.store.schema import audit_heads, audit_keys
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit


async def change(store: Store, signer: Signer | None = None) -> Signer:
    new = signer or Signer.generate(store.verifier.origin)
    event = looked(
        "change the key",
        kind=AuditKind.SIGNING_KEY_CHANGED,
        detail={PUBLIC_KEY_DETAIL: new.verifier.to_text()},
    )

    async def unit(work: Unit) -> None:
        work.change_key(event, new)

    await store.run(unit)
    return new


async def rotations(store: Store) -> list[Rotation]:
    async with store.read() as conn:
        joined = sa.select(audit_keys, audit_heads).join(
            audit_heads, audit_heads.c.tree_size == audit_keys.c.after_size
        )
        return [
            Rotation(
                row.leaf,
                tuple(row.path[i : i + HASH_BYTES] for i in range(0, len(row.path), HASH_BYTES)),
                signed_head(row, store.verifier.origin),
            )
            for row in await conn.execute(joined.order_by(audit_keys.c.after_size))
        ]


async def heads(store: Store) -> list[SignedHead]:
    async with store.read() as conn:
        rows = await conn.execute(sa.select(audit_heads).order_by(audit_heads.c.tree_size))
        return [signed_head(row, store.verifier.origin) for row in rows]


async def test_three_rotations_are_one_chain(store_settings: StoreSettings) -> None:
    folder = store_settings.data_folder
    keys = [(await _opened_key(store_settings))]
    for number in range(3):
        async with Store.open(store_settings) as store:
            await store.record(looked(f"before {number}"))
            keys.append((await change(store)).verifier)
            await store.record(looked(f"after {number}"))
            assert store.verifier == keys[0]
    async with Store.open(store_settings) as store:
        await store.record(looked("last"))
        chain = follow(store.verifier, await rotations(store))
        assert [chain.verifier_of(n).key for n in (1, 2, 3, 5, 6, 8, 9)] == [
            key.key for key in (keys[0], keys[0], keys[1], keys[1], keys[2], keys[2], keys[3])
        ]
        assert all(chain.verify(head) for head in await heads(store))
        assert chain.verifier_at(2) == keys[1]
        async with store.read() as conn:
            exports = [
                b"".join([chunk async for chunk in export_chunks(conn, store.verifier, form)])
                for form in FORMATS.values()
            ]
    for export in exports:
        (folder / "export").write_bytes(export)
        assert verify_export(folder / "export", keys[0], folder / HEADS_FILE).exit_code == 0
        assert verify_export(folder / "export", keys[1]).exit_code == 1
    if store_settings.url is None:
        report = verify_data_folder(folder, folder / HEADS_FILE)
        assert (report.findings, report.exit_code) == ([], 0)
    assert Signer.load(folder, keys[0].origin).verifier == keys[3]
    assert (folder / PUBLIC_KEY_FILE).read_text().strip() == keys[0].to_text()
    assert not (folder / NEXT_KEY_FILE).exists()


async def _opened_key(settings: StoreSettings) -> Verifier:
    async with Store.open(settings) as store:
        return store.verifier


async def test_the_record_is_the_last_of_its_commit_and_there_is_one(store_settings: StoreSettings) -> None:
    async with Store.open(store_settings) as store:
        await store.record(looked("before"))
        done = await asyncio.gather(
            *(store.record(looked(f"same commit {i}")) for i in range(3)),
            change(store),
            change(store),
            *(store.record(looked(f"same commit {i}")) for i in range(3, 6)),
            return_exceptions=True,
        )
        assert [type(answer) for answer in done if isinstance(answer, Exception)] == [StoreBusyError]
        (rotation,) = await rotations(store)
        follow(store.verifier, [rotation])
        head = await store.head()
        assert head is not None
        assert rotation.after_size == head.head.size == 8
        alive = store.sign_of_life()
        assert alive is not None
        assert alive.verify(follow(store.verifier, [rotation]))
        assert not alive.verify(KeyHistory(store.verifier))


async def test_a_sign_of_life_is_of_its_time_and_no_head(store_settings: StoreSettings) -> None:
    times = iter(range(10, 1000, 10))
    async with Store.open(store_settings, clock=lambda: next(times)) as store:
        assert store.sign_of_life() is None
        await store.record(looked())
        head, alive, later = await store.head(), store.sign_of_life(), store.sign_of_life()
        assert head is not None
        assert alive is not None
        assert later is not None
        keys = KeyHistory(store.verifier)
        assert head.head.signed_at < alive.time < later.time
        assert alive.verify(keys)
        for wrong in (
            replace(alive, time=later.time),
            replace(alive, size=2),
            replace(alive, root=bytes(32)),
        ):
            assert not wrong.verify(keys)
        assert not keys.verify(SignedHead(replace(head.head, signed_at=alive.time), alive.signature))


class Killed(BaseException):
    """As good as a kill -9 for what is on the disk."""


async def _dies(settings: StoreSettings, point: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change the key, and die at a step of it."""

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patched:
        if point == "before the new key is written":
            patched.setattr(Signer, "stage", killed)
        elif point == "before the commit":
            patched.setattr("gateway.store.signing_key.inclusion_proof", killed)
        else:
            patched.setattr("gateway.store.signing_key.install_next_key", killed)
        with pytest.raises(BaseExceptionGroup):
            await _write_and_change(settings)


async def _write_and_change(settings: StoreSettings) -> None:
    async with Store.open(settings) as store:
        await store.record(looked("before"))
        with contextlib.suppress(StoreUnavailableError):
            await change(store)


@pytest.mark.parametrize(
    ("point", "is_changed"),
    [
        ("before the new key is written", False),
        ("before the commit", False),
        ("before the new key is installed", True),
    ],
)
async def test_a_change_that_dies_is_done_or_not(
    store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch, point: str, is_changed: bool
) -> None:
    first = await _opened_key(store_settings)
    await _dies(store_settings, point, monkeypatch)
    folder = store_settings.data_folder
    assert (folder / NEXT_KEY_FILE).exists() == (point != "before the new key is written")
    async with Store.open(store_settings) as store:
        await store.record(looked("after"))
        chain = follow(store.verifier, await rotations(store))
        assert (chain.changed_at > 0) == is_changed
        assert all(chain.verify(head) for head in await heads(store))
    assert not (folder / NEXT_KEY_FILE).exists()
    assert (Signer.load(folder, first.origin).verifier == first) == (not is_changed)


async def test_a_disk_that_takes_no_key_changes_nothing(
    store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    async with Store.open(store_settings) as store:
        with monkeypatch.context() as patched:
            patched.setattr(Signer, "stage", full)
            with pytest.raises(StoreUnavailableError):
                await change(store)
        await store.record(looked())
        assert await rotations(store) == []
        await change(store)
        await store.record(looked())
        chain = follow(store.verifier, await rotations(store))
        assert all(chain.verify(head) for head in await heads(store))


async def test_a_commit_whose_outcome_nobody_saw_is_asked_for(
    store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks with the answer; the change was made."""
    async with Store.open(store_settings) as store:
        dialect = store._engines.writer.dialect
        commit = dialect.do_commit

        def lost(connection: object) -> None:
            commit(connection)
            raise OSError(104, "Connection reset by peer")

        with monkeypatch.context() as patched:
            patched.setattr(dialect, "do_commit", lost)
            with pytest.raises(StoreUnavailableError):
                await change(store)
        assert len(await rotations(store)) == 1
        await store.record(looked("after"))
        chain = follow(store.verifier, await rotations(store))
        assert all(chain.verify(head) for head in await heads(store))
    assert not (store_settings.data_folder / NEXT_KEY_FILE).exists()


async def test_a_key_that_could_not_be_installed_is_used_all_the_same(
    store_settings: StoreSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(30, "Read-only file system")

    async with Store.open(store_settings) as store:
        with monkeypatch.context() as patched:
            patched.setattr("gateway.store.signing_key.install_next_key", full)
            await change(store)
        await store.record(looked())
    async with Store.open(store_settings) as store:
        await store.record(looked())
        chain = follow(store.verifier, await rotations(store))
        assert all(chain.verify(head) for head in await heads(store))


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.iterdir() if path.is_file()]


async def test_the_old_private_key_is_gone(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)) as store:
        with (tmp_path / KEY_FILE).open("rb") as old:
            before = old.read()
            await change(store)
            old.seek(0)
            assert old.read() == bytes(len(before))
    assert before not in contents(tmp_path)
    assert (tmp_path / KEY_FILE).stat().st_mode & 0o777 == 0o600


async def test_a_row_of_keys_without_the_key_does_not_start(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)) as store:
        await store.record(looked())
        other = Signer.generate(store.verifier.origin).verifier.to_text()
    with closing(sqlite3.connect(tmp_path / "custos.db")) as connection, connection:
        connection.execute("INSERT INTO audit_keys VALUES (1, ?, x'', x'')", (other,))
    with pytest.raises(LedgerKeyError):
        async with Store.open(StoreSettings(tmp_path)):
            pass


async def test_a_chain_that_the_old_key_did_not_sign_is_refused(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)) as store:
        await store.record(looked("before"))
        first = await store.head()
        await change(store)
        await store.record(looked("after"))
        await change(store)
        chain = await rotations(store)
        assert first is not None
        last = await store.head()
        assert last is not None
        stranger = Signer.generate(store.verifier.origin)
        forged = stranger.sign(2, 1, chain[0].head.head.root, 5)
        for wrong in (
            [chain[1]],
            [chain[1], chain[0]],
            [chain[0], chain[0]],
            [replace(chain[0], head=forged)],
            [replace(chain[0], head=first)],
            [replace(chain[0], path=())],
            [replace(chain[0], leaf=chain[1].leaf)],
            [replace(chain[0], leaf=b"")],
        ):
            with pytest.raises(KeyChainError):
                follow(store.verifier, wrong)
        keys = follow(store.verifier, chain)
        assert keys.is_retired(replace_signature(last, store.verifier)) is False


def replace_signature(signed: SignedHead, verifier: Verifier) -> SignedHead:
    assert not verifier.verify(signed)
    return SignedHead(signed.head, bytes(64))


async def test_a_head_of_a_retired_key_is_known_as_such(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)) as store:
        old = Signer.load(tmp_path, store.verifier.origin)
        await change(store)
        keys = follow(store.verifier, await rotations(store))
    late, early = old.sign(2, 1, bytes(32), 5), old.sign(1, 0, bytes(32), 5)
    assert (keys.verify(late), keys.is_retired(late)) == (False, True)
    assert (keys.verify(early), keys.is_retired(early)) == (True, False)


def test_rotations_from_outside_are_bounded() -> None:
    head = b'{"origin":"o"}'
    for wrong in (
        RotationJson("", [], Raw(head)),
        RotationJson("A" * (9 * 1024 * 1024), [], Raw(head)),
        RotationJson("", ["AA=="] * 65, Raw(head)),
        RotationJson("*", [], Raw(head)),
    ):
        with pytest.raises(KeyChainError):
            parse_rotation(wrong)


async def test_a_verifier_sees_every_change_of_what_is_stored_about_keys(tmp_path: Path) -> None:
    async with Store.open(StoreSettings(tmp_path)) as store:
        await store.record(looked("before"))
        old = Signer.load(tmp_path, store.verifier.origin)
        await change(store)
        await store.record(looked("after"))
        newest = await store.head()
        assert newest is not None
    other = Signer.generate(store.verifier.origin).verifier.to_text()
    database = tmp_path / "custos.db"
    whole = database.read_bytes()
    head = newest.head
    resigned = old.sign(head.size, head.previous_size, head.root, head.signed_at)
    for statement, values, code in (
        ("UPDATE audit_keys SET public_key = ?", (other,), "key"),
        ("UPDATE audit_keys SET after_size = 3", (), "key"),
        ("UPDATE audit_keys SET leaf = x'00'", (), "key"),
        ("UPDATE audit_keys SET path = x''", (), "key"),
        ("DELETE FROM audit_keys", (), "key"),
        ("INSERT INTO audit_keys SELECT 3, public_key, leaf, path FROM audit_keys", (), "key"),
        ("UPDATE audit_heads SET signature = ? WHERE tree_size = 3", (resigned.signature,), "retired_key"),
    ):
        database.write_bytes(whole)
        assert verify_data_folder(tmp_path).exit_code == 3
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(statement, values)
        assert verify_data_folder(tmp_path).findings[0].code == code, statement


async def test_a_rotation_that_somebody_wrote_without_the_key_is_found(tmp_path: Path) -> None:
    """He has the database and a key of his own, not the ledger's."""
    import hashlib

    from gateway.audit.merkle import Frontier, hash_leaf
    from gateway.audit.records import AuditRecord, serialize

    async with Store.open(StoreSettings(tmp_path)) as store:
        await store.record(looked("before"))
    own = Signer.generate(store.verifier.origin)
    event = looked(kind=AuditKind.SIGNING_KEY_CHANGED, detail={PUBLIC_KEY_DETAIL: own.verifier.to_text()})
    leaf, disclosures = serialize(AuditRecord(seq=1, at=2_000_000_000_000_000, event=event))
    with closing(sqlite3.connect(tmp_path / "custos.db")) as connection, connection:
        (first,) = connection.execute("SELECT leaf_hash FROM audit_records").fetchone()
        tree = Frontier()
        tree.append(first)
        tree.append(hash_leaf(leaf))
        assert hashlib.sha256(b"\x01" + first + hash_leaf(leaf)).digest() == tree.root()
        signed = own.sign(2, 1, tree.root(), 2_000_000_000_000_000)
        columns = {
            "seq": 1,
            "leaf": leaf,
            "leaf_hash": hash_leaf(leaf),
            "disclosures": disclosures,
            "at": 2_000_000_000_000_000,
            **{
                name: getattr(event, name)
                for name in ("kind", "outcome", "actor_id", "actor_name", "unit_id", "unit_name", "camera_id")
            },
        }
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        insert = f"INSERT INTO audit_records ({names}) VALUES ({marks})"  # noqa: S608
        connection.execute(insert, tuple(columns.values()))
        connection.execute(
            "INSERT INTO audit_heads (tree_size, previous_size, root, signed_at, signature)"
            " VALUES (2, 1, ?, ?, ?)",
            (tree.root(), signed.head.signed_at, signed.signature),
        )
        row = (own.verifier.to_text(), leaf, first)
        connection.execute("INSERT INTO audit_keys VALUES (2, ?, ?, ?)", row)
        connection.execute(
            "UPDATE audit_state SET size = 2, frontier = ?, last_at = 2000000000000000", (tree.to_bytes(),)
        )
    report = verify_data_folder(tmp_path)
    assert {finding.code for finding in report.findings} == {"bad_signature", "key"}
    with pytest.raises(LedgerKeyError):
        async with Store.open(StoreSettings(tmp_path)):
            pass
