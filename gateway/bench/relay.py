"""`custos bench relay`: the relay under load, case by case, and the floor in turn with it."""

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec

from gateway.bench.cameras import CamerasReport
from gateway.bench.certificate import write_certificate
from gateway.bench.clip import PICTURES_PER_SECOND, Clip, encode_clip, write_clip
from gateway.bench.errors import BenchError
from gateway.bench.floor import compile_floor, running_floor
from gateway.bench.load import Load, running_load
from gateway.bench.node import BenchNodeSettings, dropped_access_units, running_node
from gateway.bench.processes import Usage, children, usages
from gateway.bench.report import CaseResult, Measurement, Shape, median_of, summarize

SAMPLED_VIEWERS = 100
"""At most so many viewers' bytes are searched for the cameras' stamps."""
_STAMP_ALL_CAMERAS = 10
_SETTLE_SECONDS = 2.0
_FLOOR_OPEN_RATE = 500.0
_OPENED_AT_ONCE = 64

OnProgress = Callable[[str, float], None]
"""Gets what is being done, and the share of it that is done."""


@dataclass(frozen=True, kw_only=True)
class Case:
    """So many viewers, spread evenly over so many cameras."""

    name: str
    cameras: int
    viewers: int


CASES = {
    case.name: case
    for case in (
        Case(name="one-1000", cameras=1, viewers=1000),
        Case(name="one-3000", cameras=1, viewers=3000),
        Case(name="300x10", cameras=300, viewers=3000),
        Case(name="distinct", cameras=300, viewers=300),
    )
}


@dataclass(frozen=True, kw_only=True)
class RelayBench:
    """What to measure. `merge_ms`: each case once with each of these windows; 0: no merging.

    `urls`: of another server instead of a node of ours, `{n}` is the viewer's number; `pids`: its processes.
    """

    policies: Path
    cases: tuple[Case, ...]
    merge_ms: tuple[int, ...] = (0, 100)
    seconds: float = 8.0
    workers: int = 0
    rounds: int = 1
    open_rate: float = 50.0
    bit_rate_bps: int = 1_000_000
    tls: bool = False
    urls: tuple[str, ...] = ()
    pids: tuple[int, ...] = ()


