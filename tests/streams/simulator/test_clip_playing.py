"""Clips: rendered to a folder once, and played as live cameras."""

import asyncio
import contextlib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import av
import msgspec
import numpy as np
import pytest

from streams.decode import decode
from streams.media import TIME_BASE_HZ, Codec
from streams.simulator import clips
from streams.simulator.clips import (
    RenderError,
    clip_path,
    is_rendered,
    load_ground_truth,
    render_clip,
    render_clips,
)
from streams.simulator.clock import LEFT, TOP, clock_plate, clock_text
from streams.simulator.producer import ClipProducer, EncoderSettings
from streams.simulator.rendering import HEIGHT, PICTURES_PER_SECOND, WIDTH, Scene
from streams.simulator.scenes import SCENES

BEIJING = timezone(timedelta(hours=8))
AT = datetime(2026, 11, 22, 3, 20, 9, tzinfo=BEIJING)


def short_scene(name: str = "riverside", seconds: float = 1.6) -> Scene:
    return replace(SCENES[name](), loop_seconds=seconds)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("clips")
    render_clip(short_scene(), folder, lambda _: None)
    return folder


def test_a_clip_has_as_many_pictures_as_its_ground_truth(folder):
    truth = load_ground_truth(folder, "riverside")
    assert (truth.scene, truth.version) == ("riverside", clips.VERSION)
    assert len(truth.pictures) == 20
    with av.open(str(clip_path(folder, "riverside"))) as container:
        video = container.streams.video[0]
        assert (video.width, video.height, float(video.average_rate)) == (WIDTH, HEIGHT, PICTURES_PER_SECOND)
        assert sum(1 for _ in container.decode(video=0)) == 20
    assert sorted(path.name for path in folder.iterdir()) == ["riverside.json", "riverside.mp4"]


def test_progress_counts_every_picture_and_a_clip_is_rendered_once(folder, tmp_path):
    steps: list[int] = []
    path = render_clip(short_scene(), tmp_path, steps.append)
    assert steps == [10, 10]
    before = path.stat().st_mtime_ns
    assert render_clip(short_scene(), tmp_path, steps.append) == path
    assert steps == [10, 10, 20]
    assert path.stat().st_mtime_ns == before
    assert path.read_bytes() == clip_path(folder, "riverside").read_bytes()


def test_a_clip_of_another_version_or_without_truth_is_not_taken(folder, tmp_path):
    scene = short_scene()
    path = clip_path(tmp_path, scene.name)
    path.write_bytes(clip_path(folder, scene.name).read_bytes())
    truth = path.with_suffix(".json")
    assert not is_rendered(tmp_path, scene)
    for version, expected in ((clips.VERSION + 1, False), (clips.VERSION, True)):
        known = msgspec.structs.replace(load_ground_truth(folder, scene.name), version=version)
        truth.write_bytes(msgspec.json.encode(known))
        assert is_rendered(tmp_path, scene) is expected
    assert not is_rendered(tmp_path, short_scene(seconds=2))
    truth.write_bytes(b"{")
    assert not is_rendered(tmp_path, scene)


def test_a_rendering_that_is_cut_short_leaves_nothing(tmp_path):
    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        render_clip(short_scene(), tmp_path, interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_processes_render_in_parallel_and_a_failure_is_told(tmp_path):
    done: list[int] = []
    (tmp_path / "file").touch()
    with pytest.raises(RenderError, match="riverside"):
        render_clips(["riverside"], tmp_path / "file", done.append)
    with pytest.raises(KeyError):
        render_clips(["nowhere"], tmp_path, done.append)


def test_the_clock_says_date_time_and_offset():
    assert clock_text(AT) == "2026-11-22 03:20:09 +08:00"
    assert clock_text(AT.astimezone(UTC)) == "2026-11-21 19:20:09 +00:00"
    plate = clock_plate(clock_text(AT))
    assert plate.shape[0] % 2 == plate.shape[1] % 2 == 0
    assert plate.shape[1] + LEFT < WIDTH * 0.6
    assert len({clock_plate(str(digit)).tobytes() for digit in range(10)}) == 10


class Time:
    """Monotonic time and the wall clock, moved by sleeping; `lost` seconds pass at the third picture."""

    def __init__(self, lost: float = 0.0) -> None:
        self.seconds = 0.0
        self._lost = lost
        self._sleeps = 0

    def monotonic(self) -> float:
        return self.seconds

    def now(self) -> datetime:
        return AT + timedelta(seconds=self.seconds)

    async def sleep(self, seconds: float) -> None:
        self._sleeps += 1
        self.seconds += seconds + (self._lost if self._sleeps == 3 else 0)
        await asyncio.sleep(0)


async def play(producer: ClipProducer, count: int) -> list:
    async with contextlib.aclosing(producer.open()) as units:
        return [await anext(units) for _ in range(count)]


def new_producer(folder, time: Time, codec: Codec = Codec.H264) -> ClipProducer:
    return ClipProducer(
        clip_path(folder, "riverside"),
        EncoderSettings(codec=codec),
        time.now,
        monotonic=time.monotonic,
        sleep=time.sleep,
    )


@pytest.mark.parametrize("codec", list(Codec))
async def test_a_clip_is_played_in_real_time_for_ever_with_the_time_in_the_picture(folder, codec):
    time = Time()
    producer = new_producer(folder, time, codec)
    assert (producer.track.codec, producer.track.width, producer.track.height) == (codec, WIDTH, HEIGHT)
    units = await play(producer, 30)
    assert time.seconds == pytest.approx(29 / PICTURES_PER_SECOND)
    assert [unit.pts for unit in units] == [round(n * TIME_BASE_HZ / PICTURES_PER_SECOND) for n in range(30)]
    assert all(unit.pts == unit.dts for unit in units)
    assert [n for n, unit in enumerate(units) if unit.is_random_access] == [0, 12, 24]
    for number in (0, 24):
        picture = decode(producer.track, units[number]).luma((WIDTH, HEIGHT))
        plate = clock_plate(clock_text(AT + timedelta(seconds=number / PICTURES_PER_SECOND)))
        height, width = plate.shape
        shown = picture[TOP : TOP + height, LEFT : LEFT + width]
        assert np.abs(shown.astype(int) - plate).mean() < 20


async def test_parameter_sets_are_only_in_the_track_and_every_subscription_begins_anew(folder):
    producer = new_producer(folder, Time())
    first, second = await play(producer, 2), await play(producer, 2)
    kinds = [nal_unit[0] & 0x1F for unit in first + second for nal_unit in unit.nal_units]
    assert not {7, 8, 9, 12} & set(kinds)
    assert [unit.is_random_access for unit in (first[0], second[0])] == [True, True]
    assert {nal_unit[0] & 0x1F for nal_unit in producer.track.parameter_sets} == {7, 8}


async def test_pictures_that_are_too_late_are_left_out(folder):
    units = await play(new_producer(folder, Time(lost=4.0)), 6)
    steps = [round(unit.pts / TIME_BASE_HZ * PICTURES_PER_SECOND) for unit in units]
    assert steps[:3] == [0, 1, 2]
    assert steps[3] == pytest.approx(52, abs=1)
    assert [step - steps[3] for step in steps[3:]] == [0, 1, 2]


def test_a_clip_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(OSError, match="nowhere"):
        ClipProducer(tmp_path / "nowhere.mp4", EncoderSettings())
