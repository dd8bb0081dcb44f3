"""JSON from another machine, bounded in time and in bytes; nobody is logged in, no redirect is followed."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from yarl import URL

MAX_ANSWER_BYTES = 4 * 1024 * 1024
TIMEOUT_SECONDS = 10.0
_FIRST_ERROR_STATUS = 400
"""RFC 9110 §15.5."""
_FIRST_SERVER_ERROR_STATUS = 500
_OTHER_STATUS = 300


class FetchError(Exception):
    """There is no answer that could be used: no connection, too late, too long, or a failure over there."""

    code = "not_fetched"


class FetchRefusedError(FetchError):
    """The other side answered that it will not (status 400 to 499)."""

    code = "fetch_refused"


def parse_address(text: str) -> URL:
    """An http or https address without a log-in in it. Raise FetchError."""
    try:
        url = URL(text)
    except ValueError:
        url = URL()
    if url.scheme not in {"http", "https"} or not url.host or url.user or url.password:
        raise FetchError("an address is http(s)://HOST[:PORT]/..., without a log-in in it")
    return url


@asynccontextmanager
async def fetching(connector: aiohttp.BaseConnector | None = None) -> AsyncIterator[aiohttp.ClientSession]:
    """What `fetch` needs; each request, connecting included, has `TIMEOUT_SECONDS`."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_SECONDS)
    jar = aiohttp.DummyCookieJar()
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=jar) as http:
        yield http


async def fetch(http: aiohttp.ClientSession, url: URL, params: Mapping[str, str] | None = None) -> bytes:
    """The body of a GET. Raise FetchRefusedError or FetchError."""
    return await _ask(http, "GET", url, params=params)


async def fetch_once(address: str) -> bytes:
    """The body of a GET, of whoever asks but once. Raise FetchRefusedError or FetchError."""
    async with fetching() as http:
        return await fetch(http, parse_address(address))


async def post_json(http: aiohttp.ClientSession, url: URL, content: bytes) -> None:
    """Raise FetchRefusedError or FetchError unless it was taken (status 200 to 299)."""
    await _ask(http, "POST", url, data=content, headers={"Content-Type": "application/json"})


async def _ask(http: aiohttp.ClientSession, method: str, url: URL, **options: Any) -> bytes:
    content = bytearray()
    try:
        async with http.request(method, url, allow_redirects=False, **options) as response:
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > MAX_ANSWER_BYTES:
                    raise FetchError(f"{url.origin()}: an answer of more than {MAX_ANSWER_BYTES} bytes")
            status = response.status
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise FetchError(f"{url.origin()}: {str(error) or type(error).__name__}") from error
    if _FIRST_ERROR_STATUS <= status < _FIRST_SERVER_ERROR_STATUS:
        raise FetchRefusedError(f"{url.origin()}: status {status}")
    if status >= _OTHER_STATUS:
        raise FetchError(f"{url.origin()}: status {status}")
    return bytes(content)
