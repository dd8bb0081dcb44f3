"""Clips of the scenes: each rendered once into a folder, an MP4 file with its ground truth beside it."""

import multiprocessing
import signal
import tempfile
from collections.abc import Callable, Iterable
from fractions import Fraction
from multiprocessing.connection import Connection
from multiprocessing.connection import wait as wait_for
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import cast

import av
import msgspec
import numpy as np
from av.container import OutputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from streams.simulator.rendering import HEIGHT, PICTURES_PER_SECOND, WIDTH, Scene, SceneRenderer, TruthBox
from streams.simulator.scenes import SCENES
from streams.sources.sandbox import die_with_parent

VERSION = 1
"""Raised whenever a scene looks different from before: clips of another version are rendered anew."""

_GOP_PICTURES = 50
_OPTIONS = {"preset": "superfast", "tune": "fastdecode", "crf": "20"}
_REPORT_EVERY_PICTURES = 10

Progress = Callable[[int], None]
"""Called with the number of pictures that were finished since the last call."""


class RenderError(Exception):
    """A rendering process failed; it has said why on stderr."""


class GroundTruth(msgspec.Struct, frozen=True, kw_only=True):
    """What can be seen in a clip. `pictures`: the boxes of each picture, far ones first."""

    version: int
    scene: str
    width: int
    height: int
    pictures_per_second: float
    pictures: list[list[TruthBox]]


def clip_path(folder: Path, scene: str) -> Path:
    return folder / f"{scene}.mp4"


def load_ground_truth(folder: Path, scene: str) -> GroundTruth:
    """Raises OSError, or msgspec.MsgspecError if it is not a ground truth."""
    return msgspec.json.decode(clip_path(folder, scene).with_suffix(".json").read_bytes(), type=GroundTruth)


def is_rendered(folder: Path, scene: Scene) -> bool:
    """Whether the folder holds a complete clip of this version and length."""
    try:
        truth = load_ground_truth(folder, scene.name)
    except (OSError, msgspec.MsgspecError):
        return False
    is_same = (truth.version, len(truth.pictures)) == (VERSION, scene.pictures)
    return is_same and clip_path(folder, scene.name).is_file()


def render_clip(scene: Scene, folder: Path, progress: Progress) -> Path:
    """Render one scene, unless it is there. A clip that is cut short leaves nothing that looks finished."""
    path = clip_path(folder, scene.name)
    if is_rendered(folder, scene):
        progress(scene.pictures)
        return path
    folder.mkdir(parents=True, exist_ok=True)
    renderer = SceneRenderer(scene)
    pictures: list[list[TruthBox]] = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=f".{scene.name}-") as unfinished:
        clip = Path(unfinished, "clip.mp4")
        with av.open(str(clip), "w") as container:
            stream, reformatter = _add_stream(container), VideoReformatter()
            for index in range(scene.pictures):
                pixels, truth = renderer.picture(index)
                pictures.append(truth)
                container.mux(stream.encode(_to_frame(pixels, index, reformatter)))
                if (index + 1) % _REPORT_EVERY_PICTURES == 0 or index + 1 == scene.pictures:
                    progress(index % _REPORT_EVERY_PICTURES + 1)
            container.mux(stream.encode(None))
        truth_file = Path(unfinished, "truth.json")
        truth_file.write_bytes(
            msgspec.json.encode(
                GroundTruth(
                    version=VERSION, scene=scene.name, width=WIDTH, height=HEIGHT,
                    pictures_per_second=PICTURES_PER_SECOND, pictures=pictures,
                )
            )
        )  # fmt: skip
        # The ground truth last: it says that the clip is complete.
        clip.replace(path)
        truth_file.replace(path.with_suffix(".json"))
    return path


def render_clips(names: Iterable[str], folder: Path, progress: Progress, *, processes: int = 2) -> None:
    """Render scenes by name, one process each and `processes` at a time; blocks.

    `progress` is called in this thread. Raises KeyError for a name that is not a scene, RenderError if a
    process fails. Whatever happens, no process is left.
    """
    waiting = []
    for name in names:
        scene = SCENES[name]()
        if is_rendered(folder, scene):
            progress(scene.pictures)
        else:
            waiting.append(name)
    running: dict[Connection, SpawnProcess] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                reports, process = _start_rendering(waiting.pop(0), folder)
                running[reports] = process
            for connection in wait_for(list(running)):
                reports = cast("Connection", connection)
                try:
                    progress(reports.recv())
                except EOFError:
                    process = running.pop(reports)
                    process.join()
                    if process.exitcode != 0:
                        raise RenderError(f"rendering {process.name} failed") from None
    finally:
        for process in running.values():
            process.kill()
            process.join()


def _start_rendering(name: str, folder: Path) -> tuple[Connection, SpawnProcess]:
    context = multiprocessing.get_context("spawn")
    reports, reporter = context.Pipe(duplex=False)
    process = context.Process(target=_render, args=(name, folder, reporter), name=name, daemon=True)
    process.start()
    reporter.close()
    return reports, process


def _render(name: str, folder: Path, reports: Connection) -> None:
    die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    render_clip(SCENES[name](), folder, reports.send)


def _add_stream(container: OutputContainer) -> av.VideoStream:
    stream = container.add_stream(
        "libx264", rate=Fraction(PICTURES_PER_SECOND), options={**_OPTIONS, "g": str(_GOP_PICTURES)}
    )
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.codec_context.thread_count = 1
    stream.time_base = stream.codec_context.time_base = 1 / Fraction(PICTURES_PER_SECOND)
    return stream


def _to_frame(pixels: NDArray[np.uint8], index: int, reformatter: VideoReformatter) -> av.VideoFrame:
    rgb = av.VideoFrame.from_ndarray(pixels, format="rgb24")
    frame = reformatter.reformat(rgb, format="yuv420p", interpolation=Interpolation.FAST_BILINEAR)
    frame.pts = index
    frame.time_base = 1 / Fraction(PICTURES_PER_SECOND)
    return frame
