"""From measurements to lines."""

import io

import msgspec
import pytest
from rich.console import Console

from gateway.bench.load_messages import LoadReport, ViewerReport
from gateway.bench.quantile import quantile
from gateway.bench.report import Measurement, Shape, median_of, rounded, summarize, table_of

REQUIRED = {
    "case", "viewers", "cameras", "alive", "bytes_ratio", "gap_median_ms", "gap_p95_ms",
    "first_keyframe_p95_ms", "cpu_us_per_viewer_second", "floor_us_per_viewer_second", "rss_mb", "drops",
}  # fmt: skip
SHAPE = Shape(
    case="one-4", cameras=1, merge_ms=0, bit_rate_bps=1_000_000, pictures_per_second=25, expected_bytes=1000.0
)


def viewer(**values):
    defaults = {"bytes_received": 8000, "gap_ms": 50.0, "first_keyframe_ms": 20.0, "is_alive": True}
    return ViewerReport(**(defaults | values))


def measurement(viewers=None, **values):
    load = LoadReport(
        seconds=8.0,
        cpu_seconds=0.8,
        viewers=[viewer(first_keyframe_ms=900.0), *(viewer() for _ in range(3))]
        if viewers is None
        else viewers,
        latencies_ms=[1.0, 2.0, 3.0, 40.0],
        failures={},
    )
    defaults = {
        "load": load, "seconds": 8.0, "server_cpu": [0.4, 0.4],
        "server_rss_kb": 102_400, "idle_rss_kb": 102_000
    }  # fmt: skip
    return Measurement(**(defaults | values))


def test_a_line_has_what_others_rely_on():
    result = summarize(SHAPE, measurement(drops=7), measurement(server_cpu=[0.4]))
    assert set(rounded(result)) >= REQUIRED
    assert result.alive == result.viewers == 4
    assert result.bytes_ratio == 1.0
    assert result.cpu_us_per_viewer_second == pytest.approx(25_000)
    assert result.floor_us_per_viewer_second == pytest.approx(12_500)
    assert result.ratio == pytest.approx(2.0)
    assert result.cpu_us_per_camera_second == pytest.approx(100_000)
    assert result.first_keyframe_p95_ms == 20.0
    assert result.cold_first_keyframe_p95_ms == 900.0
    assert result.rss_kb_per_viewer == 100
    assert result.latency_p50_ms == 2.0
    assert result.latency_p99_ms == 40.0
    assert result.drops == 7


def test_without_a_compiler_there_is_no_floor_and_no_ratio():
    result = summarize(SHAPE, measurement(), None)
    assert result.floor_us_per_viewer_second is None
    assert result.ratio is None
    assert "null" in msgspec.json.encode(rounded(result)).decode()


def test_who_is_not_alive_does_not_make_the_others_cheaper():
    dead = viewer(is_alive=False, bytes_received=0, first_keyframe_ms=None, gap_ms=8000.0)
    result = summarize(SHAPE, measurement([viewer(), viewer(), dead, dead]), None)
    assert result.alive == 2
    assert result.bytes_ratio == 0.5
    assert result.cpu_us_per_viewer_second == pytest.approx(50_000)
    assert result.gap_p95_ms == 8000.0


def test_nobody_alive_is_a_line_too():
    dead = viewer(is_alive=False, bytes_received=0, first_keyframe_ms=None)
    result = summarize(SHAPE, measurement([dead]), None)
    assert (result.alive, result.first_keyframe_p95_ms) == (0, None)


def test_several_rounds_are_their_medians():
    cpu = [[0.4, 0.4], [0.8, 0.8], [0.5, 0.3]]
    floors = [[0.4], [0.2], [0.1]]
    rounds = [
        summarize(SHAPE, measurement(server_cpu=own), measurement(server_cpu=floor))
        for own, floor in zip(cpu, floors, strict=True)
    ]
    result = median_of(rounds)
    assert result.rounds == 3
    assert result.ratio == pytest.approx(8.0), "the median of 2, 8 and 8, not the ratio of medians"
    assert result.relay_cpu == pytest.approx([0.0625, 0.05])
    assert result.viewers == 4
    assert isinstance(result.viewers, int)


@pytest.mark.parametrize(("share", "expected"), [(0.0, 1), (0.5, 2), (0.75, 3), (0.76, 4), (1.0, 4)])
def test_quantiles_are_values_that_occurred(share, expected):
    assert quantile([4, 1, 3, 2], share) == expected


def test_the_table_shows_every_case():
    console = Console(file=io.StringIO(), width=200)
    console.print(table_of([summarize(SHAPE, measurement(), None)]))
    assert "one-4" in console.file.getvalue()
