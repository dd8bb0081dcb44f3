"""HTTP Live Streaming: a live stream cut into segments and parts, and the playlist that lists them.

After RFC 8216 and its second edition (draft-pantos-hls-rfc8216bis), whose partial segments, blocking reload
and preload hints make the latency low; players that know only RFC 8216 read the same playlist. Pure: units of
fragmented MP4 go in, addresses relative to the playlist's own come out, and nobody waits here.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from itertools import chain

from streams.media import TIME_BASE_HZ
from streams.mux.mark import Marker
from streams.mux.muxed_unit import MuxedUnit

PLAYLIST = "live.m3u8"
PLAYLIST_TYPE = "application/vnd.apple.mpegurl"
MIN_SEGMENTS = 3
"""A playlist must last for three target durations (RFC 8216 §6.2.2)."""
_VERSION = 9
_SPARE_SEGMENTS = 2
"""Kept after the playlist has lost them, for players that read an older one (RFC 8216 §6.2.2)."""
_HOLD_BACK = 3
"""Times the target duration, and times the part target."""
_ACCEPTED_SHARE = 0.75
"""A random access point after this share of the wanted duration begins the next segment."""
_LONGEST_SHARE = 1.5
"""Without a random access point, a segment ends after this many times the wanted duration."""
_LEAST_PART_SHARE = 0.85
"""No part but a segment's last is shorter than this share of the part target (RFC 8216bis §4.4.4.9)."""
_MIN_PAUSE_TICKS = 2 * TIME_BASE_HZ
_PAUSE_STEPS = 4
"""So many times the usual time between two pictures is no slow camera but a pause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmenterSettings:
    """`segment_seconds` and `part_seconds` are aimed at; the camera's random access points decide.

    `segments` whole ones are listed. `max_bytes` bounds what is kept of one camera, but for the segment that
    is being written.
    """

    segment_seconds: float = 2.0
    part_seconds: float = 0.34
    segments: int = 6
    max_bytes: int = 32 * 1024 * 1024

    @property
    def target_seconds(self) -> int:
        return max(1, math.ceil(_LONGEST_SHARE * self.segment_seconds))


@dataclass(frozen=True, slots=True)
class Part:
    """A partial segment; `duration` in `TIME_BASE_HZ`."""

    units: tuple[MuxedUnit, ...]
    duration: int

    @property
    def is_independent(self) -> bool:
        return self.units[0].is_random_access

    @property
    def size_bytes(self) -> int:
        return sum(unit.size_bytes for unit in self.units)


@dataclass(slots=True, kw_only=True)
class Segment:
    """Parts that follow each other without a gap, to be decoded after init segment number `init`.

    `discontinuities`: how many the stream has had, one before this segment included. `started_at`: aware UTC,
    when its first access unit arrived. `duration` is 0 while the segment is being written.
    """

    number: int
    init: int
    is_discontinuous: bool
    discontinuities: int
    started_at: datetime
    start_dts: int
    is_independent: bool
    parts: list[Part] = field(default_factory=list)
    size_bytes: int = 0
    duration: int = 0

    @property
    def units(self) -> Iterator[MuxedUnit]:
        return chain.from_iterable(part.units for part in self.parts)


class Segmenter:
    """Cuts the units of one stream's muxer. Numbers begin with 0 and are never used twice.

    A part or segment is complete when the access unit after it is there: until then its duration is unknown.
    So there always is a beginning of what a preload hint names.
    """

    def __init__(self, settings: SegmenterSettings, wall_clock: Callable[[int], datetime]) -> None:
        """`wall_clock` tells the aware UTC time of a `received_ns`."""
        self._settings = settings
        self._wall_clock = wall_clock
        self._inits: dict[int, bytes] = {}
        self._init = -1
        self._segments: deque[Segment] = deque()
        self._open: Segment | None = None
        self._part: list[MuxedUnit] = []
        self._next_number = 0
        self._discontinuities = 0
        self._epoch = 0
        self._part_dts = 0
        self._last_dts = 0
        self._step = 0
        self._text: str | None = None
        self._part_target = round(settings.part_seconds * TIME_BASE_HZ)
        self._least_part = round(_LEAST_PART_SHARE * self._part_target)
        self._target_seconds = settings.target_seconds

    # What comes in

    def restart(self, init: bytes, *, keeps_earlier: bool = True) -> None:
        """The stream begins, or its track has changed: what follows needs this init segment.

        `keeps_earlier`: a player that begins with an earlier segment can go on with what follows.
        """
        self._complete_segment(self._last_dts + self._step)
        if not keeps_earlier:
            self._segments.clear()
            self._inits.clear()
        if not any(segment.init == self._init for segment in self._segments):
            self._inits.pop(self._init, None)
        self._init += 1
        self._inits[self._init] = init
        self._text = None

    def write(self, unit: MuxedUnit, epoch: int) -> bool:
        """One unit, or several in one; `epoch` tells time lines apart (`Stream.epoch`).

        Returns whether a part is complete now, so that the playlist has changed.
        """
        step = unit.dts - self._last_dts
        if self._open is None:
            self._begin(unit, is_discontinuous=self._next_number > 0)
        elif epoch != self._epoch or self._is_pause(step):
            self._complete_segment(self._last_dts + self._step)
            self._begin(unit, is_discontinuous=True)
            # Once it is a pause; again, it is how slow the camera is.
            self._step = step if epoch == self._epoch else self._step
        elif step <= 0 and not unit.is_random_access:
            self._append(unit)  # it begins with sound, whose time is its own
            return False
        else:
            self._step = step if step > 0 else self._step
            if self._ends_segment(self._open, unit):
                self._complete_segment(unit.dts)
                self._begin(unit, is_discontinuous=False)
            elif unit.dts - self._part_dts >= self._least_part:
                self._complete_part(unit.dts)
        self._epoch = epoch
        self._last_dts = unit.dts
        completed = not self._part
        if completed:
            self._text = None
        self._append(unit)
        return completed

    def _is_pause(self, step: int) -> bool:
        """Whether the time since the last picture is none that this camera takes between two."""
        return self._step > 0 and step > max(_MIN_PAUSE_TICKS, _PAUSE_STEPS * self._step)

    def _ends_segment(self, segment: Segment, unit: MuxedUnit) -> bool:
        """Whether the next segment begins with this unit."""
        elapsed = unit.dts - segment.start_dts
        settings = self._settings
        if unit.is_random_access and (
            not segment.is_independent or elapsed >= _ACCEPTED_SHARE * settings.segment_seconds * TIME_BASE_HZ
        ):
            return True
        if segment.size_bytes > settings.max_bytes // settings.segments:
            return True
        return elapsed + self._step > settings.target_seconds * TIME_BASE_HZ

    def _begin(self, unit: MuxedUnit, *, is_discontinuous: bool) -> None:
        self._discontinuities += is_discontinuous
        self._open = Segment(
            number=self._next_number,
            init=self._init,
            is_discontinuous=is_discontinuous,
            discontinuities=self._discontinuities,
            started_at=self._wall_clock(unit.received_ns),
            start_dts=unit.dts,
            is_independent=unit.is_random_access,
        )
        self._next_number += 1
        self._part_dts = unit.dts

    def _append(self, unit: MuxedUnit) -> None:
        self._part.append(unit)
        if self._open is not None:
            self._open.size_bytes += unit.size_bytes

    def _complete_part(self, end_dts: int) -> None:
        if self._open is None or not self._part:
            return
        end_dts = max(end_dts, self._part_dts)
        part = Part(tuple(self._part), end_dts - self._part_dts)
        self._open.parts.append(part)
        self._part = []
        self._part_dts = end_dts
        self._part_target = max(self._part_target, part.duration)

    def _complete_segment(self, end_dts: int) -> None:
        segment = self._open
        if segment is None:
            return
        self._complete_part(end_dts)
        segment.duration = self._part_dts - segment.start_dts
        self._target_seconds = max(self._target_seconds, round(segment.duration / TIME_BASE_HZ))
        self._segments.append(segment)
        self._open = None
        self._forget()

    def _forget(self) -> None:
        """Drop the oldest segments, and the init segments that nothing needs any more."""
        kept = self._segments
        size = sum(segment.size_bytes for segment in kept)
        while len(kept) > 1 and (
            len(kept) > self._settings.segments + _SPARE_SEGMENTS or size > self._settings.max_bytes
        ):
            size -= kept.popleft().size_bytes
        for number in [number for number in self._inits if number < kept[0].init]:
            del self._inits[number]

    # What goes out

    @property
    def is_ready(self) -> bool:
        """Whether a playlist would list a whole segment; players that know no parts need one."""
        return bool(self._segments)

    @property
    def target_seconds(self) -> int:
        """No segment is longer, rounded to whole seconds; grows only if the camera leaves no choice."""
        return self._target_seconds

    @property
    def size_bytes(self) -> int:
        """What is kept, the segment that is being written included."""
        return sum(segment.size_bytes for segment in self._known())

    def init(self, number: int) -> bytes | None:
        return self._inits.get(number)

    def segment(self, number: int) -> Segment | None:
        """A whole segment, None if it is not there, or not there any more."""
        return next((segment for segment in self._segments if segment.number == number), None)

    def part(self, number: int, index: int) -> Part | None:
        """A complete part, also of the segment that is being written."""
        segment = next((segment for segment in self._known() if segment.number == number), None)
        return segment.parts[index] if segment is not None and index < len(segment.parts) else None

    def is_hinted(self, number: int, index: int) -> bool:
        """Whether this is the part that is being written."""
        return self._open is not None and (number, index) == (self._open.number, len(self._open.parts))

    def is_too_far(self, number: int) -> bool:
        """Whether a reload for this segment asks for more than two segments ahead (RFC 8216bis §6.2.5.2)."""
        return number > self._next_number

    def has_reached(self, number: int, index: int | None) -> bool:
        """Whether the playlist has part `index` of segment `number`, or the whole segment, or later ones.

        A part behind the last one of its segment counts as the first one of the next (RFC 8216bis
        §6.2.5.2).
        """
        tip = self._tip_number
        complete = 0 if self._open is None else len(self._open.parts)
        if index is None:
            return number < tip
        if number == tip:
            return index < complete
        if number == tip - 1 and self._segments:
            return index < len(self._segments[-1].parts) or complete > 0
        return number < tip

    def playlist(self) -> str:
        """The media playlist of now (RFC 8216bis §4.4), written once for all viewers."""
        if self._text is None:
            self._text = self._written_playlist()
        return self._text

    def _written_playlist(self) -> str:
        listed = list(self._segments)[-self._settings.segments :]
        lines = [
            "#EXTM3U",
            f"#EXT-X-VERSION:{_VERSION}",
            f"#EXT-X-TARGETDURATION:{self._target_seconds}",
            self._server_control(),
            f"#EXT-X-PART-INF:PART-TARGET={_seconds(self._part_target)}",
            f"#EXT-X-MEDIA-SEQUENCE:{listed[0].number if listed else self._tip_number}",
        ]
        if listed:
            before = listed[0].discontinuities - listed[0].is_discontinuous
            lines.append(f"#EXT-X-DISCONTINUITY-SEQUENCE:{before}")
        recent = _seconds_from_end(listed, _HOLD_BACK * self._target_seconds)
        init = None
        for segment in listed:
            lines += _beginning(segment, init)
            init = segment.init
            if segment.number in recent:
                lines += _parts(segment)
            lines += (f"#EXTINF:{_seconds(segment.duration)},", f"segment-{segment.number}.mp4")
        lines += self._tip(init)
        return "\n".join(lines) + "\n"

    def _server_control(self) -> str:
        """How far from the end a player stays (RFC 8216bis §4.4.3.8)."""
        hold_back = _HOLD_BACK * self._target_seconds
        part_hold_back = _seconds(_HOLD_BACK * self._part_target)
        control = f"CAN-BLOCK-RELOAD=YES,PART-HOLD-BACK={part_hold_back},HOLD-BACK={hold_back}.0"
        return f"#EXT-X-SERVER-CONTROL:{control}"

    def _tip(self, init: int | None) -> Iterable[str]:
        """The segment that is being written: its parts so far, and the hint of the next one."""
        segment = self._open
        if segment is None:
            return
        if segment.parts:
            yield from _beginning(segment, init)
            yield from _parts(segment)
        elif segment.is_discontinuous:
            return  # a hint would be read with what came before
        yield f'#EXT-X-PRELOAD-HINT:TYPE=PART,URI="{_part_name(segment.number, len(segment.parts))}"'

    @property
    def _tip_number(self) -> int:
        """The segment that is being written, or comes next."""
        return self._next_number if self._open is None else self._open.number

    def _known(self) -> Iterator[Segment]:
        yield from self._segments
        if self._open is not None:
            yield self._open


def marked(units: Iterable[MuxedUnit], marker: Marker) -> Iterator[bytes]:
    """The bytes of units for one viewer, each keyframe with his own mark; the large ones are shared."""
    for unit in units:
        if unit.slices_hash is not None:
            yield unit.head + marker.mark(unit.pts, unit.slices_hash)
        yield unit.tail


def multivariant_playlist(address: str, *, mime: str, width: int, height: int, bit_rate_bps: int) -> str:
    """The playlist of the one rendition at `address` (RFC 8216bis §4.4.6); `mime` as muxers give it."""
    codecs = mime.partition('codecs="')[2].rstrip('"')
    attributes = f'BANDWIDTH={bit_rate_bps},CODECS="{codecs}",RESOLUTION={width}x{height}'
    return f"#EXTM3U\n#EXT-X-VERSION:{_VERSION}\n#EXT-X-STREAM-INF:{attributes}\n{address}\n"


def _beginning(segment: Segment, init_before: int | None) -> Iterator[str]:
    if segment.is_discontinuous:
        yield "#EXT-X-DISCONTINUITY"
    if segment.init != init_before:
        yield f'#EXT-X-MAP:URI="init-{segment.init}.mp4"'
    yield f"#EXT-X-PROGRAM-DATE-TIME:{segment.started_at.isoformat(timespec='milliseconds')}"


def _parts(segment: Segment) -> Iterator[str]:
    for index, part in enumerate(segment.parts):
        independent = ",INDEPENDENT=YES" if part.is_independent else ""
        name = _part_name(segment.number, index)
        yield f'#EXT-X-PART:DURATION={_seconds(part.duration)},URI="{name}"{independent}'


def _part_name(number: int, index: int) -> str:
    return f"segment-{number}.{index}.mp4"


def _seconds_from_end(segments: list[Segment], seconds: int) -> set[int]:
    """The numbers of the segments that begin within the last `seconds`: only their parts are of use."""
    recent, duration = set(), 0
    for segment in reversed(segments):
        if duration >= seconds * TIME_BASE_HZ:
            break
        recent.add(segment.number)
        duration += segment.duration
    return recent


def _seconds(ticks: int) -> str:
    return f"{ticks / TIME_BASE_HZ:.5f}"
