"""A media playlist as a player reads it: strict about what RFC 8216 and its second edition demand."""

import re
from dataclasses import dataclass, field
from datetime import datetime


@dataclass
class ListedPart:
    uri: str
    duration: float
    independent: bool


@dataclass
class ListedSegment:
    uri: str = ""
    duration: float = 0.0
    map: str = ""
    discontinuity: bool = False
    date: datetime | None = None
    parts: list[ListedPart] = field(default_factory=list)


@dataclass
class Playlist:
    target_seconds: int = 0
    media_sequence: int = 0
    part_target: float = 0.0
    part_hold_back: float = 0.0
    hold_back: float = 0.0
    segments: list[ListedSegment] = field(default_factory=list)
    open_parts: list[ListedPart] = field(default_factory=list)
    hint: str | None = None

    @property
    def next_part(self) -> tuple[int, int]:
        """What a blocking reload asks for: segment and part."""
        return self.media_sequence + len(self.segments), len(self.open_parts)


def attributes(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in re.findall(r'([A-Z-]+)=("[^"]*"|[^,]*)', text)}


def parse_playlist(text: str) -> Playlist:  # noqa: C901, PLR0912 - a flat table of tags
    lines = text.splitlines()
    assert lines[0] == "#EXTM3U"
    playlist, segment, init = Playlist(), ListedSegment(), ""
    for line in lines[1:]:
        tag, _, value = line.partition(":")
        match tag:
            case "#EXT-X-VERSION":
                assert int(value) >= 6
            case "#EXT-X-TARGETDURATION":
                playlist.target_seconds = int(value)
            case "#EXT-X-SERVER-CONTROL":
                control = attributes(value)
                assert control["CAN-BLOCK-RELOAD"] == "YES"
                playlist.part_hold_back = float(control["PART-HOLD-BACK"])
                playlist.hold_back = float(control["HOLD-BACK"])
                assert playlist.hold_back >= 3 * playlist.target_seconds
            case "#EXT-X-PART-INF":
                playlist.part_target = float(attributes(value)["PART-TARGET"])
                assert playlist.part_hold_back >= 2 * playlist.part_target
            case "#EXT-X-MEDIA-SEQUENCE":
                playlist.media_sequence = int(value)
            case "#EXT-X-DISCONTINUITY-SEQUENCE":
                int(value)
            case "#EXT-X-DISCONTINUITY":
                assert not segment.parts
                segment.discontinuity = True
            case "#EXT-X-MAP":
                init = attributes(value)["URI"]
            case "#EXT-X-PROGRAM-DATE-TIME":
                segment.date = datetime.fromisoformat(value)
            case "#EXT-X-PART":
                part = attributes(value)
                segment.parts.append(
                    ListedPart(part["URI"], float(part["DURATION"]), part.get("INDEPENDENT") == "YES")
                )
            case "#EXTINF":
                segment.duration = float(value.rstrip(","))
            case "#EXT-X-PRELOAD-HINT":
                hint = attributes(value)
                assert hint["TYPE"] == "PART"
                playlist.hint = hint["URI"]
            case _:
                assert not line.startswith("#"), line
                segment.uri, segment.map = line, init
                assert init
                playlist.segments.append(segment)
                segment = ListedSegment()
    playlist.open_parts = segment.parts
    return playlist
