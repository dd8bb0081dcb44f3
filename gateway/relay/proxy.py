"""Requests that are not this process' own go on over a Unix socket as they came; all but media to control."""

import asyncio
from pathlib import Path
from typing import Self

import aiohttp
from aiohttp import hdrs, web
from multidict import CIMultiDict
from yarl import URL

from gateway.relay.answering import REQUEST_ID, REQUEST_ID_HEADER
from gateway.relay.control_link import ControlUnavailableError
from gateway.relay.refusals import Refusal

REMOTE_HEADER = "X-Custos-Remote"
MAX_RELAYED_ANSWER_BYTES = 64 * 1024
"""Control's answer to a question of the worker's own; a session document has 1 kB, a batch of 50 about 8."""
_STALLED_READER_SECONDS = 30.0
_CONNECT_SECONDS = 5.0

_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    }
)
"""RFC 9110 §7.6.1."""
_NOT_FORWARDED = _HOP_BY_HOP | {"expect", REMOTE_HEADER.lower(), REQUEST_ID_HEADER.lower()}
_OF_THE_CALLER = (
    hdrs.AUTHORIZATION,
    hdrs.COOKIE,
    hdrs.HOST,
    hdrs.ORIGIN,
    "Sec-Fetch-Site",
    hdrs.ACCEPT_LANGUAGE,
)
"""What identifies a caller, and what protects him from other sites."""
_GENERATED_BY_AIOHTTP = (hdrs.ACCEPT, hdrs.ACCEPT_ENCODING, hdrs.USER_AGENT, hdrs.CONTENT_TYPE)


class HttpForwarder:
    """A client of another process' HTTP on its Unix socket; an async context manager.

    `silence_seconds`: an answer that says nothing for so long is given up. None for control's: its streams of
    events may be silent.
    """

    def __init__(self, socket: Path, silence_seconds: float | None = None) -> None:
        self._socket = socket
        self._silence_seconds = silence_seconds
        self._client: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession(
            # No bound of its own: each request here is a connection that the guard has admitted.
            connector=aiohttp.UnixConnector(str(self._socket), limit=0),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=_CONNECT_SECONDS, sock_read=self._silence_seconds
            ),
            skip_auto_headers=_GENERATED_BY_AIOHTTP,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._client is not None:
            await self._client.close()

    async def forward(self, request: web.Request) -> web.StreamResponse:
        """Pass the request on and the answer back, streamed. Raises ControlUnavailableError and Refusal."""
        if not request.raw_path.startswith("/"):
            raise Refusal("bad_request", "not an origin-form target")
        headers = _end_to_end(request.headers, _NOT_FORWARDED)
        headers.update(_about(request))
        try:
            upstream = await self._client_session().request(
                request.method,
                URL(f"http://control{request.raw_path}", encoded=True),
                headers=headers,
                data=request.content if request.body_exists else None,
                allow_redirects=False,
            )
        except aiohttp.ClientError as error:
            raise ControlUnavailableError(type(error).__name__) from error
        async with upstream:
            return await _pass_back(request, upstream)

    def _client_session(self) -> aiohttp.ClientSession:
        if self._client is None:
            raise RuntimeError("use the proxy as an async context manager")
        return self._client


class ControlProxy(HttpForwarder):
    """A client of control's HTTP."""

    async def ask(self, request: web.Request, method: str, path: str, body: bytes) -> tuple[int, bytes]:
        """Call control in the caller's name. Raises `ControlUnavailableError`."""
        headers = CIMultiDict(
            {name: request.headers[name] for name in _OF_THE_CALLER if name in request.headers}
        )
        headers.update(_about(request))
        headers[hdrs.CONTENT_TYPE] = "application/json"
        try:
            async with self._client_session().request(
                method, URL(f"http://control{path}"), headers=headers, data=body, allow_redirects=False
            ) as answer:
                return answer.status, await _read_up_to(answer.content, MAX_RELAYED_ANSWER_BYTES)
        except aiohttp.ClientError as error:
            raise ControlUnavailableError(type(error).__name__) from error


async def _read_up_to(content: aiohttp.StreamReader, size: int) -> bytes:
    body = bytearray()
    while len(body) < size and (piece := await content.read(size - len(body))):
        body += piece
    return bytes(body)


async def _pass_back(request: web.Request, upstream: aiohttp.ClientResponse) -> web.StreamResponse:
    response = web.StreamResponse(
        status=upstream.status, reason=upstream.reason, headers=_end_to_end(upstream.headers, _HOP_BY_HOP)
    )
    await response.prepare(request)
    try:
        async for chunk in upstream.content.iter_any():
            async with asyncio.timeout(_STALLED_READER_SECONDS):
                await response.write(chunk)
    except (aiohttp.ClientError, TimeoutError):
        # The header is gone already: a cut connection is the only honest end of half an answer.
        if request.transport is not None:
            request.transport.abort()
    return response


def _about(request: web.Request) -> dict[str, str]:
    return {REMOTE_HEADER: request.remote or "", REQUEST_ID_HEADER: request[REQUEST_ID]}


def _end_to_end(headers: "aiohttp.typedefs.LooseHeaders", dropped: frozenset[str]) -> CIMultiDict[str]:
    """Without hop-by-hop headers, those named in `Connection` included."""
    source = CIMultiDict(headers)
    named = {token.strip().lower() for value in source.getall("Connection", ()) for token in value.split(",")}
    return CIMultiDict((name, value) for name, value in source.items() if name.lower() not in dropped | named)
