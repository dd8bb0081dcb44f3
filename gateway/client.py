"""The API as the command line uses it: logged in as a person for as long as a command runs.

A password comes from a file, from `CUSTOS_PASSWORD` or from the terminal, a second factor's code from
`CUSTOS_TOTP` or the terminal, never from an argument: every process of the machine can read those.
"""

import asyncio
import contextlib
import getpass
import os
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import aiohttp
import msgspec
import typer
from yarl import URL

PASSWORD_VARIABLE = "CUSTOS_PASSWORD"  # noqa: S105 - where it is, not what it is
CODE_VARIABLE = "CUSTOS_TOTP"
MAX_ANSWER_BYTES = 64 * 1024 * 1024
MAX_PASSWORD_FILE_BYTES = 4096
_CONNECT_SECONDS = 10.0
_SILENCE_SECONDS = 300.0
"""A large import answers nothing until it is committed."""
_FIRST_ERROR_STATUS = 400
"""RFC 9110 §15.5."""

DEFAULT_URL = "http://127.0.0.1:8080"
UrlOption = Annotated[str, typer.Option("--url", help="Where the gateway is.")]
UserOption = Annotated[
    str, typer.Option("--user", prompt="User name", envvar="CUSTOS_USER", help="Who logs in.")
]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        "--password-file", help=f"A file that holds his password; else {PASSWORD_VARIABLE}, else he is asked."
    ),
]


class ApiError(Exception):
    """The gateway refused, or could not be asked.

    `code` is the problem document's (RFC 9457), or one of `url_invalid`, `gateway_unreachable`,
    `answer_invalid` and `password_missing`. `document` is the whole problem document, empty without one.
    """

    def __init__(self, code: str, message: str, document: Mapping[str, Any] | None = None) -> None:
        self.code = code
        self.document = document or {}
        super().__init__(message)


class ApiClient:
    """Made by `open`. One login; requests may run at once."""

    def __init__(self, http: aiohttp.ClientSession, api: URL) -> None:
        self._http = http
        self._api = api
        self._token = ""

    @classmethod
    @asynccontextmanager
    async def open(cls, url: str, username: str, password: str) -> AsyncIterator[Self]:
        """Log in at the gateway at `url` (http or https), and out at the end; ends an earlier log-in.

        Raises ApiError.
        """
        api = _api_of(url)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS, sock_read=_SILENCE_SECONDS)
        async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as http:
            client = cls(http, api)
            answer = await client._log_in(username, password)
            if not isinstance(answer, dict) or not isinstance(answer.get("token"), str):
                raise ApiError("answer_invalid", "the log-in gave no token: is this the gateway?")
            client._token = answer["token"]
            try:
                yield client
            finally:
                # the token would end by itself
                with contextlib.suppress(ApiError):
                    await client.request("POST", "/logout")

    async def _log_in(self, username: str, password: str) -> Any:
        credentials = {"username": username, "password": password}
        if (code := os.environ.get(CODE_VARIABLE)) is not None:
            credentials["totp"] = code
        try:
            return await self.request("POST", "/login", json=credentials)
        except ApiError as error:
            if error.code != "second_factor_required" or not sys.stdin.isatty():
                raise
        credentials["totp"] = await asyncio.to_thread(getpass.getpass, "Code of your second factor: ")
        return await self.request("POST", "/login", json=credentials)

    async def request(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        params: Mapping[str, str] | None = None,
        data: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The decoded JSON answer, None for an empty one. `path` is what follows `/api/v1`.

        `data`: a body of another kind (bytes, or an asynchronous iterator of them). Raises ApiError.
        """
        async with self._asked(method, path, json, params, data, headers) as response:
            content = await _read(response)
        try:
            return msgspec.json.decode(content) if content else None
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise ApiError("answer_invalid", "the answer is not JSON: is this the gateway?") from None

    async def download(
        self, path: str, params: Mapping[str, str] | None = None
    ) -> AsyncGenerator[bytes, None]:
        """The body of a GET, in pieces. Raises ApiError, also when it ends before its end."""
        async with self._asked("GET", path, None, params, None, None) as response:
            async for piece in response.content.iter_any():
                yield piece

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        json: Any,
        params: Mapping[str, str] | None,
        data: Any,
        headers: Mapping[str, str] | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        sent = dict(headers or {})
        if self._token:
            sent["Authorization"] = f"Bearer {self._token}"
        try:
            async with self._http.request(
                method,
                self._api.joinpath(path.lstrip("/")),
                json=json,
                params=params,
                data=data,
                headers=sent,
                # a login must not travel to where an answer points
                allow_redirects=False,
            ) as response:
                if response.status >= _FIRST_ERROR_STATUS:
                    raise _refusal(response.status, await _read(response))
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            cause = str(error) or type(error).__name__
            raise ApiError("gateway_unreachable", f"{self._api.origin()}: {cause}") from error


def _api_of(url: str) -> URL:
    try:
        parsed = URL(url)
        usable = parsed.scheme in {"http", "https"} and parsed.host and not parsed.user and not parsed.query
    except ValueError:
        raise ApiError("url_invalid", "not an address") from None
    if not usable or parsed.password:
        raise ApiError("url_invalid", "http(s)://HOST[:PORT], without a login in it")
    return parsed / "api/v1"


async def _read(response: aiohttp.ClientResponse) -> bytes:
    content = bytearray()
    async for piece in response.content.iter_any():
        content += piece
        if len(content) > MAX_ANSWER_BYTES:
            raise ApiError("answer_invalid", f"an answer of more than {MAX_ANSWER_BYTES} bytes")
    return bytes(content)


def _refusal(status: int, content: bytes) -> ApiError:
    try:
        document = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError):
        document = {}
    code = document.get("code")
    if not isinstance(code, str):
        return ApiError("answer_invalid", f"status {status} without a problem document: is this the gateway?")
    message = str(document.get("detail") or document.get("title") or f"status {status}")
    reason = document.get("reason")
    return ApiError(code, message if reason is None else f"{message} ({reason})", document)


def read_password(password_file: Path | None) -> str:
    """From the file's first line, else from the environment, else asked on the terminal. Raises ApiError."""
    if password_file is not None:
        try:
            with password_file.open(encoding="utf-8") as file:
                password = file.readline(MAX_PASSWORD_FILE_BYTES).rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ApiError(
                "password_missing", f"{password_file} cannot be read: {type(error).__name__}"
            ) from None
    elif (given := os.environ.get(PASSWORD_VARIABLE)) is not None:
        password = given
    elif sys.stdin.isatty():
        password = getpass.getpass("Password: ")
    else:
        password = ""
    if not password:
        raise ApiError(
            "password_missing", f"give it on a terminal, in {PASSWORD_VARIABLE} or by --password-file"
        )
    return password


def ask(url: str, user: str, password_file: Path | None, method: str, path: str, **options: Any) -> Any:
    """One `ApiClient.request`, with a login of its own. Raises ApiError."""
    password = read_password(password_file)

    async def request() -> Any:
        async with ApiClient.open(url, user, password) as client:
            return await client.request(method, path, **options)

    return asyncio.run(request())
