"""Which addresses a camera may have: checked once, before anything is sent, and pinned for the connection.

A camera's address is typed by people, imported from files and announced by devices, so it may name
anything that this machine can reach. Default deny: an address is allowed only if it lies in an allowed
network; addresses with a special meaning (RFC 6890: private, loopback, link-local, multicast, ...; cloud
metadata services) only if an allowed network lies wholly within that special range, so that allowing
0.0.0.0/0 never opens 127.0.0.1. Every address a name resolves to must pass, and the connection goes to the
checked address, never to the name again (DNS rebinding).
"""

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlsplit

from streams.errors import SourceUnreachableError, UnsupportedError

IpAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network
Lookup = Callable[[str, int], Awaitable[list[str]]]
"""Resolves a name to address literals; raises OSError."""

MAX_URL_CHARACTERS = 2048
MAX_HOST_CHARACTERS = 253
"""RFC 1035 §2.3.4, without the root's dot."""
MAX_ADDRESSES = 16
"""Addresses of one name; a camera has one or two."""

DEFAULT_PORTS = {
    "rtsp": 554,
    "rtsp+udp": 554,
    "rtsps": 322,
    "http": 80,
    "https": 443,
    "rtmp": 1935,
    "srt": None,
}
"""Schemes with a host and the port they imply; SRT implies none."""

_SPECIAL_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "100.100.100.200/32",  # metadata, Alibaba Cloud
            "127.0.0.0/8",
            "168.63.129.16/32",  # metadata, Azure
            "169.254.0.0/16",  # link-local, and everyone else's metadata
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.88.99.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/4",
            "240.0.0.0/4",
            "::/96",  # unspecified, loopback, and IPv4 addresses in the form that RFC 4291 retired
            "64:ff9b::/96",  # NAT64, Teredo and 6to4 carry an IPv4 address that nobody checked
            "64:ff9b:1::/48",
            "100::/64",
            "2001::/23",
            "2001:db8::/32",
            "2002::/16",
            "fc00::/7",
            "fd00:ec2::254/128",  # metadata, AWS
            "fe80::/10",
            "fec0::/10",
            "ff00::/8",
        ),
    )
)
_HOST_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_URL_CHARACTERS = re.compile(r"[!#-;=?-\[\]_a-z~]*")

_Bounds = tuple[int, int]
"""A network's first and last address."""


@dataclass(frozen=True, kw_only=True)
class EgressSettings:
    """Where cameras may be. `allowed_networks` empty: nowhere."""

    allowed_networks: tuple[IpNetwork, ...] = ()
    resolve_timeout_seconds: float = 5.0

    @cached_property
    def _allowed(self) -> list[tuple[int, _Bounds, list[_Bounds]]]:
        """Of each network its version, its bounds, and those of the special ones in it that it does not open.

        As numbers: an import checks a city's addresses, and `in` takes a microsecond for each network.
        """
        return [
            (
                allowed.version,
                _bounds(allowed),
                [
                    _bounds(special)
                    for special in _SPECIAL_NETWORKS
                    if allowed.overlaps(special) and not _lies_within(allowed, special)
                ],
            )
            for allowed in self.allowed_networks
        ]

    def allows(self, address: IpAddress) -> bool:
        number = int(address)
        for version, (first, last), closed in self._allowed:
            if first <= number <= last and address.version == version:
                for low, high in closed:
                    if low <= number <= high:
                        break
                else:
                    return True
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The checked parts of a camera's URL. `host` is lower-case ASCII without brackets or a final dot."""

    scheme: str
    host: str
    port: int


def check_url(url: str, settings: EgressSettings) -> Endpoint:
    """Check a camera's URL as far as that goes without asking DNS.

    Raises `UnsupportedError` for a scheme without a host or unknown here, for a credential inside the URL,
    for a host in a spelling that different programs read differently (RFC 3986 §7.4), and for an address
    literal outside the policy. The message never repeats the URL.
    """
    if len(url) > MAX_URL_CHARACTERS:
        raise UnsupportedError(f"the address is longer than {MAX_URL_CHARACTERS} characters")
    if not _URL_CHARACTERS.fullmatch(url):
        raise UnsupportedError("the address holds a character that must be percent-encoded")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise UnsupportedError("the address is malformed") from error
    scheme = parts.scheme
    if scheme not in DEFAULT_PORTS:
        raise UnsupportedError("the address's scheme is not supported")
    if "@" in parts.netloc:
        raise UnsupportedError("the address must not hold a user name or password")
    port = DEFAULT_PORTS[scheme] if port is None else port
    if not port:
        raise UnsupportedError("the address needs a port")
    return Endpoint(scheme=scheme, host=_check_host(parts.hostname or "", settings), port=port)


async def lookup_address(host: str, port: int) -> list[str]:
    """Ask the system's resolver. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


async def resolve(
    host: str, port: int, settings: EgressSettings, *, lookup: Lookup = lookup_address
) -> tuple[str, int]:
    """Resolve `host` once and return the address literal and port to connect to.

    Raises `UnsupportedError` if any of the addresses is outside the policy and `SourceUnreachableError` if
    there is none.
    """
    host = _check_host(host, settings)
    literal = _literal(host)
    if literal is not None:
        return str(literal), port
    try:
        async with asyncio.timeout(settings.resolve_timeout_seconds):
            found = await lookup(host, port)
        addresses = [_unmapped(ipaddress.ip_address(text)) for text in found]
    except (OSError, ValueError) as error:  # TimeoutError is an OSError
        raise SourceUnreachableError("the camera's name does not resolve") from error
    if not addresses:
        raise SourceUnreachableError("the camera's name does not resolve")
    if len(addresses) > MAX_ADDRESSES:
        raise UnsupportedError(f"the camera's name has more than {MAX_ADDRESSES} addresses")
    for address in addresses:
        _check_address(address, settings)
    return str(addresses[0]), port


def _check_host(host: str, settings: EgressSettings) -> str:
    """Return the host in one spelling; refuse what is not plainly a name or an address."""
    host = host.removesuffix(".").lower()
    literal = _literal(host)
    if literal is not None:
        _check_address(literal, settings)
        return str(literal)
    labels = host.split(".")
    if len(host) > MAX_HOST_CHARACTERS or not all(_HOST_LABEL.fullmatch(label) for label in labels):
        raise UnsupportedError("the address's host is neither a name nor an IP address")
    if _NUMERIC_LABEL.fullmatch(labels[-1]):
        # inet_aton() reads 2130706433, 0x7f.1 and 0177.0.0.1 as 127.0.0.1
        raise UnsupportedError("the address's host is an IP address in an unusual spelling")
    return host


def _literal(host: str) -> IpAddress | None:
    try:
        return _unmapped(ipaddress.ip_address(host))
    except ValueError:
        return None


def _unmapped(address: IpAddress) -> IpAddress:
    """::ffff:127.0.0.1 connects to 127.0.0.1 (RFC 4291 §2.5.5.2)."""
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def _check_address(address: IpAddress, settings: EgressSettings) -> None:
    if getattr(address, "scope_id", None) is not None:
        raise UnsupportedError("the camera's address holds an interface name")
    if not settings.allows(address):
        raise UnsupportedError("the camera's address is not in an allowed network")


def _lies_within(inner: IpNetwork, outer: IpNetwork) -> bool:
    return inner.version == outer.version and inner.subnet_of(outer)  # type: ignore[arg-type]  # same version


def _bounds(network: IpNetwork) -> _Bounds:
    return int(network.network_address), int(network.broadcast_address)
