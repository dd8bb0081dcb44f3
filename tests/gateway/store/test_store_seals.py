"""Seals by themselves: the key, the content of rows, and their sums."""

import random
from types import SimpleNamespace

import msgspec
import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.records import MAX_DETAIL_ITEMS, AuditEvent, AuditKind, Outcome
from gateway.keys import KeyFileError
from gateway.store.schema import audit_subjects, departments, policy_sums
from gateway.store.sealed_rows import Sealed, camera_content, user_content
from gateway.store.seals import SEAL_FILE, Seals, Total, is_of_denial
from gateway.store.store import Store, StoreSettings

SEALS = Seals(bytes(32))


def _total(seals, under=SEALS):
    found = Total()
    for seal in seals:
        found.add(under.summand(seal))
    return found


def test_a_seal_fits_its_content_under_its_key_only():
    seal = SEALS.seal(b"content")
    assert SEALS.fits(seal, b"content")
    assert not SEALS.fits(seal, b"other")
    assert not Seals(b"\x01" * 32).fits(seal, b"content")
    for nothing in (None, b"", "text", 7):
        assert not SEALS.fits(nothing, b"content")


def test_a_denials_seal_tells_what_it_was():
    seal = SEALS.seal(b"content", is_denial=True)
    assert SEALS.fits(seal, b"content")
    assert is_of_denial(seal)
    assert not is_of_denial(SEALS.seal(b"content"))


_CONTENT = st.none() | st.binary(max_size=300)
_SEAL = st.one_of(
    st.none(), st.integers(), st.text(max_size=3), st.binary(max_size=20), st.just("fits"), st.just("denial")
)


@given(st.lists(st.tuples(_SEAL, _CONTENT)))
def test_many_rows_are_checked_as_each_alone(rows):
    rows = [
        (
            SEALS.seal(content or b"", is_denial=seal == "denial") if seal in ("fits", "denial") else seal,
            content,
        )
        for seal, content in rows
    ]
    fits, total = SEALS.check(rows)
    assert fits == [content is not None and SEALS.fits(seal, content) for seal, content in rows]
    assert total == _total([seal for seal, _ in rows if isinstance(seal, bytes)])


@given(st.lists(st.binary(min_size=1, max_size=20)), st.randoms(use_true_random=False))
def test_a_sum_knows_no_order_and_forgets_what_is_taken(contents, rng):
    seals = [SEALS.seal(content) for content in contents]
    shuffled = rng.sample(seals, len(seals))
    assert _total(seals) == _total(shuffled)
    total = _total(seals)
    for seal in shuffled:
        total.take(SEALS.summand(seal))
    assert total == Total()


_TEXT = st.text(max_size=5)


@given(st.lists(st.tuples(_TEXT, _TEXT, st.lists(_TEXT), st.lists(_TEXT)), min_size=2, max_size=2))
def test_two_cameras_that_differ_have_different_content(cameras):
    one, other = (
        camera_content(name, department, True, ("conditional", None, None, None), groups, tags)
        for name, department, groups, tags in cameras
    )
    (*names, groups, tags), (*other_names, other_groups, other_tags) = cameras
    is_same = (
        names == other_names and sorted(groups) == sorted(other_groups) and sorted(tags) == sorted(other_tags)
    )
    assert (one == other) is is_same


def test_the_order_of_links_is_nothing():
    row = SimpleNamespace(
        id="u", username_folded="u", department_id="d", kind="person", enabled=1, password_hash="x",
        password_expires_at=None, totp_enabled_at=None, totp_secret=b"offered", responsible_id=None,
        networks=None,
    )  # fmt: skip
    roles = [("operator", "d"), ("auditor", "d")]
    codes = [b"2" * 32, b"1" * 32]
    assert user_content(row, roles, codes) == user_content(row, roles[::-1], codes[::-1])
    assert user_content(row, roles, codes) != user_content(row, roles[:1], codes)
    assert user_content(row, roles, codes) != user_content(row, roles, codes[:1])
    without = SimpleNamespace(**{**vars(row), "totp_secret": None})
    # a second factor that is only offered proves nothing
    assert user_content(row, roles, codes) == user_content(without, roles, codes)


