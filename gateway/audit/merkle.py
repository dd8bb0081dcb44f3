"""The Merkle tree of RFC 9162 §2.1 (SHA-256), in pure functions: no storage, no clock.

A tree of n leaves is kept as its *frontier*: the roots of the perfect subtrees of sizes given by the bits
of n, largest first. Appending needs nothing else. Proofs are lists of leaf ranges first, since whoever
stores the tree knows how to hash a range cheaply, and hashes second.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

HASH_BYTES = 32
EMPTY_ROOT = hashlib.sha256().digest()
MAX_PROOF_HASHES = 64
"""A proof in a tree of 2^63 leaves has at most 64 hashes; a longer one is no proof."""

STORED_LEVELS = (8, 16, 24)
"""Perfect subtrees of 2^8, 2^16 and 2^24 leaves keep their hashes, so that a proof reads few rows."""

Range = tuple[int, int]
"""Leaves [start, end)."""


def hash_leaf(leaf: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + leaf).digest()


def hash_children(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def split_hashes(data: bytes) -> tuple[bytes, ...]:
    """Hashes that are kept one after the other; the last is shorter if the data is damaged."""
    return tuple(data[i : i + HASH_BYTES] for i in range(0, len(data), HASH_BYTES))


@dataclass(frozen=True)
class Node:
    """A perfect subtree: leaves [index << level, (index + 1) << level)."""

    level: int
    index: int
    hash: bytes


class Frontier:
    """A growing tree, in as many hashes as its size has one bits."""

    def __init__(self, size: int = 0, hashes: Sequence[bytes] = ()) -> None:
        """Raise ValueError if the hashes are not as many as the bits, or not of `HASH_BYTES`."""
        if size < 0 or len(hashes) != size.bit_count() or any(len(h) != HASH_BYTES for h in hashes):
            raise ValueError("a frontier has one 32-byte hash per one bit of its size")
        self.size = size
        self._hashes = list(hashes)

    @classmethod
    def from_bytes(cls, size: int, data: bytes) -> "Frontier":
        """The inverse of `to_bytes`. Raise ValueError if the length does not fit the size."""
        return cls(size, split_hashes(data))

    def to_bytes(self) -> bytes:
        return b"".join(self._hashes)

    def append(self, leaf_hash: bytes) -> list[Node]:
        """Add a leaf; return the perfect subtrees of two or more leaves that it completes, smallest first."""
        completed: list[Node] = []
        node, level, index = leaf_hash, 0, self.size
        while index & 1:
            node = hash_children(self._hashes.pop(), node)
            level, index = level + 1, index >> 1
            completed.append(Node(level, index, node))
        self._hashes.append(node)
        self.size += 1
        return completed

    def root(self) -> bytes:
        return fold(self._hashes)


def fold(subtrees: Sequence[bytes]) -> bytes:
    """The root over subtree roots ordered largest first, as they stand in a frontier."""
    if not subtrees:
        return EMPTY_ROOT
    root = subtrees[-1]
    for left in reversed(subtrees[:-1]):
        root = hash_children(left, root)
    return root


def perfect_subtrees(leaves: Range) -> list[tuple[int, int]]:
    """The (level, index) of the perfect subtrees that make up a range of `inclusion_ranges` or the like.

    Such a range starts at a multiple of the largest power of two not above its length, which is what makes
    `fold` over these subtrees its RFC 9162 hash.
    """
    start, end = leaves
    subtrees = []
    while start < end:
        level = (end - start).bit_length() - 1
        subtrees.append((level, start >> level))
        start += 1 << level
    return subtrees


def _split(size: int) -> int:
    """The largest power of two smaller than size (size > 1)."""
    return 1 << (size - 1).bit_length() - 1


def inclusion_ranges(index: int, size: int) -> list[Range]:
    """The leaf ranges whose hashes are PATH(index, D_size) (RFC 9162 §2.1.3.1), in the proof's order.

    Raise ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError("no such leaf in a tree of that size")
    start, end = 0, size
    ranges: list[Range] = []
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    return ranges[::-1]


def consistency_ranges(old_size: int, size: int) -> list[Range]:
    """The leaf ranges whose hashes are PROOF(old_size, D_size) (RFC 9162 §2.1.4.1), in the proof's order.

    Raise ValueError unless 0 < old_size <= size.
    """
    if not 0 < old_size <= size:
        raise ValueError("consistency is shown from a tree of at least one leaf to one not smaller")
    start, end = 0, size
    ranges: list[Range] = []
    while end != old_size:
        middle = start + _split(end - start)
        if old_size <= middle:
            ranges.append((middle, end))
            end = middle
        else:
            ranges.append((start, middle))
            start = middle
    if start > 0:
        ranges.append((start, end))
    return ranges[::-1]


def verify_inclusion(index: int, size: int, leaf_hash: bytes, proof: Sequence[bytes], root: bytes) -> bool:
    """RFC 9162 §2.1.3.2."""
    if not 0 <= index < size or len(proof) > MAX_PROOF_HASHES:
        return False
    node, last, result = index, size - 1, leaf_hash
    for sibling in proof:
        if last == 0:
            return False
        if node & 1 or node == last:
            result = hash_children(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = hash_children(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and result == root


def verify_consistency(
    old_size: int, size: int, old_root: bytes, root: bytes, proof: Sequence[bytes]
) -> bool:
    """RFC 9162 §2.1.4.2. A tree is consistent with itself by the empty proof alone."""
    if not 0 < old_size <= size or len(proof) > MAX_PROOF_HASHES:
        return False
    if old_size == size:
        return not proof and old_root == root
    path = list(proof)
    if old_size & (old_size - 1) == 0:
        path.insert(0, old_root)
    if not path:
        return False
    node, last = old_size - 1, size - 1
    while node & 1:
        node, last = node >> 1, last >> 1
    old_result = result = path[0]
    for sibling in path[1:]:
        if last == 0:
            return False
        if node & 1 or node == last:
            old_result = hash_children(sibling, old_result)
            result = hash_children(sibling, result)
            while not node & 1 and node:
                node, last = node >> 1, last >> 1
        else:
            result = hash_children(result, sibling)
        node, last = node >> 1, last >> 1
    return last == 0 and old_result == old_root and result == root


def prove(ranges: Sequence[Range], subtree: Callable[[int, int], bytes]) -> list[bytes]:
    """A proof's hashes, given the hash of each perfect subtree (level, index)."""
    return [fold([subtree(level, index) for level, index in perfect_subtrees(r)]) for r in ranges]
