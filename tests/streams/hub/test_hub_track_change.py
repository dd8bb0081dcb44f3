"""A camera whose track changes in mid-stream: what FFmpeg makes of what a viewer got."""

import io
from itertools import pairwise

import av
import msgspec
import pytest
from support.units import FRAME_NS, FRAME_TICKS, NeverDue, RecordingReader, encode_clip

from streams.hub import Hub, HubSettings
from streams.media import AccessUnit, Codec, Track

COUNT = 12
FLV_HEADER_BYTES = 13
CLIPS = {
    "h264": (Codec.H264, {}),
    "smaller h264": (Codec.H264, {"width": 160, "height": 128}),
    "h265": (Codec.H265, {}),
}
CHANGES = [("h264", "smaller h264"), ("h264", "h265"), ("h265", "h264")]


def clip(name: str, first: int) -> tuple[Track, list[AccessUnit]]:
    codec, size = CLIPS[name]
    track, units = encode_clip(codec, COUNT, **size)
    ticks, nanoseconds = first * FRAME_TICKS, first * FRAME_NS
    shifted = [
        msgspec.structs.replace(
            unit, pts=unit.pts + ticks, dts=unit.dts + ticks, received_ns=unit.received_ns + nanoseconds
        )
        for unit in units
    ]
    return track, shifted


def decode(content: bytes, container: str) -> list[tuple[int, int]]:
    """The sizes of all pictures, in order."""
    with av.open(io.BytesIO(content), format="flv" if container == "flv" else "mp4") as opened:
        return [(frame.width, frame.height) for frame in opened.decode(opened.streams.video[0])]


def watched(
    container: str, settings: HubSettings, names: tuple[str, ...]
) -> tuple[RecordingReader, list[Track]]:
    stream = Hub(settings, schedule=lambda _seconds, _call: NeverDue()).open("cam")
    reader, tracks = RecordingReader(), []
    stream.subscribe(reader, container, "unframed")
    for place, name in enumerate(names):
        track, units = clip(name, place * COUNT)
        tracks.append(track)
        stream.configure(track)
        for unit in units:
            stream.publish(unit)
    stream.end("closed")
    return reader, tracks


def parts_of(reader: RecordingReader) -> list[bytes]:
    """All that was written from the start, and from each restart on."""
    parts: list[bytes] = []
    units = iter(reader.units)
    for name, value in reader.calls:
        if name == "write":
            unit = next(units)
            parts[-1] += unit.head + unit.mark + unit.tail
        elif name != "end":
            parts.append(value[0])
    return parts


@pytest.mark.parametrize("merge_seconds", [0, 0.1])
@pytest.mark.parametrize("container", ["flv", "fmp4"])
@pytest.mark.parametrize("change", CHANGES)
def test_each_container_begins_again(container: str, change: tuple[str, str], merge_seconds: float) -> None:
    """From the restart on, a viewer has a whole container of the new track, and of nothing else."""
    reader, tracks = watched(container, HubSettings(merge_seconds=merge_seconds, merge_above_load=0), change)
    assert [name for name in reader.names if name != "write"] == ["start", "restart", "end"]
    parts = parts_of(reader)
    if container == "flv":
        parts[1] = parts[0][:FLV_HEADER_BYTES] + parts[1]
    for part, track in zip(parts, tracks, strict=True):
        assert decode(part, container) == [(track.width, track.height)] * COUNT
    assert all(earlier.dts < later.dts for earlier, later in pairwise(reader.units))


def test_ffmpeg_follows_a_new_size_within_one_flv() -> None:
    reader, tracks = watched("flv", HubSettings(merge_seconds=0), CHANGES[0])
    sizes = decode(b"".join(parts_of(reader)), "flv")
    assert sizes == [(track.width, track.height) for track in tracks for _ in range(COUNT)]
