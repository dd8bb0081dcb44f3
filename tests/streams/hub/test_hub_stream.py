"""The stream: fan-out from one source to many readers, none of whom can harm another."""

from types import SimpleNamespace

import msgspec
import pytest
from support.text_muxer import TEXT_CONTAINERS, numbers
from support.units import (
    FRAME_NS,
    FRAME_TICKS,
    RecordingReader,
    encode_clip,
    encode_sound,
    synthetic_unit,
)

from streams.errors import ProtocolError
from streams.hub import Hub, HubSettings, Stream
from streams.media import AudioCodec, Codec, Track
from streams.mux import CONTAINERS, FRAMINGS

SETTINGS = HubSettings(gop_cache_bytes=10_000, gop_cache_access_units=20)
OUTPUT = ("flv", "chunked")


@pytest.fixture
def track() -> Track:
    return encode_clip(Codec.H264, 1)[0]


@pytest.fixture
def hub() -> Hub:
    return Hub(SETTINGS, TEXT_CONTAINERS, clock_ns=lambda: 0)


@pytest.fixture
def stream(hub: Hub, track: Track) -> Stream:
    stream = hub.open("cam")
    stream.configure(track)
    return stream


def publish_gop(stream: Stream, first: int, count: int = 5, **fields) -> None:
    for number in range(first, first + count):
        stream.publish(synthetic_unit(number, random_access=number == first, **fields))


def test_a_new_reader_starts_at_once_from_the_gop_cache(stream: Stream) -> None:
    publish_gop(stream, 0)
    publish_gop(stream, 5, 3)
    reader = RecordingReader()
    stream.subscribe(reader, *OUTPUT)
    assert reader.names == ["start", "write", "write", "write"]
    assert numbers(reader) == [5, 6, 7]
    stream.publish(synthetic_unit(8))
    assert numbers(reader) == [5, 6, 7, 8]
    late = RecordingReader()
    stream.subscribe(late, *OUTPUT)
    assert all(a is b for a, b in zip(late.units, reader.units, strict=True))
    assert reader.units[0].is_random_access


def test_a_reader_before_the_camera_waits_for_it(hub: Hub, track: Track) -> None:
    stream = hub.open("cam")
    reader, unit_reader = RecordingReader(), RecordingReader()
    stream.subscribe(reader, *OUTPUT)
    stream.subscribe_units(unit_reader)
    stream.publish(synthetic_unit(0, random_access=True))
    assert reader.calls == unit_reader.calls == []
    stream.configure(track)
    stream.publish(synthetic_unit(1))
    publish_gop(stream, 2, 2)
    assert reader.names == ["start", "write", "write"]
    assert unit_reader.names == ["configure", "write", "write"]


def test_all_readers_of_an_output_share_one_object_muxed_once(track: Track) -> None:
    muxed = []

    class CountingMuxer(CONTAINERS["flv"]):
        def mux(self, sample):
            muxed.append(sample)
            return super().mux(sample)

        def append(self, unit, pieces):
            muxed.append(unit)
            return super().append(unit, pieces)

    stream = Hub(SETTINGS, {"flv": CountingMuxer, "fmp4": CONTAINERS["fmp4"]}, FRAMINGS).open("cam")
    stream.configure(track)
    publish_gop(stream, 0)
    assert muxed == []
    readers = {framing: [RecordingReader(), RecordingReader()] for framing in FRAMINGS}
    for framing, pair in readers.items():
        for reader in pair:
            stream.subscribe(reader, "flv", framing)
    muxed.clear()
    publish_gop(stream, 5)
    assert len(muxed) == 5
    for first, second in readers.values():
        assert all(a is b for a, b in zip(first.units, second.units, strict=True))
        assert len(first.units) == 10
    for pair in readers.values():
        for reader in pair:
            stream.unsubscribe(reader)
    publish_gop(stream, 10)
    assert len(muxed) == 5
    assert stream.readers == 0


def test_nothing_is_kept_twice_for_one_reader(stream: Stream) -> None:
    first, second, third = (RecordingReader() for _ in range(3))
    stream.subscribe(first, *OUTPUT)
    publish_gop(stream, 0)
    stream.subscribe(second, *OUTPUT)
    stream.subscribe(third, *OUTPUT)
    assert numbers(second) == [0, 1, 2, 3, 4]
    assert not any(a is b for a, b in zip(first.units, second.units, strict=True))
    publish_gop(stream, 5)
    assert all(a is b for a, b in zip(second.units, third.units, strict=True))
    stream.unsubscribe(second)
    stream.unsubscribe(third)
    publish_gop(stream, 10)
    late = RecordingReader()
    stream.subscribe(late, *OUTPUT)
    assert numbers(first) == list(range(15))
    assert numbers(late) == list(range(10, 15))
    assert not any(a is b for a, b in zip(late.units, first.units[-5:], strict=True))


