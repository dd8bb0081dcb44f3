"""One statistic, for who measures and for who reports."""

import math
from collections.abc import Collection


def quantile(values: Collection[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all do not exceed; there must be one."""
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]
