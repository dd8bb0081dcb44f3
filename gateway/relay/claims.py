"""What control has answered about the streams that this worker wants: whose they are, where to get them."""

from collections.abc import Callable

from gateway.messages import Claimed, Release
from gateway.relay.control_link import ControlLink, ControlUnavailableError, RefusedError
from streams.errors import SourceUnreachableError


class Claims:
    """The last answer for each stream, by its key, until it is released."""

    def __init__(self, link: ControlLink, on_lost: Callable[[str], None]) -> None:
        """`on_lost` is told a stream that is not this worker's any more."""
        self._link = link
        self._on_lost = on_lost
        self._answers: dict[str, Claimed] = {}
        self._unused: set[str] = set()
        self._published: set[str] = set()

    def knows(self, stream: str) -> bool:
        return stream in self._answers

    def holds(self, stream: str) -> bool:
        """Whether the stream is this worker's: it pulls it, or an encoder delivers it here."""
        answer = self._answers.get(stream)
        return answer is not None and answer.address is not None

    def held(self) -> dict[str, int]:
        """The streams of this worker, each with its epoch."""
        return {stream: answer.epoch for stream, answer in self._answers.items() if answer.address}

    async def ask(self, stream: str) -> None:
        """Claim a stream for the next `renew`. Raises `RefusedError`, `ControlUnavailableError`."""
        self._keep(await self._link.claim(stream))
        self._unused.add(stream)

    async def publish(self, stream: str) -> Claimed:
        """Claim a stream for an encoder, from whoever has it. Raises as `ask`."""
        answer = await self._link.claim(stream, publishing=True)
        self._keep(answer)
        self._published.add(stream)
        return answer

    def unpublish(self, stream: str) -> None:
        """The encoder has left."""
        self._published.discard(stream)
        self.release(stream)

    async def renew(self, stream: str) -> Claimed:
        """Whose the stream is now, before a new connection to it; the last answer while control is away.

        Raises `SourceUnreachableError` if control refuses, or is away and has never answered.
        """
        if stream in self._unused:
            self._unused.discard(stream)
            return self._answers[stream]
        try:
            self._keep(await self._link.claim(stream))
        except RefusedError as error:
            self.forget(stream)
            raise SourceUnreachableError(f"control refuses the stream: {error.code}") from error
        except ControlUnavailableError as error:
            if stream not in self._answers:
                raise SourceUnreachableError("control is away") from error
        return self._answers[stream]

    def late(self, answer: Claimed) -> None:
        """An answer that nobody waits for: what is in use goes on under it, any other is given back."""
        if self.holds(answer.stream):
            if answer.epoch > self._answers[answer.stream].epoch:
                self._keep(answer)
        elif answer.address is not None:
            self._link.report(Release(stream=answer.stream, epoch=answer.epoch))

    def moved(self, stream: str) -> None:
        """What was answered and not used yet is outdated."""
        self._unused.discard(stream)

    def release(self, stream: str) -> None:
        """The stream is wanted no more; without effect while an encoder delivers it here."""
        if stream in self._published:
            return
        answer = self._answers.get(stream)
        self.forget(stream)
        if answer is not None and answer.address is not None:
            self._link.report(Release(stream=stream, epoch=answer.epoch))

    def forget(self, stream: str) -> None:
        """The stream is not this worker's any more, as control knows."""
        self._published.discard(stream)
        self._unused.discard(stream)
        if self._answers.pop(stream, None) is not None:
            self._on_lost(stream)

    def _keep(self, answer: Claimed) -> None:
        was_held = self.holds(answer.stream)
        self._answers[answer.stream] = answer
        if was_held and answer.address is None:
            self._on_lost(answer.stream)
