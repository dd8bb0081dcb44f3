"""From what was measured to what is printed: pure."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from rich.table import Table

from gateway.bench.load_messages import LoadReport, ViewerReport
from gateway.bench.quantile import quantile


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """One window of one server. CPU in seconds of the window's `seconds`, RSS in kB.

    `server_cpu`: of each process that serves. `control_cpu` and `cameras_cpu`: of what helps it. `drops`:
    access units that the server left out for slow viewers, None if it does not say.
    """

    load: LoadReport
    seconds: float
    server_cpu: list[float]
    server_rss_kb: int
    idle_rss_kb: int
    control_cpu: float | None = None
    control_rss_kb: int | None = None
    cameras_cpu: float | None = None
    camera_skipped: int | None = None
    camera_late_ms: float | None = None
    drops: int | None = None

    @property
    def alive(self) -> int:
        return sum(viewer.is_alive for viewer in self.load.viewers)

    @property
    def cpu_us_per_viewer_second(self) -> float:
        """Of all that serve; who is not alive costs nothing, and is not counted."""
        return 1e6 * sum(self.server_cpu) / self.seconds / max(1, self.alive)


class CaseResult(msgspec.Struct, frozen=True, kw_only=True):
    """One printed line. `*_cpu`: in cores. `ratio`: to the floor of the same round.

    With several rounds all figures are their medians. `cold_first_keyframe_p95_ms`: of the first viewer of
    each camera, which has to be connected to; `first_keyframe_p95_ms`: of the others, if there are
    any. `latency_*`: from a camera's sending to a viewer's receiving, both included.
    """

    case: str
    viewers: int
    cameras: int
    alive: int
    bytes_ratio: float
    gap_median_ms: float
    gap_p95_ms: float
    first_keyframe_p95_ms: float | None
    cold_first_keyframe_p95_ms: float | None
    cpu_us_per_viewer_second: float
    floor_us_per_viewer_second: float | None
    ratio: float | None
    rss_mb: float
    drops: int | None
    merge_ms: int
    bit_rate_bps: int
    pictures_per_second: int
    tls: bool
    workers: int
    rounds: int
    seconds: float
    cpu_us_per_camera_second: float
    relay_cpu: list[float]
    control_cpu: float | None
    cameras_cpu: float | None
    client_cpu: float
    control_rss_mb: float | None
    rss_kb_per_viewer: float
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    camera_skipped: int | None
    camera_late_ms: float | None
    failures: dict[str, int]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured. `expected_bytes`: what a viewer should receive in a second."""

    case: str
    cameras: int
    merge_ms: int
    bit_rate_bps: int
    pictures_per_second: int
    expected_bytes: float
    tls: bool = False


def summarize(shape: Shape, measured: Measurement, floor: Measurement | None) -> CaseResult:
    """One round's line."""
    load, seconds = measured.load, measured.seconds
    count = len(load.viewers)
    gaps = [viewer.gap_ms for viewer in load.viewers]
    cold = _first_keyframes(load.viewers[: shape.cameras])
    warm = _first_keyframes(load.viewers[shape.cameras :])
    cpu = measured.cpu_us_per_viewer_second
    floor_cpu = None if floor is None else floor.cpu_us_per_viewer_second
    grown_kb = measured.server_rss_kb - measured.idle_rss_kb
    return CaseResult(
        case=shape.case,
        viewers=count,
        cameras=shape.cameras,
        alive=measured.alive,
        bytes_ratio=sum(v.bytes_received for v in load.viewers)
        / (shape.expected_bytes * load.seconds * count),
        gap_median_ms=statistics.median(gaps),
        gap_p95_ms=quantile(gaps, 0.95),
        first_keyframe_p95_ms=_quantile(warm or cold, 0.95),
        cold_first_keyframe_p95_ms=_quantile(cold, 0.95),
        cpu_us_per_viewer_second=cpu,
        floor_us_per_viewer_second=floor_cpu,
        ratio=cpu / floor_cpu if floor_cpu else None,
        rss_mb=measured.server_rss_kb / 1024,
        drops=measured.drops,
        merge_ms=shape.merge_ms,
        bit_rate_bps=shape.bit_rate_bps,
        pictures_per_second=shape.pictures_per_second,
        tls=shape.tls,
        workers=len(measured.server_cpu),
        rounds=1,
        seconds=seconds,
        cpu_us_per_camera_second=1e6 * sum(measured.server_cpu) / seconds / shape.cameras,
        relay_cpu=[cpu_seconds / seconds for cpu_seconds in measured.server_cpu],
        control_cpu=_divided(measured.control_cpu, seconds),
        cameras_cpu=_divided(measured.cameras_cpu, seconds),
        client_cpu=load.cpu_seconds / load.seconds,
        control_rss_mb=_divided(measured.control_rss_kb, 1024),
        rss_kb_per_viewer=grown_kb / count,
        latency_p50_ms=_quantile(load.latencies_ms, 0.5),
        latency_p99_ms=_quantile(load.latencies_ms, 0.99),
        camera_skipped=measured.camera_skipped,
        camera_late_ms=measured.camera_late_ms,
        failures=load.failures,
    )


