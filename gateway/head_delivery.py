"""Published heads, delivered to the departments: each gets every one, so that it holds what it was told.

Addresses come from the configuration file only. A delivery that fails is logged and counted, and not tried
again: the next head says all that it said.
"""

import asyncio
from collections import Counter
from collections.abc import Mapping

import aiohttp
import structlog
from yarl import URL

from gateway.audit.heads import SignedHead
from gateway.bounded_fetch import FetchError, fetching, parse_address, post_json

_log = structlog.get_logger(__name__)


class HeadDelivery:
    """`addresses`: by the department's id. `delivered` and `failed` count by department."""

    def __init__(self, addresses: Mapping[str, str]) -> None:
        """Raise FetchError for what is no http or https address."""
        self._addresses = {department: parse_address(text) for department, text in addresses.items()}
        self._newest: SignedHead | None = None
        self._due = {department: asyncio.Event() for department in addresses}
        self.delivered: Counter[str] = Counter(dict.fromkeys(addresses, 0))
        self.failed: Counter[str] = Counter(dict.fromkeys(addresses, 0))

    def offer(self, head: SignedHead) -> None:
        """A head was published. Whoever is still being told of one before it is told of the newest next."""
        self._newest = head
        for due in self._due.values():
            due.set()

    async def run(self) -> None:
        """Deliver until cancelled."""
        async with fetching() as http, asyncio.TaskGroup() as tasks:
            for department, address in self._addresses.items():
                tasks.create_task(self._serve(http, department, address))

    async def _serve(self, http: aiohttp.ClientSession, department: str, address: URL) -> None:
        due = self._due[department]
        while True:
            await due.wait()
            due.clear()
            if self._newest is None:
                continue
            try:
                await post_json(http, address, self._newest.to_line())
            except FetchError as error:
                self.failed[department] += 1
                _log.error("ledger_head_not_delivered", department=department, error=str(error))
            else:
                self.delivered[department] += 1
