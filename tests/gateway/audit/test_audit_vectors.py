"""Test vectors of another implementation (tests/data/merkle): accepted and refused as it states."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.audit.merkle import (
    EMPTY_ROOT,
    Frontier,
    consistency_ranges,
    hash_leaf,
    inclusion_ranges,
    prove,
    verify_consistency,
    verify_inclusion,
)

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "merkle" / "vectors.json").read_text())
LEAVES = [hash_leaf(bytes.fromhex(leaf)) for leaf in VECTORS["leaves"]]
ROOTS = [bytes.fromhex(root) for root in VECTORS["roots"]]
SOME_HASH = bytes.fromhex(VECTORS["some_hash"])

Inclusion = tuple[int, int, bytes, list[bytes], bytes]
Consistency = tuple[int, int, bytes, bytes, list[bytes]]


def hashes(texts: list[str]) -> list[bytes]:
    return [bytes.fromhex(text) for text in texts]


def subtree(level: int, index: int) -> bytes:
    frontier = Frontier()
    for leaf_hash in LEAVES[index << level : (index + 1) << level]:
        frontier.append(leaf_hash)
    return frontier.root()


def flipped(proof: list[bytes], place: int, bit: int) -> list[bytes]:
    changed = bytes([proof[place][0] ^ 1 << bit]) + proof[place][1:]
    return [*proof[:place], changed, *proof[place + 1 :]]


def spoilt_inclusion(good: Inclusion) -> Iterator[tuple[str, Inclusion]]:
    """What the vectors' source refuses."""
    index, size, leaf, proof, root = good
    for other in (index - 1, index + 1, index ^ 2):
        yield f"index {other}", (other, size, leaf, proof, root)
    for other in (size * 2, size // 2):
        yield f"size {other}", (index, other, leaf, proof, root)
    yield "wrong leaf", (index, size, b"WrongLeaf", proof, root)
    for name, other_root in (("empty", EMPTY_ROOT), ("random", SOME_HASH)):
        yield f"{name} root", (index, size, leaf, proof, other_root)
    for name, added in (("garbage", b""), ("root", root)):
        yield f"trailing {name}", (index, size, leaf, [*proof, added], root)
        yield f"preceding {name}", (index, size, leaf, [added, *proof], root)
    for place in range(len(proof)):
        yield f"bit of {place}", (index, size, leaf, flipped(proof, place, 3), root)
    if proof:
        yield "removed component", (index, size, leaf, proof[:-1], root)
    if len(proof) > 1:
        yield "inserted component", (index, size, leaf, [proof[0], SOME_HASH, *proof[1:]], root)


def spoilt_consistency(good: Consistency) -> Iterator[tuple[str, Consistency]]:
    """What the vectors' source refuses."""
    old_size, size, old_root, root, proof = good
    for other in (old_size - 1, old_size + 1, old_size ^ 2):
        yield f"old size {other}", (other, size, old_root, root, proof)
    for other in (size * 2, size // 2):
        yield f"size {other}", (old_size, other, old_root, root, proof)
    yield "wrong old root", (old_size, size, b"WrongRoot", root, proof)
    yield "wrong root", (old_size, size, old_root, b"WrongRoot", proof)
    yield "swapped roots", (old_size, size, root, old_root, proof)
    yield "empty proof", (old_size, size, old_root, root, [])
    for name, added in (("garbage", b""), ("old root", old_root), ("root", root)):
        yield f"trailing {name}", (old_size, size, old_root, root, [*proof, added])
        yield f"preceding {name}", (old_size, size, old_root, root, [added, *proof])
    yield "doubled component", (old_size, size, old_root, root, [proof[0], *proof])
    yield "truncated", (old_size, size, old_root, root, proof[:-1])
    for place in range(len(proof)):
        yield f"bit of {place}", (old_size, size, old_root, root, flipped(proof, place, 4))


def test_roots() -> None:
    assert bytes.fromhex(VECTORS["empty_root"]) == EMPTY_ROOT
    frontier = Frontier()
    for leaf_hash, root in zip(LEAVES, ROOTS, strict=True):
        frontier.append(leaf_hash)
        assert frontier.root() == root


@pytest.mark.parametrize("vector", VECTORS["inclusion"], ids=lambda v: f"{v['index']}-of-{v['size']}")
def test_inclusion(vector) -> None:
    index, size, proof = vector["index"], vector["size"], hashes(vector["proof"])
    assert prove(inclusion_ranges(index, size), subtree) == proof
    good = (index, size, LEAVES[index], proof, ROOTS[size - 1])
    assert verify_inclusion(*good)
    accepted = [name for name, spoilt in spoilt_inclusion(good) if verify_inclusion(*spoilt)]
    assert accepted == []


@pytest.mark.parametrize(("index", "size"), [(0, 0), (0, 1), (1, 0), (2, 1)])
def test_no_inclusion_without_a_proof(index: int, size: int) -> None:
    for leaf, root in ((SOME_HASH, b""), (b"", EMPTY_ROOT), (SOME_HASH, EMPTY_ROOT)):
        assert not verify_inclusion(index, size, leaf, [], root)


@pytest.mark.parametrize("vector", VECTORS["consistency"], ids=lambda v: f"{v['old_size']}-to-{v['size']}")
def test_consistency(vector) -> None:
    old_size, size, proof = vector["old_size"], vector["size"], hashes(vector["proof"])
    assert prove(consistency_ranges(old_size, size), subtree) == proof
    good = (old_size, size, ROOTS[old_size - 1], ROOTS[size - 1], proof)
    assert verify_consistency(*good)
    spoilt = spoilt_consistency(good) if proof else ()
    assert [name for name, bad in spoilt if verify_consistency(*bad)] == []


@pytest.mark.parametrize("stated", VECTORS["consistency_statements"])
def test_what_is_stated_about_consistency(stated) -> None:
    old_root, root = bytes.fromhex(stated["old_root"]), bytes.fromhex(stated["root"])
    proof = hashes(stated["proof"])
    assert verify_consistency(stated["old_size"], stated["size"], old_root, root, proof) is stated["accepted"]
