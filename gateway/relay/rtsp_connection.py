"""One RTSP connection as its server: requests one at a time, answers, packets in between, deadlines.

    header ──request complete──▶ busy (no deadline) ──answered──▶ idle ──first byte──▶ header
                                                          └──media flows──▶ open (no deadline here)

A client that is silent, drips or never reads costs a bounded buffer for a bounded time. Whatever ends the
connection cancels the task that serves it.
"""

import asyncio
import time
from collections import deque
from collections.abc import Callable
from typing import Protocol, cast

from gateway.relay.guard import Deadline, GuardSettings, give_up_the_vanished
from gateway.relay.refusals import refusal_document
from streams.errors import LimitExceededError, StreamError
from streams.sources.bit_rate_limit import MIN_CHARGE_BYTES, BitRateLimit
from streams.wire.rtsp import Headers, InterleavedPacket, RtspParser, RtspRequest, RtspResponse, serialize

MAX_WAITING_REQUESTS = 16
"""Requests that a client may send ahead of our answers; players send one at a time."""

REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    415: "Unsupported Media Type",
    453: "Not Enough Bandwidth",
    454: "Session Not Found",
    455: "Method Not Valid in This State",
    459: "Aggregate Operation Not Allowed",
    461: "Unsupported Transport",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
    504: "Gateway Time-out",
    551: "Option not supported",
}
"""Reason phrases of the statuses that we answer with (RFC 2326 §7.1.1)."""

MAX_CLIENT_BIT_RATE_BPS = 8_000_000
"""What anybody may send who does not publish a camera: requests, and reports about reception."""
_OTHER_STATUSES = {409: 454, 422: 400, 429: 503}
"""HTTP's statuses that RTSP lacks, as the nearest that it has."""
_SERVER = ("Server", "Custos")


class ConnectionOwner(Protocol):
    """Who counts connections and serves them."""

    def connection_opened(self, connection: "RtspConnection") -> asyncio.Task[None] | None:
        """The task that serves it, or None if it is one too many."""

    def connection_closed(self, connection: "RtspConnection") -> None: ...


def discard(packet: InterleavedPacket, received_ns: int) -> None:
    """Deliver to nobody: what viewers report about their reception is of no use here."""


class RtspConnection(asyncio.Protocol):
    """`deliver` takes the client's packets and when they came; a StreamError of its ends the connection.

    `has_media`: pictures flow in either direction, and whoever moves them keeps the deadlines. `limit`: what
    the client may send.
    """

    def __init__(self, owner: ConnectionOwner, settings: GuardSettings) -> None:
        self.deliver: Callable[[InterleavedPacket, int], None] = discard
        self.has_media = False
        self.limit = BitRateLimit(MAX_CLIENT_BIT_RATE_BPS)
        self.remote = ""
        self.is_encrypted = False
        self.failure: StreamError | None = None
        self._owner = owner
        self._settings = settings
        self._parser = RtspParser()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._requests: deque[RtspRequest] = deque()
        self._changed = asyncio.Event()
        self._may_write = True
        self._is_idle = False
        self._deadline = Deadline(self.abort)

    # The server's side

    @property
    def transport(self) -> asyncio.Transport:
        assert self._transport is not None  # noqa: S101 - nobody has a connection that was not made
        return self._transport

    async def next_request(self, until: asyncio.Future[None] | None = None) -> RtspRequest | None:
        """The client's next request, once it has read the earlier answers; None when `until` is done.

        Whoever completes `until` calls `wake`.
        """
        while until is None or not until.done():
            if self._requests and self._may_write:
                self._deadline.drop()
                self._is_idle = False
                return self._requests.popleft()
            self._changed.clear()
            await self._changed.wait()
        return None

    def wake(self, _: object = None) -> None:
        """Let `next_request` look again."""
        self._changed.set()

    def respond(
        self, request: RtspRequest, status: int, *headers: tuple[str, str], body: bytes = b""
    ) -> None:
        """Answer a request, once. Silently without effect on a connection that is closing."""
        self.write(serialize(response_to(request, status, *headers, body=body)))
        self._is_idle = True
        if not self.has_media:
            self._deadline.set(self._settings.idle_seconds)

    def write(self, data: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(data)

    def fail(self, error: StreamError) -> None:
        """The client broke a rule or a limit: close at once."""
        self.failure = error
        self.abort()

    def abort(self) -> None:
        """Close at once; what is unsent is lost."""
        self.transport.abort()

    # The transport's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are asyncio.Transport in all but inheritance
        self._transport = cast("asyncio.Transport", transport)
        peer = transport.get_extra_info("peername")
        self.remote = peer[0] if isinstance(peer, tuple) else ""
        self.is_encrypted = transport.get_extra_info("sslcontext") is not None
        self._task = self._owner.connection_opened(self)
        if self._task is None:
            self._transport.write(serialize(RtspResponse(status=503, reason=REASONS[503])))
            self._transport.close()
            return
        give_up_the_vanished(transport, self._settings)
        self._deadline.set(self._settings.header_seconds)

    def data_received(self, data: bytes) -> None:
        if self._task is None or self.failure is not None:
            return
        if self._is_idle and not self.has_media:
            self._is_idle = False
            self._deadline.set(self._settings.header_seconds)
        received_ns = time.monotonic_ns()
        charged = 0
        try:
            self.limit.take(len(data), received_ns)
            for event in self._parser.receive_data(data):
                charged += MIN_CHARGE_BYTES
                if charged > len(data):
                    self.limit.take(MIN_CHARGE_BYTES, received_ns)
                if isinstance(event, InterleavedPacket):
                    self.deliver(event, received_ns)
                elif isinstance(event, RtspRequest):
                    self._queue(event)
        except StreamError as error:
            self.fail(error)

    def pause_writing(self) -> None:
        self._may_write = False

    def resume_writing(self) -> None:
        self._may_write = True
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the Protocol's
        self._deadline.drop()
        if self._task is not None:
            self._owner.connection_closed(self)
            self._task.cancel()

    def _queue(self, request: RtspRequest) -> None:
        if len(self._requests) == MAX_WAITING_REQUESTS:
            raise LimitExceededError("too many RTSP requests at once")
        self._requests.append(request)
        self._changed.set()


def response_to(
    request: RtspRequest, status: int, *headers: tuple[str, str], body: bytes = b""
) -> RtspResponse:
    """A response with the request's own number (RFC 2326 §12.17)."""
    number: Headers = () if request.cseq is None else (("CSeq", str(request.cseq)),)
    return RtspResponse(
        status=status, reason=REASONS[status], headers=(*number, _SERVER, *headers), body=body
    )


def status_of(error: Exception) -> int:
    """The nearest RTSP status to what an error of the relay stands for."""
    document = refusal_document(error, "")
    if document is None:
        return 500
    status = _OTHER_STATUSES.get(document.status, document.status)
    return status if status in REASONS else 503
