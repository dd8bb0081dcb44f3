"""One camera's live stream: from its source to every reader, without a queue, a task or a copy between."""

from collections.abc import Callable

from streams.errors import StreamError
from streams.hub.bit_rate import BitRate
from streams.hub.fan_out import FanOut, MediaReader, Reader, UnitReader, end_failed, end_reader
from streams.hub.faults import FAULT_KEPT_SECONDS, FROZEN, TIMESTAMP_JUMP, FrozenPicture
from streams.hub.outputs import Outputs
from streams.hub.settings import HubSettings
from streams.hub.sound_presence import SoundPresence
from streams.hub.timeline import TimeLine
from streams.hub.turns import Turns
from streams.media import AccessUnit, AudioUnit, Track
from streams.sources.source import ReadInTurns

_NS_PER_SECOND = 1_000_000_000
_AUDIO_UNIT_BYTES = 128
"""What a cached audio unit weighs besides its data: there may be many small ones."""


class Stream:
    """The hub's end of one camera; a `Publisher` for its source. Owned by the `Hub`; one event loop only.

    An access unit is muxed once for each container and framed once for each framing that has readers; the
    fan-out is a loop of synchronous calls that share one bytes object. The source never waits for a reader.

    `last_random_access`: the newest keyframe and its track while the camera is live, for snapshots.
    """

    def __init__(
        self,
        camera_id: str,
        outputs: Outputs,
        turns: Turns,
        settings: HubSettings,
        clock_ns: Callable[[], int],
    ) -> None:
        self.camera_id = camera_id
        self.track: Track | None = None
        self.last_random_access: tuple[Track, AccessUnit] | None = None
        self._settings = settings
        self._clock_ns = clock_ns
        self._outputs = outputs
        self._turns = turns
        self._offered: ReadInTurns | None = None
        self._reading: ReadInTurns | None = None
        self._unit_readers: FanOut[UnitReader] = FanOut()
        self._media_readers: FanOut[MediaReader] = FanOut()
        self._cached: list[AccessUnit | AudioUnit] = []
        self._cached_access_units = 0
        self._cached_bytes = 0
        self._awaits_random_access = True
        self._time_line = TimeLine()
        self._frozen_picture = FrozenPicture()
        self._sound = SoundPresence()
        self._bit_rate = BitRate()

    # The source's side

    def configure(self, track: Track) -> None:
        """A source declares its track, once or again. Raises ProtocolError if no container can hold it."""
        if track == self.track:
            return
        previous, self.track = self.track, track
        is_known = previous is not None and previous.audio == track.audio
        sound = self._sound if is_known else SoundPresence()
        try:
            # Readers that are told of a change look at the track: it must be the new one by then.
            self._outputs.configure(track, has_sound=sound.is_there)
        except StreamError:
            self.track = previous
            raise
        self._sound = sound
        self._forget()
        for reader in self._unit_readers.all + self._media_readers.all:
            self._call(reader, reader.configure, track)

    def publish(self, unit: AccessUnit) -> None:
        """One access unit to all readers: those of units have it when this returns, the others may wait."""
        nal_units = unit.nal_units
        size = len(nal_units[0]) if len(nal_units) == 1 else unit.size_bytes  # nearly all: one slice
        self._bit_rate.count(size, unit.received_ns)
        track = self.track
        if track is None or (self._awaits_random_access and not unit.is_random_access):
            return
        unit = self._time_line.place(unit)
        if unit.is_random_access:
            self._begin_gop(track, unit)
        elif self._cached:
            self._cached.append(unit)
        # Who comes during the fan-out finds the unit in the cache.
        unit_readers, media_readers = self._unit_readers.active, self._media_readers.active
        self._outputs.publish(unit, size)
        for reader in unit_readers:
            self._call(reader, reader.publish, unit)
        for reader in media_readers:
            self._call(reader, reader.publish, unit)
        self._cached_access_units += 1
        self._bound_cache(size)

    def publish_audio(self, unit: AudioUnit) -> None:
        """Some sound, after a random access point: to viewers with the next picture, to others at once."""
        size = len(unit.data)
        self._bit_rate.count(size, unit.received_ns)
        placed = None if self._awaits_random_access else self._time_line.place_audio(unit)
        if placed is None:
            return
        self._sound.hear()
        if self._cached:
            self._cached.append(placed)
        readers = self._media_readers.active
        self._outputs.publish_audio(placed)
        for reader in readers:
            self._call(reader, reader.publish_audio, placed)
        self._bound_cache(size + _AUDIO_UNIT_BYTES)

    def offer_turns(self, reading: ReadInTurns | None) -> None:
        """Taken up while there is no reader of media: those get everything at once (other workers, say)."""
        self._offered = reading
        self._choose_turns()

    def interrupt(self) -> None:
        """The source is gone; another will continue. What is cached is no longer live: it is forgotten."""
        self._time_line.interrupt()
        self._sound.interrupt()
        self._forget()

    # In turns, while the loop is busy

    def fetch(self) -> bool:
        return self._reading is not None and self._reading.fetch()

    def take(self) -> bool:
        self._outputs.begin_turn()
        return self._reading is not None and self._reading.take()

    def write(self) -> None:
        self._outputs.end_turn()

    def end_turns(self) -> None:
        if self._reading is not None:
            self._reading.end_turns()

    # The readers' side

    def subscribe(self, reader: Reader, container: str, framing: str) -> None:
        """Add a reader; it gets the container's beginning and the cached GOP at once.

        Raises KeyError for a container or framing that the hub does not have.
        """
        self._outputs.subscribe(reader, container, framing, self._cached)

    def subscribe_units(self, reader: UnitReader) -> None:
        """Add a reader of access units; it gets the track and the cached GOP at once, as far as known."""
        self._unit_readers.add(reader, at_once=bool(self._cached))
        if not self._greet(reader):
            return
        for unit in tuple(self._cached):
            if isinstance(unit, AccessUnit) and not self._call(reader, reader.publish, unit):
                return

    def subscribe_media(self, reader: MediaReader) -> None:
        """Add a reader of access units and sound; it gets the track and the cached GOP at once."""
        self._media_readers.add(reader, at_once=bool(self._cached))
        self._choose_turns()
        if not self._greet(reader):
            return
        for unit in tuple(self._cached):
            publish = reader.publish if isinstance(unit, AccessUnit) else reader.publish_audio
            if not self._call(reader, publish, unit):
                return

    def unsubscribe(self, reader: Reader | UnitReader) -> None:
        """Remove a reader of any kind; its `end` is not called. Nothing happens if it is not there."""
        self._unit_readers.remove(reader)
        self._media_readers.remove(reader)
        self._outputs.remove(reader)
        self._choose_turns()

    def check_readers(self) -> None:
        """End the viewers who are stuck; called about once a second, as nothing may be written meanwhile."""
        self._outputs.check_readers()

    def end(self, reason: str) -> None:
        """End every reader; the stream carries nothing after that."""
        self.offer_turns(None)
        readers = self._unit_readers.all + self._media_readers.all
        self._unit_readers, self._media_readers = FanOut(), FanOut()
        self._outputs.end(reason)
        for reader in readers:
            end_reader(reader, reason, self.camera_id)

    @property
    def readers(self) -> int:
        return len(self._outputs) + len(self._unit_readers) + len(self._media_readers)

    @property
    def epoch(self) -> int:
        """How many times the camera's time stamps did not continue; see `TimeLine`."""
        return self._time_line.epoch

    @property
    def bit_rate_bps(self) -> int:
        """The 95th percentile of the last minute's whole seconds; 0 if there is none."""
        return self._bit_rate.p95_bps(self._clock_ns())

    @property
    def fault(self) -> str | None:
        """What is wrong with a camera that sends; see `streams.hub.faults`."""
        if self._frozen_picture.is_frozen:
            return FROZEN
        jumped_ns = self._time_line.last_jump_ns
        if jumped_ns is not None and self._clock_ns() - jumped_ns < FAULT_KEPT_SECONDS * _NS_PER_SECOND:
            return TIMESTAMP_JUMP
        return None

    # Inside

    def _choose_turns(self) -> None:
        reading = None if self._media_readers else self._offered
        if reading is self._reading:
            return
        self.end_turns()
        self._turns.remove(self)
        self._reading = reading
        if reading is not None:
            self._turns.add(self)

    def _begin_gop(self, track: Track, unit: AccessUnit) -> None:
        self._awaits_random_access = False
        self.last_random_access = track, unit
        self._frozen_picture.see(track.codec, unit)
        # First of all: who comes meanwhile finds the old GOP, and then gets the new one with everybody.
        self._outputs.end_group()
        if track.audio is not None and self._sound.judge(unit.dts, self._cached_access_units):
            self._outputs.declare_sound(is_there=self._sound.is_there)
        self._cached = [unit]
        self._cached_access_units = self._cached_bytes = 0
        self._unit_readers.admit()
        self._media_readers.admit()

    def _greet(self, reader: UnitReader) -> bool:
        """Tell a new reader the track; False if there is none yet, or the reader failed."""
        return self.track is not None and self._call(reader, reader.configure, self.track)

    def _bound_cache(self, size: int) -> None:
        self._cached_bytes += size
        settings = self._settings
        if self._cached and (
            self._cached_bytes > settings.gop_cache_bytes
            or self._cached_access_units > settings.gop_cache_access_units
        ):
            self._drop_cache()

    def _forget(self) -> None:
        """The next access unit must be a random access point, and nothing before it is of use."""
        self._awaits_random_access = True
        self.last_random_access = None
        self._drop_cache()

    def _drop_cache(self) -> None:
        self._cached = []
        self._outputs.drop_cache()

    def _call(self, reader: UnitReader, method: Callable[..., None], *arguments: object) -> bool:
        try:
            method(*arguments)
        except Exception as error:  # noqa: BLE001 - see end_failed
            self.unsubscribe(reader)
            end_failed(reader, error, self.camera_id)
            return False
        return True
