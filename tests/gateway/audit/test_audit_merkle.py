"""RFC 9162 §2.1: against the RFC's example and a naive tree. Another's vectors: `test_audit_vectors`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.audit.merkle import (
    EMPTY_ROOT,
    MAX_PROOF_HASHES,
    Frontier,
    Node,
    Range,
    consistency_ranges,
    fold,
    hash_children,
    hash_leaf,
    inclusion_ranges,
    perfect_subtrees,
    prove,
    verify_consistency,
    verify_inclusion,
)

sizes = st.integers(1, 70)


def naive_root(hashes: list[bytes]) -> bytes:
    if not hashes:
        return EMPTY_ROOT
    if len(hashes) == 1:
        return hashes[0]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    return hash_children(naive_root(hashes[:k]), naive_root(hashes[k:]))


def naive_path(index: int, hashes: list[bytes]) -> list[bytes]:
    if len(hashes) == 1:
        return []
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if index < k:
        return [*naive_path(index, hashes[:k]), naive_root(hashes[k:])]
    return [*naive_path(index - k, hashes[k:]), naive_root(hashes[:k])]


def naive_consistency(old: int, hashes: list[bytes], whole: bool = True) -> list[bytes]:
    if old == len(hashes):
        return [] if whole else [naive_root(hashes)]
    k = 1
    while k * 2 < len(hashes):
        k *= 2
    if old <= k:
        return [*naive_consistency(old, hashes[:k], whole), naive_root(hashes[k:])]
    return [*naive_consistency(old - k, hashes[k:], False), naive_root(hashes[:k])]


def leaf_hashes(size: int) -> list[bytes]:
    return [hash_leaf(bytes([i])) for i in range(size)]


def proof_of(ranges: list[Range], hashes: list[bytes]) -> list[bytes]:
    return prove(ranges, lambda level, i: naive_root(hashes[i << level : (i + 1) << level]))


def grown(size: int) -> Frontier:
    frontier = Frontier()
    for leaf_hash in leaf_hashes(size):
        frontier.append(leaf_hash)
    return frontier


def test_the_rfc_example() -> None:
    """RFC 9162 §2.1.5, a tree of seven leaves."""
    a, b, c, d, e, f, j = [(i, i + 1) for i in range(7)]
    g, h, i, k, last_three = (0, 2), (2, 4), (4, 6), (0, 4), (4, 7)
    assert inclusion_ranges(0, 7) == [b, h, last_three]
    assert inclusion_ranges(3, 7) == [c, g, last_three]
    assert inclusion_ranges(4, 7) == [f, j, k]
    assert inclusion_ranges(6, 7) == [i, k]
    assert consistency_ranges(3, 7) == [c, d, g, last_three]
    assert consistency_ranges(4, 7) == [last_three]
    assert consistency_ranges(6, 7) == [i, j, k]
    assert consistency_ranges(7, 7) == []
    assert {a, e} == {(0, 1), (4, 5)}


@given(sizes)
def test_the_frontier_is_the_naive_tree(size: int) -> None:
    hashes = leaf_hashes(size)
    frontier, completed = Frontier(), []
    for leaf_hash in hashes:
        completed += frontier.append(leaf_hash)
    assert frontier.root() == naive_root(hashes)
    assert completed == [
        Node(level, index, naive_root(hashes[index << level : (index + 1) << level]))
        for end in range(1, size + 1)
        for level, index in [(lv, (end >> lv) - 1) for lv in range(1, 8) if end % (1 << lv) == 0]
    ]
    again = Frontier.from_bytes(size, frontier.to_bytes())
    assert (again.size, again.root()) == (size, frontier.root())


@pytest.mark.parametrize(
    ("size", "data"), [(-1, b""), (0, b"x" * 32), (3, b"x" * 32), (1, b"x" * 31), (2, b"")]
)
def test_a_frontier_that_does_not_fit_its_size_is_refused(size: int, data: bytes) -> None:
    with pytest.raises(ValueError, match="frontier"):
        Frontier.from_bytes(size, data)


@given(st.data())
def test_inclusion(data: st.DataObject) -> None:
    size = data.draw(sizes)
    index = data.draw(st.integers(0, size - 1))
    hashes = leaf_hashes(size)
    proof = proof_of(inclusion_ranges(index, size), hashes)
    root = grown(size).root()
    assert proof == naive_path(index, hashes)
    assert verify_inclusion(index, size, hashes[index], proof, root)
    other = data.draw(st.integers(-1, size + 1).filter(lambda i: i != index))
    assert not verify_inclusion(other, size, hashes[index], proof, root)
    assert not verify_inclusion(index, size, hash_leaf(b"other"), proof, root)
    assert not verify_inclusion(index, size, hashes[index], [*proof, root], root)
    assert not verify_inclusion(index, size, hashes[index], [root, *proof], root)
    assert not verify_inclusion(index, size, hashes[index], [root] * (MAX_PROOF_HASHES + 1), root)
    if proof:
        assert not verify_inclusion(index, size, hashes[index], proof[:-1], root)
        spoilt = data.draw(st.integers(0, len(proof) - 1))
        wrong = [h if i != spoilt else hash_leaf(h) for i, h in enumerate(proof)]
        assert not verify_inclusion(index, size, hashes[index], wrong, root)


@given(st.data())
def test_consistency(data: st.DataObject) -> None:
    size = data.draw(sizes)
    old_size = data.draw(st.integers(1, size))
    hashes = leaf_hashes(size)
    proof = proof_of(consistency_ranges(old_size, size), hashes)
    old_root, root = grown(old_size).root(), grown(size).root()
    assert proof == naive_consistency(old_size, hashes)
    assert verify_consistency(old_size, size, old_root, root, proof)
    wrong = hash_leaf(root)
    assert not verify_consistency(old_size, size, wrong, root, proof)
    assert not verify_consistency(old_size, size, old_root, wrong, proof)
    assert not verify_consistency(old_size, size, old_root, root, [*proof, wrong])
    assert not verify_consistency(old_size, size, old_root, root, [wrong, *proof])
    assert not verify_consistency(0, size, EMPTY_ROOT, root, proof)
    if proof:
        assert not verify_consistency(old_size, size, old_root, root, proof[:-1])
        assert not verify_consistency(old_size, size, old_root, root, proof[1:])
        spoilt = data.draw(st.integers(0, len(proof) - 1))
        altered = [h if i != spoilt else hash_leaf(h) for i, h in enumerate(proof)]
        assert not verify_consistency(old_size, size, old_root, root, altered)


@given(sizes, sizes)
def test_no_proof_of_what_is_not_there(size: int, beyond: int) -> None:
    with pytest.raises(ValueError, match="no such leaf"):
        inclusion_ranges(size + beyond - 1, size)
    with pytest.raises(ValueError, match="consistency"):
        consistency_ranges(size + beyond, size)
    with pytest.raises(ValueError, match="consistency"):
        consistency_ranges(0, size)


@given(st.integers(1, 1 << 40))
def test_a_tree_is_made_of_as_many_perfect_subtrees_as_its_size_has_bits(size: int) -> None:
    subtrees = perfect_subtrees((0, size))
    assert len(subtrees) == size.bit_count()
    assert sum(1 << level for level, _ in subtrees) == size
    assert fold([]) == EMPTY_ROOT
