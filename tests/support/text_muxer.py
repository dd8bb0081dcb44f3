"""A container that a test can read: every picture and sound is its number in angle brackets."""

import re
from collections.abc import Callable, Mapping

from support.units import FRAME_TICKS, RecordingReader

from streams.media import AudioUnit, Track
from streams.mux import MuxedUnit, Muxer, Sample
from streams.mux.mark import MARK_PLACEHOLDER
from streams.mux.muxed_unit import SampleMuxer, sound_sample


class TextMuxer(SampleMuxer):
    """`<v3>` for picture 3, `<K3:` mark `>` for keyframe 3, `<a3>` for the sound of its time."""

    init = b"init"
    restart = b"restart"
    mime = "text/plain"

    def __init__(self, track: Track) -> None:
        pass

    def mux(self, sample: Sample) -> Sample:
        number = sample.pts // FRAME_TICKS
        if sample.is_random_access:
            head, mark, tail = b"<K%d:" % number, MARK_PLACEHOLDER, b">"
        else:
            head, mark, tail = b"", b"", b"<v%d>" % number
        return Sample(
            head,
            mark,
            (tail,),
            len(head) + len(mark) + len(tail),
            sample.is_random_access,
            sample.pts,
            sample.dts,
            sample.received_ns,
            sample.slices_hash,
        )

    def mux_audio(self, unit: AudioUnit) -> Sample | None:
        tail = b"<a%d>" % (unit.pts // FRAME_TICKS)
        return sound_sample(unit, tail)


class MuteTextMuxer(TextMuxer):
    """Has no place for sound."""

    def mux_audio(self, unit: AudioUnit) -> None:
        return None


TEXT_CONTAINERS: Mapping[str, Callable[[Track], Muxer]] = {"flv": TextMuxer, "fmp4": MuteTextMuxer}


def text(unit: MuxedUnit) -> str:
    """One write without marks, such as `K0 v1 a1`."""
    content = (unit.head + unit.mark + unit.tail).decode("latin-1")
    return " ".join(re.findall(r"<([Kva]\d+)", content))


def writes(reader: RecordingReader) -> list[str]:
    return [text(unit) for unit in reader.units]


def numbers(reader: RecordingReader) -> list[int]:
    """Of the pictures, however they were merged."""
    return [int(item[1:]) for write in writes(reader) for item in write.split() if item[0] in "Kv"]
