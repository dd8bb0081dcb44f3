"""Heads that are posted to departments."""

import asyncio
import socket

import pytest
from aiohttp import web
from support.controls import open_city

from gateway.audit.heads import Signer, parse_head
from gateway.bounded_fetch import FetchError
from gateway.head_delivery import HeadDelivery
from gateway.settings import LedgerSettings


class Department:
    """Takes heads, or refuses them while `status` says so."""

    def __init__(self):
        self.heads = []
        self.status = 204
        self.asked = asyncio.Event()

    async def open(self):
        application = web.Application()
        application.router.add_post("/heads", self._take)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        return f"http://127.0.0.1:{self._runner.addresses[0][1]}/heads"

    async def aclose(self):
        await self._runner.cleanup()

    async def _take(self, request):
        if self.status < 300:
            self.heads.append(parse_head(await request.read()))
        self.asked.set()
        return web.Response(status=self.status)


@pytest.fixture
async def department():
    department = Department()
    department.address = await department.open()
    yield department
    await department.aclose()


async def until(condition):
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


async def test_what_fails_is_counted_and_the_next_head_is_tried(department):
    signer = Signer.generate("custos/test")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}/"
    delivery = HeadDelivery({"traffic": department.address, "urban": nobody})
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(delivery.run())
        for number, status in enumerate((204, 500, 302, 404, 200), 1):
            department.status = status
            delivery.offer(signer.sign(number, number - 1, bytes(32), number))
            await until(lambda n=number: delivery.failed.total() + delivery.delivered.total() == 2 * n)
        running.cancel()
    assert [head.head.size for head in department.heads] == [1, 5]
    assert (delivery.delivered["traffic"], delivery.failed) == (2, {"traffic": 3, "urban": 5})


async def test_published_heads_reach_a_department(tmp_path, department):
    told = {"urban": department.address}
    ledger = LedgerSettings(publish_records=1, publish_seconds=3600, deliveries=told)
    async with open_city(tmp_path, ledger=ledger) as city:
        await city.login("auditor")
        newest = (await city.services.store.head()).head.size
        await until(lambda: department.heads and department.heads[-1].head.size >= newest)
        # counted once the answer was read
        await until(lambda: city.services.deliveries.delivered["urban"] >= 1)
        text = await city.request("GET", "/metrics")
        assert 'custos_ledger_heads_delivered_total{department="urban",outcome="ok"}' in text[2]
        assert all(city.services.store.verifier.verify(head) for head in department.heads)


@pytest.mark.parametrize("address", ["ftp://h/", "heads", "http://u:p@h/", ""])
def test_other_addresses_are_refused(address):
    with pytest.raises(FetchError):
        HeadDelivery({"urban": address})
