"""Who asks, behind proxies: a client may write what it likes, and is believed only what a proxy added."""

import ipaddress

import pytest
from aiohttp import ClientSession, web
from hypothesis import given
from hypothesis import strategies as st

from gateway.relay.client_address import MAX_FORWARDED_ADDRESSES, client_address, is_trusted, of_the_client
from gateway.relay.guard import ConnectionGuard, GuardSettings
from gateway.relay.refusals import Refusal

PROXIES = tuple(map(ipaddress.ip_network, ("10.0.0.0/8", "fd00::/8")))


@pytest.mark.parametrize(
    ("peer", "forwarded", "client"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["1.1.1.1", "203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, 10.0.0.2"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9:4711"], "203.0.113.9"),
        ("10.0.0.1", ["[2001:db8::1]:4711"], "2001:db8::1"),
        ("10.0.0.1", ["::ffff:203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["203.0.113.9, unknown"], "10.0.0.1"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("fd00::1", ["203.0.113.9"], "203.0.113.9"),
        ("", ["203.0.113.9"], ""),
    ],
)
def test_the_nearest_address_that_somebody_trusted_vouches_for(peer, forwarded, client):
    assert client_address(peer, forwarded, PROXIES) == client


def test_without_trusted_proxies_nobody_is_believed():
    assert client_address("10.0.0.1", ["203.0.113.9"], ()) == "10.0.0.1"
    assert not is_trusted("10.0.0.1", ())


@pytest.mark.parametrize(
    ("hops", "client"),
    [(MAX_FORWARDED_ADDRESSES - 1, "203.0.113.9"), (MAX_FORWARDED_ADDRESSES, "10.0.0.2")],
)
def test_a_list_is_read_to_its_limit(hops, client):
    assert client_address("10.0.0.1", ["203.0.113.9" + ", 10.0.0.2" * hops], PROXIES) == client


@given(st.text(max_size=40), st.lists(st.text(max_size=80), max_size=4))
def test_whatever_is_forwarded_gives_an_address_or_the_peer(peer, forwarded):
    client = client_address(peer, forwarded, PROXIES)
    assert client == peer or ipaddress.ip_address(client)


async def _serve(networks, limit=2):
    guard = ConnectionGuard(
        GuardSettings(max_connections_per_address=limit), lambda address: is_trusted(address, networks)
    )

    async def who(request):
        if request.query.get("nested"):
            async with ClientSession() as other:
                url = f"http://{request.host}/"
                answers = [
                    (await other.get(url, headers={"X-Forwarded-For": "203.0.113.9"})).status for _ in "12"
                ]
            return web.Response(text=str(answers))
        return web.Response(text=request.remote)

    @web.middleware
    async def refuse(request, handler):
        try:
            return await handler(request)
        except Refusal as refusal:
            return web.Response(status=503, text=refusal.code)

    app = web.Application(middlewares=[refuse, of_the_client(networks, guard)])
    app.router.add_get("/", who)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def test_handlers_see_the_client(tmp_path):
    for networks, expected in (((ipaddress.ip_network("127.0.0.0/8"),), "203.0.113.9"), ((), "127.0.0.1")):
        runner, url = await _serve(networks)
        async with ClientSession() as client:
            answer = await client.get(url, headers={"X-Forwarded-For": "203.0.113.9"})
            assert await answer.text() == expected
        await runner.cleanup()


async def test_a_client_behind_a_proxy_has_a_bound_of_its_own():
    runner, url = await _serve((ipaddress.ip_network("127.0.0.0/8"),), limit=1)
    async with ClientSession() as client:
        answer = await client.get(url + "?nested=1", headers={"X-Forwarded-For": "203.0.113.9"})
        assert await answer.text() == "[503, 503]"
        answer = await client.get(url + "?nested=1", headers={"X-Forwarded-For": "203.0.113.10"})
        assert await answer.text() == "[200, 200]"
    await runner.cleanup()


def test_connections_are_bounded_by_address_and_ipv6_by_neighbourhood():
    guard = ConnectionGuard(
        GuardSettings(max_connections_per_address=2), lambda address: address == "10.0.0.1"
    )
    assert [guard.admit("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert [guard.admit(f"2001:db8::{i}") for i in range(3)] == [True, True, False]
    assert guard.admit("2001:db8:0:1::1")
    assert all(guard.admit("10.0.0.1") for _ in range(5))
    guard.release("192.0.2.1")
    assert guard.admit("::ffff:192.0.2.1")
    assert not guard.admit("192.0.2.1")
    assert guard.admit("::ffff:192.0.2.2")
