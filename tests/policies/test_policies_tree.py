import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.tree import MAX_DEPTH, FactRefusedError, Tree

NODES = st.sampled_from("abcdefg")
EDITS = st.lists(st.tuples(NODES, NODES | st.none()), max_size=25)


@given(EDITS)
def test_a_tree_never_holds_a_cycle_and_answers_as_a_plain_dictionary(edits):
    tree, parents = Tree(), {}
    for node, parent in edits:
        if parent is not None and node in line(parents, parent):
            with pytest.raises(FactRefusedError, match="its own ancestor"):
                tree.set(node, parent)
        else:
            tree.set(node, parent)
            parents[node] = parent
    for node in "abcdefg":
        path, current = [], node
        while current in parents:
            path.append(current)
            current = parents[current]
        expected = tuple(path) if path and current is None else None
        assert tree.path(node) == expected
        assert set(tree.subtree(node)) == {n for n in "abcdefg" if node in line(parents, n)}
    assert tree.is_complete() == all(parent is None or parent in parents for parent in parents.values())


def line(parents, node):
    while node is not None:
        yield node
        node = parents.get(node)


def test_a_refused_move_changes_nothing():
    tree = Tree()
    tree.set("a", None)
    tree.set("b", "a")
    with pytest.raises(FactRefusedError):
        tree.set("a", "b")
    assert tree.path("b") == ("b", "a")


def test_depth_is_limited_also_when_a_subtree_moves():
    tree = Tree()
    for level in range(MAX_DEPTH):
        tree.set(f"n{level}", f"n{level - 1}" if level else None)
    tree.set("top", None)
    with pytest.raises(FactRefusedError) as refused:
        tree.set("n0", "top")
    assert refused.value.code == "too_deep"
    assert len(tree.path(f"n{MAX_DEPTH - 1}")) == MAX_DEPTH


def test_removing_is_refused_while_there_are_children():
    tree = Tree()
    tree.set("a", None)
    tree.set("b", "a")
    with pytest.raises(FactRefusedError) as refused:
        tree.remove("a")
    assert refused.value.code == "in_use"
    tree.remove("b")
    tree.remove("a")
    tree.remove("never")
    assert "a" not in tree
    assert tree.path("a") is None
