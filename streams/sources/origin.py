"""HTTP(S) from one origin: address checked and pinned, no redirect followed, nothing sent anywhere else."""

import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urljoin, urlsplit, urlunsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from streams.errors import (
    LimitExceededError,
    LoginRefusedError,
    ProtocolError,
    SourceRefusedError,
    SourceUnreachableError,
    UnsupportedError,
)
from streams.sources.egress import EgressSettings, check_url, resolve
from streams.sources.source import CameraAddress

CHUNK_BYTES = 64 * 1024
_MAX_CONNECTIONS = 2
_REDIRECT, _CLIENT_ERROR, _SERVER_ERROR = 300, 400, 500
_LOGIN_REFUSED = frozenset({401, 403})


class Origin:
    """An HTTP client that knows one scheme, host and port; made by `open_origin`."""

    def __init__(self, http: aiohttp.ClientSession, address: CameraAddress, egress: EgressSettings) -> None:
        self._http = http
        self._egress = egress
        self._endpoint = check_url(address.url, egress)

    @asynccontextmanager
    async def get(self, url: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for `url` and yield the response with its body unread.

        Raises `SourceRefusedError` for a redirect, a refusal (4xx) or a URL of another origin, of which
        `LoginRefusedError` for 401 and 403,
        `ProtocolError` for an answer that the library stumbles over, and `SourceUnreachableError` for
        everything else that a retry may cure.
        """
        endpoint = check_url(url, self._egress)
        if endpoint != self._endpoint:
            raise SourceRefusedError("the camera points to another origin")
        # The authority is written anew: no second parser gets to read the camera's spelling of it.
        host = f"[{endpoint.host}]" if ":" in endpoint.host else endpoint.host
        parts = urlsplit(url)
        target = urlunsplit((endpoint.scheme, f"{host}:{endpoint.port}", parts.path, parts.query, ""))
        with _stream_errors_only():
            response = await self._http.get(URL(target, encoded=True), allow_redirects=False)
        async with response:
            _check_status(response.status)
            yield response

    async def read(self, url: str, limit: int) -> bytes:
        """Return a whole body of at most `limit` bytes. Raises as `get`, and `LimitExceededError`."""
        async with self.get(url) as response:
            return await read_body(response, limit)


async def read_chunks(response: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    """Yield a body as it arrives. Raises `SourceUnreachableError` when it breaks off or falls silent."""
    with _stream_errors_only():
        async for chunk in response.content.iter_chunked(CHUNK_BYTES):
            yield chunk


def media_type(response: aiohttp.ClientResponse) -> str:
    """Return what Content-Type names, without parameters. Raises `ProtocolError` if it cannot be read."""
    with _stream_errors_only():
        return response.content_type


async def read_body(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return a body of at most `limit` bytes. Raises `LimitExceededError` as soon as it is longer."""
    body = bytearray()
    async for chunk in read_chunks(response):
        body += chunk
        if len(body) > limit:
            raise LimitExceededError(f"the camera's answer is longer than {limit} bytes")
    return bytes(body)


@asynccontextmanager
async def open_origin(
    address: CameraAddress, egress: EgressSettings, *, timeout_seconds: float
) -> AsyncIterator[Origin]:
    """Resolve and check the camera's address once, and open a client for it and nothing else.

    Digest login (RFC 7616); Basic only if the camera is flagged. Raises `UnsupportedError` or
    `SourceUnreachableError`.
    """
    endpoint = check_url(address.url, egress)
    pinned, _ = await resolve(endpoint.host, endpoint.port, egress)
    timeout = aiohttp.ClientTimeout(
        total=None, connect=timeout_seconds, sock_connect=timeout_seconds, sock_read=timeout_seconds
    )
    resolver = _PinnedResolver(endpoint.host, pinned)
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=resolver, limit=_MAX_CONNECTIONS),
        timeout=timeout,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"Accept-Encoding": "identity", "User-Agent": "Custos", **_basic_login(address)},
        auto_decompress=False,
        trust_env=False,
        read_bufsize=CHUNK_BYTES,
        middlewares=_digest_login(address),
    ) as http:
        yield Origin(http, address, egress)


def resolve_reference(base: str, reference: str) -> str:
    """Resolve a reference in a playlist (RFC 3986 §5). Raises `UnsupportedError` if it is malformed."""
    try:
        return urljoin(base, reference)
    except ValueError as error:
        raise UnsupportedError("the camera sent a malformed address") from error


class _PinnedResolver(AbstractResolver):
    """Knows the one host and its checked address."""

    def __init__(self, host: str, address: str) -> None:
        self._host = host
        self._address = address

    async def resolve(
        self,
        host: str,
        port: int = 0,
        family: socket.AddressFamily = socket.AF_UNSPEC,  # noqa: ARG002
    ) -> list[ResolveResult]:
        if host.removesuffix(".").lower() != self._host:
            raise OSError("not the camera's host")
        version = socket.AF_INET6 if ":" in self._address else socket.AF_INET
        return [
            ResolveResult(
                hostname=host,
                host=self._address,
                port=port,
                family=version,
                proto=socket.IPPROTO_TCP,
                flags=socket.AI_NUMERICHOST,
            )
        ]

    async def close(self) -> None:
        """Hold nothing."""


def _basic_login(address: CameraAddress) -> dict[str, str]:
    if address.username is None or not address.allow_basic:
        return {}
    return {"Authorization": aiohttp.encode_basic_auth(*_credential(address), "utf-8")}


def _digest_login(address: CameraAddress) -> tuple[aiohttp.DigestAuthMiddleware, ...]:
    if address.username is None or address.allow_basic:
        return ()
    return (aiohttp.DigestAuthMiddleware(*_credential(address)),)


def _credential(address: CameraAddress) -> tuple[str, str]:
    username = address.username or ""
    if ":" in username:
        raise UnsupportedError("a user name with a colon cannot log in over HTTP")
    return username, address.password or ""


@contextmanager
def _stream_errors_only() -> Iterator[None]:
    """Name only the kind of failure: the library's messages may repeat the address."""
    try:
        yield
    except (aiohttp.ClientError, OSError) as error:
        raise SourceUnreachableError(f"HTTP failed ({type(error).__name__})") from None
    except Exception as error:  # noqa: BLE001
        # The library hands the camera's header fields to codecs and parsers that raise errors of their own:
        # UnicodeEncodeError for a realm in GBK, ValueError for a malformed `domain`, IndexError for
        # `x*0*`. No list of them is complete.
        raise ProtocolError(f"the camera's HTTP cannot be read ({type(error).__name__})") from None


def _check_status(status: int) -> None:
    if status >= _SERVER_ERROR:
        raise SourceUnreachableError(f"the camera answered with HTTP status {status}")
    if status in _LOGIN_REFUSED:
        raise LoginRefusedError(f"the camera rejects the credentials (HTTP status {status})")
    if status >= _CLIENT_ERROR:
        raise SourceRefusedError(f"the camera refused with HTTP status {status}")
    if status >= _REDIRECT:
        raise SourceRefusedError("the camera redirects, which is not followed")
