"""Who is really asking, when proxies stand in front: only their own word counts, and only a trusted one's.

`X-Forwarded-For` is a list that every proxy appends to, so whoever asks can write the left of it. It is
read from the right, from the connection's own address on, as long as the addresses are of trusted proxies.
"""

import ipaddress
from collections.abc import Iterable, Sequence

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

from gateway.relay.answering import CLIENT_ADDRESS
from gateway.relay.guard import ConnectionGuard
from gateway.relay.refusals import Refusal

MAX_FORWARDED_ADDRESSES = 32
"""Hops that are looked at; a longer list names the client as the last of them."""

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def client_address(peer: str, forwarded: Iterable[str], trusted: Sequence[Network]) -> str:
    """The address nearest to the client that somebody trusted vouches for; `peer` is the connection's.

    `forwarded`: the values of `X-Forwarded-For` in order. What is no address ends the list, since nobody can
    tell who wrote what stands left of it.
    """
    hops = [hop.strip() for value in forwarded for hop in value.split(",")]
    address = peer
    for hop in reversed(hops[-MAX_FORWARDED_ADDRESSES:]):
        if not is_trusted(address, trusted) or (parsed := _parse(hop)) is None:
            break
        address = str(parsed)
    return address


def is_trusted(address: str, trusted: Sequence[Network]) -> bool:
    parsed = _parse(address) if trusted else None
    return parsed is not None and any(parsed in network for network in trusted)


def _parse(text: str) -> _Address | None:
    """An address, with or without a port as some proxies write it; IPv4 mapped into IPv6 is IPv4."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def of_the_client(trusted: Sequence[Network], guard: ConnectionGuard) -> Middleware:
    """A middleware that gives handlers a request whose `remote` is the client's.

    A trusted proxy's connections are not bounded by address: instead each client's requests through it are.
    """

    @web.middleware
    async def replace_remote(request: web.Request, handler: Handler) -> web.StreamResponse:
        peer = request.remote or ""
        if not is_trusted(peer, trusted):
            return await handler(request)
        address = client_address(peer, request.headers.getall(hdrs.X_FORWARDED_FOR, ()), trusted)
        request[CLIENT_ADDRESS] = address
        if not guard.admit_request(address):
            raise Refusal("connection_limit")
        try:
            return await handler(request.clone(remote=address))
        finally:
            guard.release_request(address)

    return replace_remote
