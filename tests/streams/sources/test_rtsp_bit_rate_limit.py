import pytest

from streams.errors import LimitExceededError
from streams.sources.bit_rate_limit import BitRateLimit

SECOND = 1_000_000_000


@pytest.mark.parametrize("beyond", [0, 1])
def test_a_second_holds_so_many_bits_and_no_more(beyond):
    limit = BitRateLimit(80_000)
    limit.take(9_999, 5 * SECOND)
    if beyond:
        with pytest.raises(LimitExceededError):
            limit.take(2, 6 * SECOND - 1)
    else:
        limit.take(1, 6 * SECOND - 1)


def test_the_next_second_begins_anew():
    limit = BitRateLimit(80_000)
    for second in range(5):
        limit.take(10_000, second * SECOND)
