"""One camera's live stream: from its source to every reader, without a queue, a task or a copy between."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from streams.hub.fan_out import FanOut, Reader, ReaderFailedError, Unit, UnitReader
from streams.hub.statistics import BitRate, StreamStatistics
from streams.hub.timeline import TimeLine
from streams.media import AccessUnit, AudioUnit, Codec, Track
from streams.mux import Framing, MuxedUnit, Muxer, sample_of

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class HubSettings:
    """`gop_cache_*` bound what is kept for new readers. A larger GOP is not kept: they wait for the next."""

    gop_cache_bytes: int = 8 * 1024 * 1024
    gop_cache_access_units: int = 600


class Stream:
    """The hub's end of one camera; a `Publisher` for its source. Owned by the `Hub`; one event loop only.

    An access unit is muxed once for each container and framed once for each framing that has readers; the
    fan-out is a loop of synchronous calls that share one bytes object. The source never waits for a reader.

    `last_random_access`: the newest keyframe and its track while the camera is live, for snapshots.
    """

    def __init__(
        self,
        camera_id: str,
        containers: Mapping[str, Callable[[Track], Muxer]],
        framings: Mapping[str, Framing],
        settings: HubSettings,
        clock_ns: Callable[[], int],
    ) -> None:
        self.camera_id = camera_id
        self.track: Track | None = None
        self.last_random_access: tuple[Track, AccessUnit] | None = None
        self._containers = containers
        self._framings = framings
        self._settings = settings
        self._clock_ns = clock_ns
        self._muxers: dict[str, Muxer] = {}
        self._units: FanOut[UnitReader, AccessUnit] = FanOut()
        self._outputs: dict[tuple[str, str], FanOut[Reader, MuxedUnit]] = {}
        self._cached_bytes = 0
        self._awaits_random_access = True
        self._time_line = TimeLine()
        self._bit_rate = BitRate()
        self._access_units = 0
        self._bytes_received = 0
        self._dropped_access_units = 0

    # The source's side

    def configure(self, track: Track) -> None:
        """A source declares its track, once or again. Raises ProtocolError if no container can hold it."""
        if track == self.track:
            return
        self._muxers = {name: muxer(track) for name, muxer in self._containers.items()}
        is_first = self.track is None
        self.track = track
        self._forget()
        for (container, framing), output in tuple(self._outputs.items()):
            muxer = self._muxers[container]
            init = self._framings[framing].frame(muxer.init if is_first else muxer.restart)
            for reader in output.all:
                self._call(reader, reader.start if is_first else reader.restart, init, muxer.mime)
        for unit_reader in self._units.all:
            self._call(unit_reader, unit_reader.configure, track)

    def publish(self, unit: AccessUnit) -> None:
        """One access unit to all readers, who have it when this returns."""
        size = unit.size_bytes
        self._access_units += 1
        self._bytes_received += size
        self._bit_rate.count(size, unit.received_ns)
        track = self.track
        if track is None or (self._awaits_random_access and not unit.is_random_access):
            self._dropped_access_units += 1
            return
        unit = self._time_line.place(unit)
        if unit.is_random_access:
            self._awaits_random_access = False
            self.last_random_access = track, unit
            self._cached_bytes = 0
        self._units.advance(unit, is_random_access=unit.is_random_access)
        unit_readers = self._units.active
        if self._outputs:
            self._fan_out(unit, track.codec)
        for reader in unit_readers:
            self._call(reader, reader.publish, unit)
        self._bound_cache(size)

    def publish_audio(self, unit: AudioUnit) -> None:
        """Some sound to the readers whose container has a place for it."""
        self._bytes_received += len(unit.data)

    def interrupt(self) -> None:
        """The source is gone; another will continue. What is cached is no longer live: it is forgotten."""
        self._time_line.interrupt()
        self._forget()

    # The readers' side

    def subscribe(self, reader: Reader, container: str, framing: str) -> None:
        """Add a reader; it gets the container's beginning and the cached GOP at once.

        Raises KeyError for a container or framing that the hub does not have.
        """
        output = self._outputs.get((container, framing)) or self._open_output(container, framing)
        output.add(reader)
        if self.track is None:
            return
        muxer = self._muxers[container]
        init = self._framings[framing].frame(muxer.init)
        if self._call(reader, reader.start, init, muxer.mime):
            self._replay(reader, reader.write, output.cached)

    def subscribe_units(self, reader: UnitReader) -> None:
        """Add a reader of access units; it gets the track and the cached GOP at once, as far as known."""
        self._units.add(reader)
        if self.track is not None and self._call(reader, reader.configure, self.track):
            self._replay(reader, reader.publish, self._units.cached)

    def unsubscribe(self, reader: Reader | UnitReader) -> None:
        """Remove a reader of either kind; its `end` is not called. Nothing happens if it is not there."""
        self._units.remove(reader)
        for key, output in tuple(self._outputs.items()):
            output.remove(reader)
            if not output:
                del self._outputs[key]

    def end(self, reason: str) -> None:
        """End every reader; the stream carries nothing after that."""
        readers = [reader for output in self._outputs.values() for reader in output.all]
        unit_readers = self._units.all
        self._outputs, self._units = {}, FanOut()
        for end in (*(r.end for r in readers), *(r.end for r in unit_readers)):
            self._end(end, reason)

    @property
    def readers(self) -> int:
        return sum(map(len, self._outputs.values())) + len(self._units)

    @property
    def statistics(self) -> StreamStatistics:
        return StreamStatistics(
            access_units=self._access_units,
            bytes_received=self._bytes_received,
            bit_rate_bps=self._bit_rate.p95_bps(self._clock_ns()),
            readers=self.readers,
            dropped_access_units=self._dropped_access_units,
            epoch=self._time_line.epoch,
        )

    # Inside

    def _fan_out(self, unit: AccessUnit, codec: Codec) -> None:
        sample = sample_of(codec, unit)
        muxed: dict[str, MuxedUnit] = {}
        for (container, framing), output in tuple(self._outputs.items()):
            if container not in muxed:
                muxed[container] = self._muxers[container].mux(sample)
            framed = self._framings[framing].frame_unit(muxed[container])
            output.advance(framed, is_random_access=framed.is_random_access)
            for reader in output.active:
                try:
                    reader.write(framed)
                except Exception as error:  # noqa: BLE001 - see _fail; inline because this loop is the hot path
                    self._fail(reader, error)

    def _open_output(self, container: str, framing: str) -> FanOut[Reader, MuxedUnit]:
        """Muxes what is cached again, rather than keep it for every container that might be wanted."""
        if container not in self._containers:
            raise KeyError(container)
        frame_unit = self._framings[framing].frame_unit
        output: FanOut[Reader, MuxedUnit] = FanOut()
        if self.track is not None:
            mux, codec = self._muxers[container].mux, self.track.codec
            output.cached = [frame_unit(mux(sample_of(codec, unit))) for unit in self._units.cached]
        self._outputs[container, framing] = output
        return output

    def _bound_cache(self, size: int) -> None:
        self._cached_bytes += size
        settings = self._settings
        if (
            self._cached_bytes > settings.gop_cache_bytes
            or len(self._units.cached) > settings.gop_cache_access_units
        ):
            self._drop_cache()

    def _forget(self) -> None:
        """The next access unit must be a random access point, and nothing before it is of use."""
        self._awaits_random_access = True
        self.last_random_access = None
        self._drop_cache()

    def _drop_cache(self) -> None:
        self._units.cached = []
        for output in self._outputs.values():
            output.cached = []

    def _replay(
        self, reader: Reader | UnitReader, write: Callable[[Unit], None], cached: Sequence[Unit]
    ) -> None:
        for unit in tuple(cached):
            if not self._call(reader, write, unit):
                return

    def _call(self, reader: Reader | UnitReader, method: Callable[..., None], *arguments: object) -> bool:
        try:
            method(*arguments)
        except Exception as error:  # noqa: BLE001 - see _fail
            self._fail(reader, error)
            return False
        return True

    def _fail(self, reader: Reader | UnitReader, error: Exception) -> None:
        """End the reader that raised.

        Whatever goes wrong in one reader is that reader's end, and must reach neither the camera nor the
        other readers: hence the broad `except` around every call into one.
        """
        self.unsubscribe(reader)
        if isinstance(error, ReaderFailedError):
            self._end(reader.end, error.reason)
        else:
            _log.error("reader_failed", camera=self.camera_id, exc_info=error)
            self._end(reader.end, "internal_error")

    def _end(self, end: Callable[[str], None], reason: str) -> None:
        try:
            end(reason)
        except Exception:  # noqa: BLE001 - as in _fail
            _log.exception("reader_end_failed", camera=self.camera_id)
