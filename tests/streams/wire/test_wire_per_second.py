from streams.wire.per_second import PerSecond

SECOND_NS = 1_000_000_000


def test_so_many_within_a_second_and_no_more():
    allowance = PerSecond(3)
    assert allowance.take(1, 5 * SECOND_NS)
    assert allowance.take(2, 6 * SECOND_NS - 1)
    assert not allowance.take(1, 6 * SECOND_NS - 1)
    assert allowance.take(3, 6 * SECOND_NS)
    assert not allowance.take(1, 6 * SECOND_NS)
