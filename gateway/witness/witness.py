"""A witness in another department: holds a gateway's signed heads, and alarms when they contradict it.

Whoever owns the gateway's machine and its key can rebuild its ledger; he cannot make a witness forget. A head
is held only if its signature is good and the gateway proves that its tree continues the newest held one's
(RFC 9162 §2.1.4). One that alarmed is never held. An alarm ends nothing: the witness goes on.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Protocol

from gateway.audit.heads import SignedHead
from gateway.audit.key_history import KeyChainError, Rotation
from gateway.audit.liveness import SignOfLife
from gateway.audit.merkle import verify_consistency
from gateway.bounded_fetch import FetchError, FetchRefusedError
from gateway.clock import Clock, to_micros
from gateway.witness.source import Newest
from gateway.witness.state import Alarm, AlarmOver, WitnessState

SILENCE_SECONDS = 180.0

FORK = "fork"
ROLLBACK = "rollback"
BAD_SIGNATURE = "bad_signature"
SILENCE = "silence"
STATE = "state_not_written"


class Source(Protocol):
    """See `GatewaySource`."""

    async def newest(self) -> Newest: ...
    async def rotations(self, after: int) -> list[Rotation]: ...
    async def consistency(self, old_size: int, size: int) -> list[bytes]: ...


class _AlarmingError(Exception):
    def __init__(self, code: str, detail: str, head: SignedHead | None = None) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.head = head


class Witness:
    """`monotonic`, in seconds, measures silence; `clock` dates alarms; `on_event` is told of them."""

    def __init__(
        self,
        source: Source,
        state: WitnessState,
        clock: Clock,
        monotonic: Callable[[], float],
        on_event: Callable[[Alarm | AlarmOver], None],
    ) -> None:
        self._source = source
        self.state = state
        self._clock = clock
        self._monotonic = monotonic
        self._on_event = on_event
        self._alive_since = monotonic()
        self.alive_time = 0
        """The newest time that the gateway signed, in microseconds, UTC; 0 before the first."""
        self.last_error: str | None = None
        """Why the newest pull was not good."""

    async def run(self, every_seconds: float) -> None:
        """Pull until cancelled."""
        while True:
            await self.pull()
            await asyncio.sleep(every_seconds)

    async def pull(self) -> None:
        """Ask the gateway once."""
        try:
            await self._pull()
        except FetchError as error:
            self.last_error = str(error)
        except OSError as error:
            self.last_error = f"the witness cannot write its files: {error.strerror}"
            await self._alarm(STATE, self.last_error, None)
        if self._monotonic() - self._alive_since >= SILENCE_SECONDS:
            cause = self.last_error or "it signs no newer time"
            await self._alarm(SILENCE, f"no sign of life of the gateway: {cause}", None)
        elif SILENCE in self.state.active:
            await self._end(SILENCE)

    async def _pull(self) -> None:
        try:
            try:
                await self._examine()
            except _AlarmingError:
                # what looks wrong may be two answers with a commit between them
                await self._examine()
        except _AlarmingError as problem:
            self.last_error = problem.detail
            await self._alarm(problem.code, problem.detail, problem.head)
            return
        self.last_error = None
        for code in [code for code in self.state.active if code != SILENCE]:
            await self._end(code)

    async def _examine(self) -> None:
        """Raise _AlarmingError, FetchError or OSError."""
        newest = await self._source.newest()
        head = newest.head
        if head is None:
            if self.state.newest is not None:
                raise _AlarmingError(ROLLBACK, "the gateway shows an empty ledger")
            return
        keys = self.state.keys
        if head.head.origin != keys.origin:
            raise _AlarmingError(BAD_SIGNATURE, "the head is of another ledger", head)
        for rotation in await self._source.rotations(keys.changed_at):
            if rotation.after_size <= head.head.size:
                await self._follow(rotation)
        # before the heads are compared: a gateway that shows another ledger is not silent
        self._note(newest.alive)
        await self._accept(head)

    def _note(self, alive: SignOfLife | None) -> None:
        if alive is None or not alive.verify(self.state.keys):
            raise _AlarmingError(BAD_SIGNATURE, "the sign of life is not signed with the ledger's key")
        if alive.time > self.alive_time:
            self.alive_time = alive.time
            self._alive_since = self._monotonic()

    async def _follow(self, rotation: Rotation) -> None:
        state = self.state
        if state.newest is not None and rotation.after_size < state.held_size:
            raise _AlarmingError(
                FORK, f"a new key since {rotation.after_size} records, of which no head told", rotation.head
            )
        await self._accept(rotation.head)
        try:
            await asyncio.to_thread(state.follow, rotation)
        except KeyChainError as error:
            raise _AlarmingError(BAD_SIGNATURE, str(error), rotation.head) from None

    async def _accept(self, head: SignedHead) -> None:
        keys, held = self.state.keys, self.state.newest
        size = head.head.size
        if not keys.verify(head):
            key = "a key that was given up" if keys.is_retired(head) else "another key than the ledger's"
            raise _AlarmingError(BAD_SIGNATURE, f"the head of {size} records is signed with {key}", head)
        if held is None:
            await asyncio.to_thread(self.state.hold, head)
            return
        if size < held.head.size:
            raise _AlarmingError(ROLLBACK, f"{held.head.size} records were signed for, now {size}", head)
        if size == held.head.size:
            if head.head.root != held.head.root:
                raise _AlarmingError(FORK, f"two ledgers of {size} records are signed", head)
            return
        await self._require_consistency(held, head)
        await asyncio.to_thread(self.state.hold, head)

    async def _require_consistency(self, held: SignedHead, head: SignedHead) -> None:
        old, new = held.head, head.head
        try:
            proof = await self._source.consistency(old.size, new.size)
        except FetchRefusedError as error:
            detail = f"no proof that the {new.size} records continue the first {old.size}: {error}"
            raise _AlarmingError(FORK, detail, head) from None
        if not verify_consistency(old.size, new.size, old.root, new.root, proof):
            detail = f"the {new.size} records do not continue the first {old.size} as they were signed"
            raise _AlarmingError(FORK, detail, head)

    async def _alarm(self, code: str, detail: str, head: SignedHead | None) -> None:
        if code in self.state.active:
            return
        alarm = Alarm(
            code=code,
            detail=detail,
            at=to_micros(self._clock()),
            held_size=self.state.held_size,
            head=None if head is None else head.to_json(),
        )
        # told even if it cannot be kept
        self._on_event(alarm)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.state.raise_alarm, alarm)

    async def _end(self, code: str) -> None:
        over = AlarmOver(code=code, at=to_micros(self._clock()))
        self._on_event(over)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(self.state.end_alarm, over)