def _first_keyframes(viewers: Sequence[ViewerReport]) -> list[float]:
    return [viewer.first_keyframe_ms for viewer in viewers if viewer.first_keyframe_ms is not None]


def median_of(results: Sequence[CaseResult]) -> CaseResult:
    """One line for several rounds of the same case: the median of each figure, the sum of the failures."""
    failures: dict[str, int] = {}
    for result in results:
        for reason, count in result.failures.items():
            failures[reason] = failures.get(reason, 0) + count
    columns = {
        name: _median([getattr(result, name) for result in results])
        for name in CaseResult.__struct_fields__
        if name not in {"failures", "rounds"}
    }
    return CaseResult(**columns, failures=failures, rounds=len(results))


def _median(values: list[Any]) -> Any:
    """Of numbers, of lists place by place; what is no figure, or is missing in a round, is the first's."""
    first = values[0]
    if isinstance(first, list):
        return [statistics.median(column) for column in zip(*values, strict=True)]
    if isinstance(first, bool | str) or any(value is None for value in values):
        return first
    middle = statistics.median(values)
    return round(middle) if isinstance(first, int) else middle


def _divided(value: float | None, by: float) -> float | None:
    return None if value is None else value / by


def _quantile(values: Sequence[float], share: float) -> float | None:
    return quantile(values, share) if values else None


def rounded(result: CaseResult) -> dict[str, Any]:
    """For JSON: more than four decimals would say more than the measurement does."""
    return {
        name: [round(v, 4) for v in value]
        if isinstance(value, list)
        else round(value, 4)
        if isinstance(value, float)
        else value
        for name, value in msgspec.structs.asdict(result).items()
    }


def table_of(results: Sequence[CaseResult]) -> Table:
    """For people: a column per case, since a terminal is seldom wide enough for a line."""
    table = Table(title="Relay: server CPU and what reached the viewers", title_justify="left")
    table.add_column("")
    for r in results:
        merged = f"merged {r.merge_ms} ms" if r.merge_ms else "not merged"
        table.add_column(f"{r.case}\n{merged}{' TLS' if r.tls else ''}", justify="right", no_wrap=True)
    for heading, show in _LINES:
        table.add_row(heading, *map(show, results))
    return table


def _shown(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


_LINES: Sequence[tuple[str, Callable[[CaseResult], str]]] = (
    ("viewers alive", lambda r: f"{r.alive}/{r.viewers}"),
    ("bytes of those expected", lambda r: f"{r.bytes_ratio:.3f}"),
    ("longest gap, median (ms)", lambda r: f"{r.gap_median_ms:.0f}"),
    ("longest gap, p95 (ms)", lambda r: f"{r.gap_p95_ms:.0f}"),
    ("first keyframe, p95 (ms)", lambda r: _shown(r.first_keyframe_p95_ms, 0)),
    ("CPU per viewer-second (µs)", lambda r: f"{r.cpu_us_per_viewer_second:.0f}"),
    ("of a C send loop (µs)", lambda r: _shown(r.floor_us_per_viewer_second, 0)),
    ("ratio", lambda r: _shown(r.ratio, 2)),
    ("CPU per camera-second (µs)", lambda r: f"{r.cpu_us_per_camera_second:.0f}"),
    ("relay workers (cores)", lambda r: " ".join(f"{cores:.2f}" for cores in r.relay_cpu)),
    ("RSS of the workers (MB)", lambda r: f"{r.rss_mb:.0f}"),
    ("RSS per viewer (kB)", lambda r: f"{r.rss_kb_per_viewer:.0f}"),
    ("access units dropped", lambda r: _shown(r.drops, 0)),
    ("latency, p50 (ms)", lambda r: _shown(r.latency_p50_ms, 1)),
    ("latency, p99 (ms)", lambda r: _shown(r.latency_p99_ms, 1)),
)
