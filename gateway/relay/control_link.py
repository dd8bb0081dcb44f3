"""The worker's end of the conversation with control: ask, report, be told; reconnect when it breaks.

Ends of sessions and events of analyses are kept while there is no connection and follow the next `Hello`; all
other reports are absolute counts or current states, which the next one replaces.
"""

import asyncio
import itertools
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import structlog

from gateway.channel import Channel, ChannelError
from gateway.messages import (
    AnalysisEvent,
    AnalysisState,
    Claim,
    Claimed,
    DigestProof,
    Drain,
    End,
    Hello,
    Lease,
    PublisherExpected,
    PublisherFailed,
    PublisherLogin,
    Redeem,
    Redeemed,
    Refused,
    Release,
    SessionOver,
    StartAnalysis,
    StopAnalysis,
    Streaming,
    StreamMoved,
    ToControl,
    ToWorker,
    Usage,
)

MAX_WAITING_REPORTS = 10_000
"""Ends and events kept for a control that is away; beyond, the oldest are forgotten."""

Pushed = Lease | End | StreamMoved | StartAnalysis | StopAnalysis | Drain | Claimed
"""A claim is among them when its answer comes too late for who asked."""
Report = Release | Usage | AnalysisState | Streaming | PublisherFailed
Kept = SessionOver | AnalysisEvent
Answer = Redeemed | Claimed | PublisherExpected

_DECODER = msgspec.msgpack.Decoder(ToWorker)
_log = structlog.get_logger(__name__)


@dataclass(frozen=True, kw_only=True)
class LinkSettings:
    """`answer_seconds` bounds one question; the pause before a new connection doubles and is jittered.

    It stays short: a connection to a local socket costs next to nothing, and a control that was killed must
    be heard before the lease runs out.
    """

    answer_seconds: float = 10.0
    first_pause_seconds: float = 0.1
    max_pause_seconds: float = 0.3


class ControlUnavailableError(Exception):
    """There is no connection to control, or it does not answer in time."""


class RefusedError(Exception):
    """Control said no."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(refused.code)
        self.status = refused.status
        self.code = refused.code
        self.detail = refused.detail


class ControlLink:
    """One per worker. `hello` is asked at each connection; `on_push` gets what control says of itself."""

    def __init__(
        self,
        socket: Path,
        hello: Callable[[], Hello],
        on_push: Callable[[Pushed], None],
        settings: LinkSettings,
    ) -> None:
        self._socket = socket
        self._hello = hello
        self._on_push = on_push
        self._settings = settings
        self._channel: Channel[ToWorker, ToControl] | None = None
        self._numbers = itertools.count(1)
        self._asked: dict[int, asyncio.Future[Answer]] = {}
        self._waiting: deque[Kept] = deque(maxlen=MAX_WAITING_REPORTS)

    async def run(self) -> None:
        """Stay connected until cancelled."""
        pause = self._settings.first_pause_seconds
        while True:
            try:
                await self._converse()
                pause = self._settings.first_pause_seconds
            except (ChannelError, OSError) as error:
                if pause == self._settings.first_pause_seconds:
                    _log.warning("control_unreachable", error=type(error).__name__)
            await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter, no secret
            pause = min(2 * pause, self._settings.max_pause_seconds)

    async def redeem(
        self, session: str, ticket: str, protocol: str, remote: str, digest: DigestProof | None = None
    ) -> Redeemed:
        """Raises `RefusedError`, `ControlUnavailableError`."""
        number = next(self._numbers)
        question = Redeem(
            request=number, session=session, ticket=ticket, protocol=protocol, remote=remote, digest=digest
        )
        answer = await self._ask(number, question)
        if not isinstance(answer, Redeemed):
            raise ControlUnavailableError("control answered something else")
        return answer

    async def claim(self, stream: str, *, publishing: bool = False) -> Claimed:
        """Raises `RefusedError`, `ControlUnavailableError`."""
        number = next(self._numbers)
        answer = await self._ask(number, Claim(request=number, stream=stream, publishing=publishing))
        if not isinstance(answer, Claimed):
            raise ControlUnavailableError("control answered something else")
        return answer

    async def publisher_login(self, camera: str) -> PublisherExpected:
        """Raises `RefusedError`, `ControlUnavailableError`."""
        number = next(self._numbers)
        answer = await self._ask(number, PublisherLogin(request=number, camera=camera))
        if not isinstance(answer, PublisherExpected):
            raise ControlUnavailableError("control answered something else")
        return answer

    def report(self, message: Report) -> None:
        """Tell control; forgotten if it is away."""
        if self._channel is not None:
            self._send(self._channel, message)

    def deliver(self, message: Kept) -> None:
        """Tell control, now or when it is back."""
        if self._channel is None or not self._send(self._channel, message):
            self._waiting.append(message)

    async def flush(self) -> None:
        """Wait until all reports are with the kernel; returns at once if control is away."""
        if self._channel is not None:
            try:
                await self._channel.flush()
            except ConnectionError:
                _log.warning("control_unreachable", error="flush")

    def reconnect(self) -> None:
        """Give up a connection that is of no use, because control says nothing on it."""
        if self._channel is not None:
            self._channel.abort()

    async def _converse(self) -> None:
        reader, writer = await asyncio.open_unix_connection(self._socket)
        channel: Channel[ToWorker, ToControl] = Channel(reader, writer, _DECODER)
        try:
            channel.send(self._hello())
            self._channel = channel
            while self._waiting:
                channel.send(self._waiting[0])
                self._waiting.popleft()
            _log.info("control_connected")
            async for message in channel:
                self._receive(message)
            _log.warning("control_closed")
        finally:
            self._channel = None
            for future in self._asked.values():
                if not future.done():
                    future.set_exception(ControlUnavailableError("the connection to control broke"))
            self._asked.clear()
            channel.abort()

    def _receive(self, message: ToWorker) -> None:
        if not isinstance(message, Answer | Refused):
            self._on_push(message)
            return
        future = self._asked.pop(message.request, None)
        if future is None or future.done():
            self._undo(message)
        elif isinstance(message, Refused):
            future.set_exception(RefusedError(message))
        else:
            future.set_result(message)

    def _undo(self, message: Answer | Refused) -> None:
        """An answer that nobody waits for any more: what it started is over, unless it is in use already."""
        if isinstance(message, Redeemed):
            self.deliver(
                SessionOver(
                    session=message.session, reason="lost", lost=True, bytes_sent=0, dropped_access_units=0
                )
            )
        elif isinstance(message, Claimed):
            self._on_push(message)

    async def _ask(self, number: int, question: Redeem | Claim | PublisherLogin) -> Answer:
        if self._channel is None:
            raise ControlUnavailableError("there is no connection to control")
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._asked[number] = future
        if not self._send(self._channel, question):
            del self._asked[number]
            raise ControlUnavailableError("the connection to control broke")
        try:
            async with asyncio.timeout(self._settings.answer_seconds):
                return await future
        except TimeoutError:
            raise ControlUnavailableError("control does not answer") from None
        except asyncio.CancelledError:
            if future.done() and not future.cancelled() and future.exception() is None:
                self._undo(future.result())
            raise
        finally:
            # An answer that comes later finds nobody, and is undone.
            self._asked.pop(number, None)

    def _send(self, channel: Channel[ToWorker, ToControl], message: ToControl) -> bool:
        try:
            channel.send(message)
        except ChannelError as error:
            _log.warning("control_unreachable", error=str(error))
            return False
        return True
