"""Many cameras that are set at once, as at a start and by an import."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.policy_city import NOW

from policies.access import Sharing, SharingMode
from policies.engine import FactRefusedError, PolicyEngine

places = st.tuples(
    st.sampled_from(["traffic", "urban", "nowhere"]),
    st.lists(st.sampled_from(["g", "h"]), unique=True).map(sorted).map(tuple),
    st.lists(st.sampled_from(["桥", "河"]), unique=True).map(sorted).map(tuple),
    st.sampled_from(
        [
            None,
            Sharing(),
            Sharing(mode=SharingMode.NOT_SHARED),
            Sharing(mode=SharingMode.UNCONDITIONAL, departments=("urban",), purposes=frozenset({"patrol"})),
        ]
    ),
)


@given(st.lists(st.lists(st.tuples(st.sampled_from("abcdef"), places), max_size=8), max_size=3))
def test_many_cameras_at_once_are_as_one_by_one(batches: list[list[tuple[str, Any]]]) -> None:
    """New ones, known ones, and one twice in a batch."""
    at_once, singly = PolicyEngine({}), PolicyEngine({})
    for batch in batches:
        at_once.set_cameras((camera_id, *place) for camera_id, place in batch)
        for camera_id, (department_id, group_ids, tags, sharing) in batch:
            singly.set_camera(camera_id, department_id, group_ids, tags=tags, sharing=sharing)
    for engine in (at_once, singly):
        engine.set_department("traffic", None)
        engine.set_department("urban", None)
        engine.set_group("g", None)
    assert _laid_out(at_once) == _laid_out(singly)


def _laid_out(engine: PolicyEngine) -> dict[str, set[str]]:
    """Which cameras lie in what, by their names."""
    catalogue = engine._catalogue
    keys = [
        "i:",
        "d:traffic",
        "d:urban",
        "d:nowhere",
        "g:g",
        "g:h",
        "t:桥",
        "t:河",
        *("c:" + c for c in "abcdef"),
    ]
    sets = {key: catalogue.ordinals_in(key) for key in keys}
    sets |= {"broken": catalogue.broken(), "open": catalogue.open_to(["urban"], NOW)}
    sets |= {"closed": catalogue.closed_to([], NOW), "listed": catalogue.purpose_lists.listed}
    return {key: {catalogue.camera_of(number) for number in numbers} for key, numbers in sets.items()}


def test_a_camera_without_a_name_is_refused_and_the_others_are_set() -> None:
    engine = PolicyEngine({})
    with pytest.raises(FactRefusedError):
        engine.set_cameras([("a", "traffic", (), (), None), ("", "traffic", (), (), None)])
    assert engine.ordinal("a") == 0
