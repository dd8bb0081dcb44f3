"""What a source is: something that pulls one camera and publishes its track and access units."""

from typing import Protocol

import msgspec

from streams.media import AccessUnit, AudioUnit, Track


class CameraAddress(msgspec.Struct, frozen=True, kw_only=True):
    """Where a camera is and how to log in. `url` never contains a credential.

    `allow_basic`: the camera may be sent its password in clear (RFC 7617), because it knows nothing better.
    """

    url: str
    username: str | None = None
    password: str | None = None
    allow_basic: bool = False

    def __repr__(self) -> str:
        return f"CameraAddress(url={self.url!r}, username={self.username!r})"


class ReadInTurns(Protocol):
    """Something that can be read at a beat instead of whenever bytes come. Its methods never block.

    A turn has two steps, so that many can take each step together: see `streams.hub.turns`.
    """

    def fetch(self) -> bool:
        """Read what is there; whether `take` is to follow. From now on nothing else reads."""

    def take(self) -> bool:
        """Publish what was fetched; True if there may be more to fetch."""

    def end_turns(self) -> None:
        """Read again whenever bytes come."""


class Publisher(Protocol):
    """Where a source delivers; its methods are synchronous and never block.

    `publish_audio` only after a `configure` whose track has sound.
    """

    def configure(self, track: Track) -> None: ...

    def publish(self, unit: AccessUnit) -> None: ...

    def publish_audio(self, unit: AudioUnit) -> None: ...


class StreamPublisher(Publisher, Protocol):
    """A publisher that may read its source in turns, if the source offers it."""

    def offer_turns(self, reading: ReadInTurns | None) -> None:
        """None: no longer."""


class Source(Protocol):
    async def run(self, publisher: StreamPublisher) -> None:
        """Pull until cancelled. Raises a `streams.errors.StreamError` when camera or network fail."""