@pytest.mark.parametrize(("container", "has_sound"), [("rtp", False), ("rtp", True), ("fmp4", True)])
def test_what_counts_is_never_muxed_again_while_it_is_read(container: str, has_sound: bool) -> None:
    track, units = encode_clip(Codec.H264, 8)
    if has_sound:
        track = msgspec.structs.replace(track, audio=encode_sound(AudioCodec.AAC, 1)[0])
    stream = Hub(SETTINGS).open("cam")
    stream.configure(track)
    first, second = RecordingReader(), RecordingReader()
    stream.subscribe(first, container, "unframed")
    for unit in units[:4]:
        stream.publish(unit)
    stream.subscribe(second, container, "unframed")
    for unit in units[4:]:
        stream.publish(unit)
    assert len(first.units) == len(units)
    assert all(a is b for a, b in zip(first.units, second.units, strict=True))


def test_a_second_framing_in_mid_gop_gets_the_whole_gop(stream: Stream) -> None:
    first, second = RecordingReader(), RecordingReader()
    stream.subscribe(first, "fmp4", "unframed")
    publish_gop(stream, 0)
    stream.subscribe(second, "fmp4", "websocket")
    stream.publish(synthetic_unit(5))
    assert numbers(first) == numbers(second) == [0, 1, 2, 3, 4, 5]
    assert second.units[5].tail.endswith(first.units[5].tail)


