"""One RTSP connection as its client: requests and their answers, logins, interleaved packets.

Life: made by `RtspConnection.open`, ended by `abort`, or by the peer. Whatever ends it, every later call
raises the reason. Packets are delivered synchronously from the loop's read callback, without a queue.
"""

import asyncio
import os
import secrets
from collections.abc import Callable
from typing import Final, Self, cast

from streams.errors import (
    LimitExceededError,
    LoginRefusedError,
    ProtocolError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.sources.bit_rate_limit import MIN_CHARGE_BYTES, BitRateLimit
from streams.sources.source import CameraAddress
from streams.wire.digest import (
    Challenge,
    Credentials,
    DigestChallenge,
    authorize,
    choose_challenge,
    parse_challenges,
)
from streams.wire.fragment_run import FragmentRun, FragmentScanner
from streams.wire.rtsp import Headers, InterleavedPacket, RtspParser, RtspRequest, RtspResponse, serialize

MAX_UNSENT_BYTES: Final = 64 * 1024
"""What a camera may leave unread while it asks questions that we must answer."""
LARGE_READ_BYTES: Final = 128 * 1024
"""After a read of so much the other streams get their turn before this connection is read again."""

TURN_BYTES: Final = 64 * 1024
"""What a turn reads at most; the rest comes after the other streams' events, as after a large read."""

_USER_AGENT: Final = "Custos"
_MAX_ANSWERS: Final = 2
"""To one request's challenges: one, and one more if its nonce was stale."""

Deliver = Callable[[InterleavedPacket, int], None]
"""Takes a packet and when it arrived, in ns of the connection's clock. May raise StreamError."""
DeliverRun = Callable[[FragmentRun, int], None]


def discard(packet: InterleavedPacket | FragmentRun, received_ns: int) -> None:
    """Deliver to nobody."""


class RtspConnection(asyncio.Protocol):
    """`deliver` and `deliver_run` may be replaced at any time; one exchange at a time."""

    def __init__(self, clock_ns: Callable[[], int], limit: BitRateLimit) -> None:
        self.deliver: Deliver = discard
        self.deliver_run: DeliverRun = discard
        self._clock_ns = clock_ns
        self._limit = limit
        self._parser = RtspParser()
        self._transport: asyncio.Transport | None = None
        loop = asyncio.get_running_loop()
        # Results, not exceptions: nobody may be waiting when the connection ends.
        self._ended: asyncio.Future[Exception] = loop.create_future()
        self._response: asyncio.Future[RtspResponse] | None = None
        self._cseq = 0
        self._is_in_turns = False
        self._descriptor = -1
        self._fetched = b""

    @classmethod
    async def open(
        cls,
        address: str,
        port: int,
        limit: BitRateLimit,
        *,
        timeout_seconds: float,
        clock_ns: Callable[[], int],
    ) -> Self:
        """Raises SourceUnreachableError."""
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(timeout_seconds):
                _, connection = await loop.create_connection(lambda: cls(clock_ns, limit), address, port)
        except TimeoutError:
            raise SourceUnreachableError("the camera does not accept the connection in time") from None
        except OSError as error:
            raise SourceUnreachableError(f"no connection to the camera ({error.strerror})") from None
        return connection

    @property
    def local_ip(self) -> str:
        """Our address, as the camera sees it before any translation."""
        assert self._transport is not None  # noqa: S101 (open() returns connected ones only)
        return str(self._transport.get_extra_info("sockname")[0])

    def scan_for(self, scanner: FragmentScanner | None) -> None:
        """From now on deliver these fragments in runs; None: packet by packet."""
        self._parser.scanner = scanner

    def fetch(self) -> bool:
        """Read past the transport, which only learns of the connection's end."""
        transport = self._transport
        if transport is None or transport.is_closing():
            return False
        if not self._is_in_turns:
            self._is_in_turns = True
            transport.pause_reading()
            self._descriptor = transport.get_extra_info("socket").fileno()
        try:
            # The transport is not closing: nobody else has this number yet.
            data = os.read(self._descriptor, TURN_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            transport.resume_reading()  # it finds the same, and tells `connection_lost` why
            return False
        self._fetched = data
        return True

    def take(self) -> bool:
        """What goes wrong ends the connection."""
        data, self._fetched = self._fetched, b""
        try:
            self.data_received(data)
        except Exception as error:  # noqa: BLE001 - as for a transport: see `connection_lost`
            self.end(error)
        return len(data) == TURN_BYTES

    def end_turns(self) -> None:
        if self._is_in_turns:
            self._is_in_turns = False
            if self._fetched:
                self.take()
            self._resume()

    def end(self, reason: Exception) -> None:
        """Close at once; whoever waits for the connection gets the reason, unless it has another already."""
        if not self._ended.done():
            self._ended.set_result(reason)
        self.abort()

    def abort(self) -> None:
        """Close at once; what is unsent is lost."""
        if self._transport is not None:
            self._transport.abort()

    async def exchange(
        self, method: str, url: str, headers: Headers, *, timeout_seconds: float
    ) -> RtspResponse:
        """Send a request and wait for its response. Raises StreamError."""
        self._cseq += 1
        fields = (("CSeq", str(self._cseq)), ("User-Agent", _USER_AGENT), *headers)
        self._write(serialize(RtspRequest(method=method, url=url, headers=fields)))
        self._response = asyncio.get_running_loop().create_future()
        try:
            await asyncio.wait(
                (self._response, self._ended),
                timeout=timeout_seconds,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if self._response.done():
                return self._response.result()
        finally:
            self._response = None
        if self._ended.done():
            raise self._ended.result()
        raise SourceUnreachableError(f"the camera does not answer {method}")

    async def wait_until_ended(self, *, timeout_seconds: float) -> None:
        """Return after the time; raise what ended the connection if it ends before."""
        await asyncio.wait((self._ended,), timeout=timeout_seconds)
        if self._ended.done():
            raise self._ended.result()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but inheritance
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        if self._ended.done():
            return
        received_ns = self._clock_ns()
        size = charge = len(data)
        position, run_at = 0, self._parser.run_at
        try:
            while (run := run_at(data, position)) is not None:
                self.deliver_run(run, received_ns)
                position = run.stop
            if position < size:
                charge = max(size, self._receive_data(data, position, received_ns))
            self._limit.take(charge, received_ns)
        except StreamError as error:
            self.end(error)
        else:
            if size >= LARGE_READ_BYTES:
                self._let_others_go_first()

    def _receive_data(self, data: bytes, position: int, received_ns: int) -> int:
        """Deliver what is complete from there on; returns what the packets and messages in it are charged."""
        charge = 0
        for event in self._parser.receive_data(data, position):
            if isinstance(event, FragmentRun):
                self.deliver_run(event, received_ns)
                continue
            charge += MIN_CHARGE_BYTES
            if isinstance(event, InterleavedPacket):
                self.deliver(event, received_ns)
            else:
                self._take_message(event)
        return charge

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None or isinstance(exc, OSError):
            self.end(SourceUnreachableError("the camera closed the connection"))
        else:
            self.end(exc)  # a bug of ours inside a callback: it must surface in whoever waits

    def _let_others_go_first(self) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.pause_reading()
            asyncio.get_running_loop().call_soon(self._resume)

    def _resume(self) -> None:
        if self._transport is not None and not (self._is_in_turns or self._transport.is_closing()):
            self._transport.resume_reading()

    def _take_message(self, message: RtspRequest | RtspResponse) -> None:
        if isinstance(message, RtspResponse):
            self._take_response(message)
        else:
            self._answer(message)

    def _take_response(self, response: RtspResponse) -> None:
        if self._response is None or self._response.done():
            return
        # Late answers to requests that were given up carry another number; a few cameras send none at all.
        if response.cseq in (None, self._cseq):
            self._response.set_result(response)

    def _answer(self, request: RtspRequest) -> None:
        if request.method == "REDIRECT":
            raise SourceRefusedError("the camera redirects to another address")
        cseq = (("CSeq", request.header("CSeq") or "0"),)
        self._write(serialize(RtspResponse(status=501, reason="Not Implemented", headers=cseq)))

    def _write(self, data: bytes) -> None:
        if self._ended.done():
            raise self._ended.result()
        assert self._transport is not None  # noqa: S101 (open() returns connected ones only)
        if self._transport.get_write_buffer_size() > MAX_UNSENT_BYTES:
            raise LimitExceededError("the camera asks, and does not read the answers")
        self._transport.write(data)


class TransportRefusedError(UnsupportedError):
    """461: the camera does not send in the way that SETUP asked for."""


class RtspRequester:
    """Requests of one client on one connection, with the login that the camera asks for.

    A fresh challenge is answered once: cameras lock the account of whoever repeats a wrong password.
    """

    def __init__(self, connection: RtspConnection, address: CameraAddress, *, timeout_seconds: float) -> None:
        self._connection = connection
        self._address = address
        self._timeout_seconds = timeout_seconds
        self._challenge: Challenge | None = None
        self._is_proven = False
        self._nonce_count = 0

    async def request(self, method: str, url: str, *headers: tuple[str, str]) -> RtspResponse:
        """The response, 2xx only.

        Raises SourceRefusedError for every redirect (nothing is ever sent to the new address), rejected or
        impossible logins and other 4xx, SourceUnreachableError for 5xx, a lost session or a lost connection,
        TransportRefusedError if the camera does not send in the way that SETUP asks for.
        """
        response = await self._attempt(method, url, headers)
        for _ in range(_MAX_ANSWERS):
            if response.status != 401:  # noqa: PLR2004
                break
            self._take_challenge(response)
            response = await self._attempt(method, url, headers)
        _raise_for_status(method, response.status)
        self._is_proven = self._challenge is not None
        return response

    async def _attempt(self, method: str, url: str, headers: Headers) -> RtspResponse:
        fields = (*headers, *self._authorization(method, url))
        return await self._connection.exchange(method, url, fields, timeout_seconds=self._timeout_seconds)

    def _authorization(self, method: str, url: str) -> Headers:
        if self._challenge is None:
            return ()
        self._nonce_count += 1
        value = authorize(
            self._challenge,
            self._credentials(),
            method,
            url,
            nonce_count=self._nonce_count,
            client_nonce=secrets.token_hex(8),
        )
        return (("Authorization", value),)

    def _take_challenge(self, response: RtspResponse) -> None:
        self._credentials()
        challenges = parse_challenges(response.header_values("WWW-Authenticate"))
        chosen = choose_challenge(challenges, allow_basic=self._address.allow_basic)
        if chosen is None and challenges:
            raise SourceRefusedError("the camera wants its password in clear, which is not allowed for it")
        if chosen is None:
            raise SourceRefusedError("the camera asks for a login of an unknown kind")
        is_stale = isinstance(chosen, DigestChallenge) and chosen.is_stale
        if self._challenge is not None and not self._is_proven and not is_stale:
            raise LoginRefusedError("the camera rejects the credentials")
        self._challenge, self._is_proven, self._nonce_count = chosen, False, 0

    def _credentials(self) -> Credentials:
        if self._address.username is None:
            raise SourceRefusedError("the camera asks for credentials, and none are configured")
        return Credentials(username=self._address.username, password=self._address.password or "")


def _raise_for_status(method: str, status: int) -> None:
    match status // 100, status:
        case 2, _:
            return
        case 3, _:
            raise SourceRefusedError("the camera redirects to another address")
        case _, 401:
            raise LoginRefusedError("the camera rejects the credentials")
        case _, 454:
            raise SourceUnreachableError("the camera has forgotten the session")
        case _, 461:
            raise TransportRefusedError("the camera does not send video in this way")
        case 4, _:
            raise SourceRefusedError(f"the camera refuses {method} ({status})")
        case 5, _:
            raise SourceUnreachableError(f"the camera fails at {method} ({status})")
        case _:
            raise ProtocolError(f"unexpected answer to {method}")
