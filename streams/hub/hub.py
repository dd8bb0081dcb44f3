"""The set of live streams of one process, by camera."""

import time
from collections.abc import Callable, Iterator, Mapping

from streams.hub.stream import HubSettings, Stream
from streams.media import Track
from streams.mux import CONTAINERS, FRAMINGS, Framing, Muxer


class Hub:
    """Streams by camera id. `clock_ns` is the monotonic clock of the access units' `received_ns`."""

    def __init__(
        self,
        settings: HubSettings,
        containers: Mapping[str, Callable[[Track], Muxer]] = CONTAINERS,
        framings: Mapping[str, Framing] = FRAMINGS,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._containers = containers
        self._framings = framings
        self._settings = settings
        self._clock_ns = clock_ns
        self._streams: dict[str, Stream] = {}

    def open(self, camera_id: str) -> Stream:
        """The camera's stream, made if there is none yet."""
        stream = self._streams.get(camera_id)
        if stream is None:
            stream = Stream(camera_id, self._containers, self._framings, self._settings, self._clock_ns)
            self._streams[camera_id] = stream
        return stream

    def close(self, camera_id: str, reason: str) -> None:
        """End all readers of the camera and forget its stream, if there is one."""
        stream = self._streams.pop(camera_id, None)
        if stream is not None:
            stream.end(reason)

    def __iter__(self) -> Iterator[Stream]:
        return iter(tuple(self._streams.values()))

    def __len__(self) -> int:
        return len(self._streams)