def chosen_cases(names: Sequence[str], cameras: int | None, viewers: int | None) -> tuple[Case, ...]:
    """The cases by name, all without any; with other numbers they are named for those. Raises BenchError."""
    unknown = set(names) - set(CASES)
    if unknown:
        raise BenchError(f"no such case: {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    return tuple(_resized(CASES[name], cameras, viewers) for name in names or CASES)


def _resized(case: Case, cameras: int | None, viewers: int | None) -> Case:
    if cameras is None and viewers is None:
        return case
    if case.cameras == 1:
        count = viewers or case.viewers
        return replace(case, name=f"one-{count}", viewers=count)
    each = case.viewers // case.cameras
    total = viewers or (cameras or case.cameras) * each
    count = min(cameras or -(-total // each), total)
    name = case.name if each == 1 else f"{count}x{total // count}"
    return replace(case, name=name, cameras=count, viewers=total)


async def bench_relay(
    bench: RelayBench, on_result: Callable[[CaseResult], None], on_progress: OnProgress
) -> None:
    """Measure every case with every merge window. Leaves nothing behind: no process, no file.

    Raises BenchError, NodeError or SettingsError.
    """
    with tempfile.TemporaryDirectory(prefix="custos-bench-") as temporary:
        folder = Path(temporary)
        on_progress("coding the clip", 0.0)
        clip = await asyncio.to_thread(encode_clip, bench.bit_rate_bps)
        write_clip(clip, folder / "clip")
        program = None if bench.urls else await compile_floor(folder)
        run = _Run(bench, folder, clip, program, on_progress)
        for case in bench.cases:
            for merge_ms in bench.merge_ms:
                rounds = [await run.round(case, merge_ms) for _ in range(bench.rounds)]
                on_result(median_of(rounds))


@dataclass(frozen=True)
class _Run:
    """`program`: the compiled floor, None if there is none."""

    bench: RelayBench
    folder: Path
    clip: Clip
    program: Path | None
    on_progress: OnProgress

    async def round(self, case: Case, merge_ms: int) -> CaseResult:
        floor = None
        if self.bench.urls:
            measured = await self._foreign(case)
        else:
            if self.program is not None:
                floor = await self._floor(self.program, case, merge_ms)
            measured = await self._gateway(case, merge_ms)
        shape = Shape(
            case=case.name,
            cameras=case.cameras,
            merge_ms=merge_ms,
            bit_rate_bps=round(self.clip.bit_rate_bps),
            pictures_per_second=PICTURES_PER_SECOND,
            expected_bytes=self.bench.bit_rate_bps / 8
            if self.bench.urls
            else self.clip.flv_bytes_per_second(),
            tls=self.bench.tls,
        )
        return summarize(shape, measured, floor)

    @property
    def _workers(self) -> int:
        return self.bench.workers or len(os.sched_getaffinity(0))

    async def _floor(self, program: Path, case: Case, merge_ms: int) -> Measurement:
        async with running_floor(
            program, self.folder, self.clip, merge_seconds=merge_ms / 1000, processes=self._workers
        ) as floor, running_load() as load:  # fmt: skip
            idle = usages(floor.pids)

            async def address(number: int) -> str:
                return f"{floor.url}/{number}"

            await self._open(load, case, address, _FLOOR_OPEN_RATE, f"{case.name}: the floor's viewers")
            return await self._measure(load, floor.pids, idle, f"{case.name}: measuring the floor")

    async def _foreign(self, case: Case) -> Measurement:
        pids, urls = list(self.bench.pids), self.bench.urls
        idle = usages(pids)

        async def address(number: int) -> str:
            return urls[number % len(urls)].replace("{n}", str(number))

        async with running_load() as load:
            await self._open(load, case, address, self.bench.open_rate, f"{case.name}: opening")
            return await self._measure(load, pids, idle, f"{case.name}: measuring")

    async def _gateway(self, case: Case, merge_ms: int) -> Measurement:
        with tempfile.TemporaryDirectory(prefix="node-", dir=self.folder) as temporary:
            node = BenchNodeSettings(
                folder=Path(temporary),
                policies=self.bench.policies,
                clip=self.folder / "clip",
                cameras=case.cameras,
                workers=self._workers,
                merge_seconds=merge_ms / 1000,
                stamps_every_unit=case.cameras <= _STAMP_ALL_CAMERAS,
                certificate=write_certificate(Path(temporary)) if self.bench.tls else None,
            )
            measured = await self._gateway_measured(node, case, merge_ms)
            with suppress(FileNotFoundError):  # the cameras had to be killed
                cameras = msgspec.json.decode(node.report.read_bytes(), type=CamerasReport)
                measured = msgspec.structs.replace(
                    measured, camera_skipped=cameras.skipped, camera_late_ms=cameras.late_ms
                )
            drops = await asyncio.to_thread(dropped_access_units, node.data, case.viewers)
            return msgspec.structs.replace(measured, drops=drops)

    async def _gateway_measured(self, settings: BenchNodeSettings, case: Case, merge_ms: int) -> Measurement:
        ca_file = str(settings.certificate[0]) if settings.certificate else None
        what = f"{case.name}, merged {merge_ms} ms"
        self.on_progress(f"{what}: starting the node", 0.0)
        async with running_node(settings) as node, running_load() as load:
            relays, others = (
                children("gateway.relay"),
                children("gateway.app") + children("gateway.bench.cameras"),
            )
            idle = usages(relays)

            async def address(number: int) -> str:
                return await node.open_session(number % case.cameras)

            await self._open(load, case, address, self.bench.open_rate, f"{what}: opening sessions", ca_file)
            before = usages(others)
            measured = await self._measure(load, relays, idle, f"{what}: measuring")
            control, cameras = usages(others)
            return msgspec.structs.replace(
                measured,
                control_cpu=control.cpu_seconds - before[0].cpu_seconds,
                control_rss_kb=control.rss_kb,
                cameras_cpu=cameras.cpu_seconds - before[1].cpu_seconds,
            )

    async def _open(
        self,
        load: Load,
        case: Case,
        address: Callable[[int], Awaitable[str]],
        rate: float,
        what: str,
        ca_file: str | None = None,
    ) -> None:
        """Open `case`'s viewers, `rate` of them a second, and wait for their first keyframes.

        The first viewer of each camera comes first, and meets it cold; then the others.
        """
        loop = asyncio.get_running_loop()
        slots = asyncio.Semaphore(_OPENED_AT_ONCE)
        every = max(1, case.viewers // SAMPLED_VIEWERS)

        async def open_one(number: int) -> None:
            async with slots:
                url = await address(number)
            await load.open(url, sampled=number % every == 0, ca_file=ca_file)

        for numbers in (range(case.cameras), range(case.cameras, case.viewers)):
            began = loop.time()
            async with asyncio.TaskGroup() as group:
                for number in numbers:
                    await asyncio.sleep(max(0.0, began + (number - numbers[0]) / rate - loop.time()))
                    group.create_task(open_one(number))
                    self.on_progress(what, number / case.viewers)
            await load.all_started(lambda started: self.on_progress(what, started / case.viewers))

    async def _measure(
        self, load: Load, pids: Sequence[int], idle: Sequence[Usage], what: str
    ) -> Measurement:
        loop = asyncio.get_running_loop()
        await asyncio.sleep(_SETTLE_SECONDS)
        before, began = usages(pids), loop.time()
        await load.begin()
        while (passed := loop.time() - began) < self.bench.seconds:
            self.on_progress(what, passed / self.bench.seconds)
            await asyncio.sleep(min(0.25, self.bench.seconds - passed))
        report = await load.end()
        after, seconds = usages(pids), loop.time() - began
        return Measurement(
            load=report,
            seconds=seconds,
            server_cpu=[
                end.cpu_seconds - start.cpu_seconds for start, end in zip(before, after, strict=True)
            ],
            server_rss_kb=sum(end.rss_kb for end in after),
            idle_rss_kb=sum(start.rss_kb for start in idle),
        )