def test_a_second_framing_does_not_touch_what_the_first_one_counts() -> None:
    """Sound in fMP4 is timed by its samples: counted twice, those who hear the first framing hear it."""
    audio, sound = encode_sound(AudioCodec.AAC, 1)
    track = msgspec.structs.replace(encode_clip(Codec.H264, 1)[0], audio=audio)
    written: list[list[bytes]] = []
    timer = SimpleNamespace(cancel=lambda: None)
    for is_joined in (False, True):
        hub = Hub(HubSettings(), schedule=lambda _seconds, _call: timer)
        stream = hub.open("cam")
        stream.configure(track)
        first, second = RecordingReader(), RecordingReader()
        stream.subscribe(first, "fmp4", "chunked")
        for number in range(20):
            if is_joined and number == 10:
                stream.subscribe(second, "fmp4", "websocket")
            for unit in sound:
                if number <= unit.pts / FRAME_TICKS < number + 1:
                    # Rounded to a millisecond, as by cameras: each begins a little beside the last one's end.
                    stream.publish_audio(msgspec.structs.replace(unit, pts=unit.pts // 90 * 90))
            stream.publish(synthetic_unit(number, random_access=number == 0))
        written.append([unit.tail for unit in first.units])
        assert bool(second.units) == is_joined
    assert written[0] == written[1]


@pytest.mark.parametrize("error", [RuntimeError("bug"), None])
def test_a_reader_that_raises_harms_nobody(stream: Stream, error: Exception | None) -> None:
    healthy = [RecordingReader(), RecordingReader()]
    bad, bad_units = (RecordingReader(fail_after=2, error=error) for _ in range(2))
    for reader in (healthy[0], bad, healthy[1]):
        stream.subscribe(reader, *OUTPUT)
    stream.subscribe_units(bad_units)
    publish_gop(stream, 0)
    assert [len(reader.units) for reader in healthy] == [5, 5]
    assert [len(bad.units), len(bad_units.units)] == [2, 2]
    assert bad.ended == bad_units.ended == ("internal_error" if error else "slow")
    assert stream.readers == 2


def test_a_reader_that_raises_while_it_starts_or_ends(stream: Stream) -> None:
    class Broken(RecordingReader):
        def start(self, init: bytes, mime: str) -> None:
            raise RuntimeError

        def configure(self, track: Track) -> None:
            raise RuntimeError

        def end(self, reason: str) -> None:
            super().end(reason)
            raise RuntimeError

    publish_gop(stream, 0)
    late = RecordingReader(fail_after=3)
    stream.subscribe(late, *OUTPUT)
    assert (late.ended, len(late.units)) == ("slow", 3)
    broken = [Broken(), Broken()]
    stream.subscribe(broken[0], *OUTPUT)
    stream.subscribe_units(broken[1])
    assert [(b.ended, b.units) for b in broken] == [("internal_error", [])] * 2
    assert stream.readers == 0


def test_readers_may_come_and_go_during_the_fan_out(stream: Stream) -> None:
    joined: list[RecordingReader] = []

    class Busy(RecordingReader):
        def write(self, unit) -> None:
            super().write(unit)
            if unit.pts == 2 * FRAME_TICKS:
                stream.unsubscribe(leaving)
                for container in ("flv", "fmp4"):
                    joined.append(RecordingReader())
                    stream.subscribe(joined[-1], container, "chunked")
                joined.append(RecordingReader())
                stream.subscribe_units(joined[-1])

    leaving = RecordingReader()
    stream.subscribe(Busy(), *OUTPUT)
    stream.subscribe(leaving, *OUTPUT)
    publish_gop(stream, 0)
    assert [numbers(reader) for reader in joined[:2]] == [[0, 1, 2, 3, 4]] * 2
    assert [unit.pts // FRAME_TICKS for unit in joined[2].units] == [0, 1, 2, 3, 4]
    assert numbers(leaving)[:2] == [0, 1]
    assert 4 not in numbers(leaving)


@pytest.mark.parametrize(("gop", "size", "is_kept"), [(20, 500, True), (21, 10, False), (20, 501, False)])
def test_the_gop_cache_is_bounded(stream: Stream, gop: int, size: int, is_kept: bool) -> None:
    """At each limit, and one beyond; a reader who finds no cache waits for the next random access point."""
    early = RecordingReader()
    stream.subscribe(early, *OUTPUT)
    publish_gop(stream, 0, gop, size=size)
    reader, unit_reader = RecordingReader(), RecordingReader()
    stream.subscribe(reader, *OUTPUT)
    stream.subscribe_units(unit_reader)
    assert len(reader.units) == len(unit_reader.units) == (gop if is_kept else 0)
    assert stream.last_random_access is not None
    stream.publish(synthetic_unit(gop))
    publish_gop(stream, gop + 1, 2)
    assert numbers(reader)[-2:] == [gop + 1, gop + 2]
    assert reader.units[0].is_random_access
    assert unit_reader.units[0].is_random_access
    assert numbers(early) == list(range(gop + 3))


def test_a_codec_change_restarts_every_reader(track: Track) -> None:
    stream = Hub(SETTINGS).open("cam")
    stream.configure(track)
    reader, unit_reader = RecordingReader(), RecordingReader()
    stream.subscribe(reader, *OUTPUT)
    stream.subscribe_units(unit_reader)
    publish_gop(stream, 0, 2)
    stream.configure(stream.track)
    h265, units = encode_clip(Codec.H265, 2)
    stream.configure(h265)
    assert stream.last_random_access is None
    stream.publish(synthetic_unit(2))
    for unit in units:
        stream.publish(unit)
    assert reader.names == ["start", "write", "write", "restart", "write", "write"]
    (_, (restart, mime)) = reader.calls[3]
    muxer = CONTAINERS["flv"](h265)
    assert restart == FRAMINGS["chunked"].frame(muxer.restart)
    assert mime == muxer.mime
    assert unit_reader.names == ["configure", "write", "write", "configure", "write", "write"]
    dts = [unit.dts for unit in reader.units]
    assert dts == sorted(set(dts))


def test_an_unusable_track_is_the_sources_fault_and_changes_nothing(track: Track) -> None:
    stream = Hub(SETTINGS).open("cam")
    stream.configure(track)
    reader = RecordingReader()
    stream.subscribe(reader, *OUTPUT)
    with pytest.raises(ProtocolError):
        stream.configure(msgspec.structs.replace(track, parameter_sets=()))
    publish_gop(stream, 0)
    assert len(reader.units) == 5


def test_after_an_interruption_nothing_old_is_shown(stream: Stream, track: Track) -> None:
    reader, late = RecordingReader(), RecordingReader()
    stream.subscribe(reader, *OUTPUT)
    publish_gop(stream, 0)
    stream.interrupt()
    assert stream.last_random_access is None
    stream.subscribe(late, *OUTPUT)
    assert late.names == ["start"]
    stream.configure(track)
    stream.publish(synthetic_unit(0, received_ns=10 * FRAME_NS))
    stream.publish(synthetic_unit(0, random_access=True, received_ns=11 * FRAME_NS))
    assert numbers(late) == [11]
    assert numbers(reader) == [0, 1, 2, 3, 4, 11]
    assert reader.names.count("start") + reader.names.count("restart") == 1
    assert stream.epoch == 1


def test_closing_ends_everyone_once(hub: Hub, stream: Stream) -> None:
    readers = [RecordingReader() for _ in range(3)]
    stream.subscribe(readers[0], *OUTPUT)
    stream.subscribe(readers[1], "fmp4", "websocket")
    stream.subscribe_units(readers[2])
    assert list(hub) == [stream]
    hub.close("cam", "camera_gone")
    hub.close("cam", "camera_gone")
    publish_gop(stream, 0)
    assert [reader.ended for reader in readers] == ["camera_gone"] * 3
    assert [reader.units for reader in readers] == [[]] * 3
    assert list(hub) == []
    assert hub.open("cam") is not stream


def test_unknown_outputs(stream: Stream) -> None:
    for container, framing in (("avi", "chunked"), ("flv", "udp")):
        with pytest.raises(KeyError):
            stream.subscribe(RecordingReader(), container, framing)
    assert stream.readers == 0
    stream.unsubscribe(RecordingReader())


def test_readers_and_bit_rate(track: Track) -> None:
    now = 0
    stream = Hub(SETTINGS, clock_ns=lambda: now).open("cam")
    stream.configure(track)
    stream.subscribe_units(RecordingReader())
    for number in range(100):
        stream.publish(synthetic_unit(number, random_access=number % 10 == 0, size=1000))
    now = 4_000_000_000
    assert (stream.readers, stream.bit_rate_bps) == (1, 25 * 1000 * 8)
