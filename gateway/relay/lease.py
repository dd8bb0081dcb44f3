"""The worker's lease on showing pictures: control renews it; without it nothing is shown (fail closed)."""

import asyncio
from collections.abc import Awaitable, Callable


class Lease:
    """Valid until `seconds` after its last renewal, not before the first. `clock`: monotonic seconds."""

    def __init__(self, seconds: float, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._clock = clock
        self._renewed: float | None = None

    def renew(self) -> None:
        self._renewed = self._clock()

    @property
    def is_valid(self) -> bool:
        return self._renewed is not None and self._clock() - self._renewed < self._seconds

    async def watch(
        self,
        on_lost: Callable[[], None],
        every_seconds: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Call `on_lost` whenever the lease has run out, until cancelled; once for each loss."""
        was_valid = False
        while True:
            await sleep(every_seconds)
            if was_valid and not self.is_valid:
                on_lost()
            was_valid = self.is_valid
