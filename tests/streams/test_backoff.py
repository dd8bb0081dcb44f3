"""When a camera is tried again, by a clock of the test; without jitter."""

import math

import pytest

from streams.backoff import Backoff, BackoffSettings
from streams.errors import (
    LoginRefusedError,
    SourceBugError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)

GONE, NOT_FOUND, WRONG_PASSWORD = SourceUnreachableError(""), SourceRefusedError(""), LoginRefusedError("")
NEVER = math.inf


class Camera:
    """Fails as it is told, and is asked again when the back-off says so."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.backoff = Backoff(BackoffSettings(), lambda: 1.0)

    def fail(self, error: StreamError, *, live_seconds: float = NEVER) -> float:
        live_since = NEVER if live_seconds is NEVER else self.now
        self.now += 0 if live_seconds is NEVER else live_seconds
        pause, _ = self.backoff.after(error, self.now, live_since)
        self.now += pause
        return pause


def test_an_outage_says_nothing_about_a_refusal() -> None:
    camera = Camera()
    for _ in range(100):
        assert camera.fail(GONE) <= 3
    assert [camera.fail(NOT_FOUND) for _ in range(3)] == [30, 60, 120]
    assert camera.fail(GONE) == 3


@pytest.mark.parametrize("error", [NOT_FOUND, UnsupportedError(""), SourceBugError("")])
def test_a_camera_that_was_live_may_refuse_us_while_it_starts_up(error: StreamError) -> None:
    """Without power, then up but without a picture: back within 5 s of the end of that, for two minutes."""
    camera = Camera()
    camera.fail(GONE, live_seconds=100)
    for _ in range(100):
        camera.fail(GONE)
    began = camera.now
    while camera.now - began < 120:
        assert camera.fail(error) <= 3
    assert [camera.fail(error) for _ in range(5)] == [30, 60, 120, 240, 300]
    # Live again, however briefly, it may start up again.
    assert camera.fail(error, live_seconds=1) <= 3


def test_a_camera_that_was_never_live_is_rarely_asked_by_whom_it_refuses() -> None:
    assert Camera().fail(NOT_FOUND) == 30


def test_a_rejected_password_is_not_tried_often_even_where_it_was_right() -> None:
    camera = Camera()
    camera.fail(GONE, live_seconds=100)
    assert [camera.fail(WRONG_PASSWORD) for _ in range(3)] == [30, 60, 120]


@pytest.mark.parametrize(("live_seconds", "pause"), [(59.9, 3), (60, 1)])
def test_a_healthy_minute_forgives(live_seconds: float, pause: float) -> None:
    camera = Camera()
    for _ in range(10):
        camera.fail(GONE)
    assert camera.fail(GONE, live_seconds=live_seconds) == pause


def test_jitter_takes_away_up_to_half() -> None:
    assert Backoff(BackoffSettings(), lambda: 0.0).after(GONE, 0, NEVER) == (0.5, False)
    assert Backoff(BackoffSettings(), lambda: 0.5).after(NOT_FOUND, 0, NEVER) == (22.5, True)
