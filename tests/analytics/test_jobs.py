from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from support.units import encode_clip

from analytics.jobs import MAX_ANALYSES, JobRunner
from analytics.messages import AnalysisOrder, Job, JpegOrder
from streams.decode import decode
from streams.media import Codec

NOON = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def job(unit, track, *, number=1, analyses=(), jpegs=()):
    return Job(
        number=number,
        track=track,
        unit=unit,
        captured_at=NOON + timedelta(seconds=2 * number),
        analyses=list(analyses),
        jpegs=list(jpegs),
    )


class CountingDecoder:
    def __init__(self) -> None:
        self.decodes = 0

    def __call__(self, track, unit):
        self.decodes += 1
        return decode(track, unit)


def orders(count: int, **parameters):
    return [AnalysisOrder(f"a{number}", "motion", parameters) for number in range(count)]


@pytest.mark.parametrize("codec", list(Codec))
def test_one_decode_for_all_analyses_and_pictures(codec):
    track, units = encode_clip(codec)
    decoder = CountingDecoder()
    answer = JobRunner(decoder).run(
        job(units[0], track, analyses=orders(5), jpegs=[JpegOrder(160, 80), JpegOrder(320, 70)])
    )
    assert decoder.decodes == 1
    assert answer.error is None
    assert [finding.analysis for finding in answer.findings] == [f"a{n}" for n in range(5)]
    assert all(jpeg.startswith(b"\xff\xd8") and jpeg.endswith(b"\xff\xd9") for jpeg in answer.jpegs)
    assert len(answer.jpegs) == 2
    assert answer.cpu_ns >= answer.decode_ns > 0


def test_a_garbage_access_unit_is_an_error_and_no_event():
    track, units = encode_clip(Codec.H264)
    runner = JobRunner()
    garbage = msgspec.structs.replace(units[0], nal_units=(b"\x65" + b"\xa7garbage" * 400,))
    truncated = msgspec.structs.replace(
        units[0], nal_units=tuple(unit[: len(unit) // 2] for unit in units[0].nal_units)
    )
    for number, unit in enumerate((garbage, truncated)):
        answer = runner.run(job(unit, track, number=number, analyses=orders(1), jpegs=[JpegOrder(160, 80)]))
        assert answer.error == "decode_error"
        assert answer.findings == []
        assert answer.jpegs == []


def test_what_cannot_run_says_why_and_the_others_run():
    track, units = encode_clip(Codec.H264)
    wrong = [AnalysisOrder("x", "faces", {}), AnalysisOrder("y", "motion", {"threshold": 1})]
    answer = JobRunner().run(job(units[0], track, analyses=[*wrong, *orders(1)]))
    assert [finding.error for finding in answer.findings] == ["analyser_unknown", "parameters_invalid", None]


def test_an_analysis_keeps_what_it_has_learned_until_it_is_forgotten_or_changed():
    track, units = encode_clip(Codec.H264)
    learned = {"warm_up_samples": 1, "needed": 1, "window": 1, "min_area": 0.001}
    still, moved = units[0], units[25]

    def events(runner, number, unit, **parameters):
        answer = runner.run(job(unit, track, number=number, analyses=orders(1, **(learned | parameters))))
        return answer.findings[0].events

    runner = JobRunner()
    assert [events(runner, n, u) != [] for n, u in enumerate((still, still, moved))] == [False, False, True]
    runner = JobRunner()
    events(runner, 0, still)
    runner.forget("a0")
    assert events(runner, 1, moved) == []
    assert events(runner, 2, still, threshold=30) == []


def test_the_number_of_analyses_of_a_connection_is_bounded():
    track, units = encode_clip(Codec.H264)
    runner = JobRunner()
    full = {f"a{n}": ({"analyser": "motion"}, _Blind()) for n in range(MAX_ANALYSES)}
    runner._analysers.update(full)
    last = AnalysisOrder(f"a{MAX_ANALYSES - 1}", "motion", {})
    beyond = AnalysisOrder(f"a{MAX_ANALYSES}", "motion", {})
    answer = runner.run(job(units[0], track, analyses=[last, beyond]))
    assert [finding.error for finding in answer.findings] == [None, "too_many_analyses"]


class _Blind:
    def analyse(self, luma, at):
        return []