def test_the_key_is_kept_when_what_was_there_is_sealed(tmp_path):
    first = Seals.open(tmp_path)
    assert first.is_new
    again = Seals.open(tmp_path)
    assert again.is_new
    assert again.fits(first.seal(b"x"), b"x")
    again.keep()
    kept = Seals.open(tmp_path)
    assert not kept.is_new
    assert kept.fits(first.seal(b"x"), b"x")
    (tmp_path / SEAL_FILE).chmod(0o644)
    with pytest.raises(KeyFileError):
        Seals.open(tmp_path)
    (tmp_path / SEAL_FILE).chmod(0o600)
    (tmp_path / SEAL_FILE).write_bytes(bytes(31))
    with pytest.raises(KeyFileError):
        Seals.open(tmp_path)


async def test_the_sums_follow_what_is_sealed(tmp_path):
    event = AuditEvent(kind=AuditKind.POLICY_CHANGED, outcome=Outcome.OK, content="x")
    rng = random.Random(1)
    names = [f"d{number}" for number in range(40)]

    async def unit(work):
        there = set()
        for name in rng.choices(names, k=80):
            row = (Sealed.DEPARTMENT, name)
            if name not in there:
                await work.conn.execute(sa.insert(departments).values(id=name, name=name, created_at=1))
                await work.seal(event, row)
                there.add(name)
            elif rng.random() < 0.5:
                await work.conn.execute(
                    sa.update(departments).where(departments.c.id == name).values(name="x")
                )
                await work.seal(event, row)
            else:
                await work.unseal({row: event})
                await work.conn.execute(sa.delete(departments).where(departments.c.id == name))
                there.remove(name)
        seals = (await work.conn.execute(sa.select(departments.c.seal))).scalars().all()
        query = sa.select(policy_sums).where(policy_sums.c.kind == "department")
        return seals, (await work.conn.execute(query)).one()

    async with Store.open(StoreSettings(tmp_path)) as store:
        seals, stored = await store.run(unit)
        total = _total(seals, store.seals)
        assert (stored.rows, int.from_bytes(stored.total, "big")) == (total.rows, total.total)


async def test_only_records_that_say_so_seal(tmp_path):
    event = AuditEvent(kind=AuditKind.LOGIN, outcome=Outcome.OK, content="x")

    async def unit(work):
        await work.conn.execute(sa.insert(departments).values(id="d", name="d", created_at=1))
        await work.seal(event, (Sealed.DEPARTMENT, "d"))

    async with Store.open(StoreSettings(tmp_path)) as store:
        with pytest.raises(ValueError, match="login"):
            await store.run(unit)


async def test_owners_beyond_what_one_record_holds_are_in_the_next(tmp_path):
    owners = tuple(f"d{number:03}" for number in range(MAX_DETAIL_ITEMS + 1))
    event = AuditEvent(
        kind=AuditKind.CATALOGUE_IMPORTED, outcome=Outcome.OK, content="imported", owner_ids=owners
    )
    async with Store.open(StoreSettings(tmp_path)) as store:
        for count in (MAX_DETAIL_ITEMS, MAX_DETAIL_ITEMS + 1):
            some = msgspec.structs.replace(event, owner_ids=owners[:count])
            await store.run(lambda work, some=some: work.record_sealed(some, []))
        async with store.read() as conn:
            query = sa.select(audit_subjects.c.seq, sa.func.count()).group_by(audit_subjects.c.seq)
            found = (await conn.execute(query.order_by(audit_subjects.c.seq))).all()
    assert [count for _, count in found] == [MAX_DETAIL_ITEMS, MAX_DETAIL_ITEMS, 1]
