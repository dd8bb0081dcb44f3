import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.scenes import NOON
from support.units import encode_clip

from analytics.events import MAX_REGION_POINTS, Event, Phase, Region
from analytics.messages import (
    MAX_JOB_BYTES,
    MAX_JPEGS,
    Answer,
    Begun,
    Finding,
    Forget,
    Job,
    JpegOrder,
    MessageError,
    parse_length,
    parse_to_process,
    parse_to_worker,
    serialize,
)
from streams.media import Codec


def an_event(points) -> Event:
    return Event(
        id="e",
        kind="motion",
        phase=Phase.START,
        started_at=NOON,
        ended_at=None,
        region=Region(points),
        score=0.5,
    )


def a_job(jpegs: int = 1) -> Job:
    track, units = encode_clip(Codec.H264)
    return Job(
        number=1,
        track=track,
        unit=units[0],
        captured_at=NOON,
        analyses=[],
        jpegs=[JpegOrder(640, 80)] * jpegs,
    )


def test_messages_survive_the_way():
    for message in (a_job(), Forget("a")):
        assert parse_to_process(serialize(message)[4:]) == message
    answer = Answer(number=1, findings=[Finding("a", [an_event(((0, 0), (1, 0), (1, 1)))])], jpegs=[b"x"])
    for reply in (answer, Begun(1)):
        assert parse_to_worker(serialize(reply)[4:]) == reply


def test_the_length_is_bounded():
    assert parse_length(MAX_JOB_BYTES.to_bytes(4, "big"), MAX_JOB_BYTES) == MAX_JOB_BYTES
    with pytest.raises(MessageError):
        parse_length((MAX_JOB_BYTES + 1).to_bytes(4, "big"), MAX_JOB_BYTES)


def test_the_number_of_pictures_is_bounded():
    assert parse_to_process(serialize(a_job(MAX_JPEGS))[4:])
    with pytest.raises(MessageError):
        parse_to_process(serialize(a_job(MAX_JPEGS + 1))[4:])


@pytest.mark.parametrize(
    ("points", "is_good"),
    [
        (((0, 0),) * 2, False),
        (((0, 0),) * 3, True),
        (((1, 1),) * MAX_REGION_POINTS, True),
        (((0, 0),) * (MAX_REGION_POINTS + 1), False),
        (((0, 0), (1, 1), (1.001, 0)), False),
        (((0, 0), (1, 1), (float("nan"), 0)), False),
    ],
)
def test_a_process_cannot_send_a_region_that_is_none(points, is_good):
    body = serialize(Answer(number=1, findings=[Finding("a", [an_event(points)])]))[4:]
    if is_good:
        assert parse_to_worker(body)
    else:
        with pytest.raises(MessageError):
            parse_to_worker(body)


@given(st.binary(max_size=200))
def test_only_message_errors_escape(body):
    for parse in (parse_to_process, parse_to_worker):
        with contextlib.suppress(MessageError):
            parse(body)


def test_the_least_rectangle_around_regions():
    one, two = Region(((0.1, 0.2), (0.3, 0.2), (0.2, 0.4))), Region(((0.5, 0.1), (0.6, 0.1), (0.6, 0.3)))
    assert Region.bounding([one, two]).points == ((0.1, 0.1), (0.6, 0.1), (0.6, 0.4), (0.1, 0.4))
