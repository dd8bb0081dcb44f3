import pytest
from fuzz.mutation import first_failure
from fuzz.targets import SEEDS, load

TARGETS = load()


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_targets_survive_mutated_input(name):
    tried, failure = first_failure(TARGETS[name], SEEDS[name], seed=1, inputs=300)
    assert failure is None
    assert tried == 300


def test_a_failing_target_is_found():
    def fragile(data):
        data[3]

    _, failure = first_failure(fragile, [b"four"], seed=1, inputs=300)
    assert isinstance(failure[1], IndexError)
