"""Logs: one line is one JSON object, whatever is in it; no credential comes through."""

import io
import json
import logging

import pytest
import structlog
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway.logs import REDACTED, configure_logs, redact

HOSTILE = (
    'line\nfeed\r\n{"event": "forged"}',
    "\x1b[31mred\x1b[0m",
    "\u2028\u2029",
    "\ud800",
    "\x00",
    '"',
    "\\",
    "中文",
)


@pytest.fixture
def configure(monkeypatch):
    """`configure_logs` to a stream of the test's, which it returns."""

    def configured(*arguments):
        output = io.StringIO()
        monkeypatch.setattr("sys.stderr", output)
        configure_logs(*arguments)
        return output

    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield configured
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


@pytest.mark.parametrize("text", HOSTILE)
def test_one_line_is_one_object(configure, text):
    stream = configure("json", "info", "control")
    log = structlog.get_logger("x")
    log.info(text, field=text, nested={"a": [text]}, number=1, nothing=None, raw=b"\xff\n")
    logging.getLogger("y").warning("%s", text)
    log.error("failed", exc_info=ValueError(text))
    lines = stream.getvalue().splitlines()
    events = [json.loads(line) for line in stream.getvalue().split("\n")[:-1]]
    assert len(events) == len(lines) == 3
    assert events[0]["event"] == events[0]["field"] == events[1]["event"] == text
    assert events[0]["nested"] == {"a": [text]}
    assert "ValueError" in events[2]["exception"]
    for event in events:
        assert {"event", "level", "logger", "timestamp", "process"} <= event.keys()
        assert event["process"] == "control"


_TEXT = st.text() | st.sampled_from(HOSTILE)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _TEXT | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXT, inner, max_size=3),
    max_leaves=6,
)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(text=_TEXT, value=_VALUES)
def test_no_value_breaks_a_line(configure, text, value):
    stream = configure("json", "info", "control")
    structlog.get_logger("x").info(text, value=value)
    (line,) = stream.getvalue().split("\n")[:-1]
    assert "event" in json.loads(line)


def test_levels(configure):
    stream = configure("json", "warning", "worker")
    structlog.get_logger("x").info("quiet")
    logging.getLogger("x").info("quiet")
    structlog.get_logger("x").warning("loud")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["loud"]


def test_console(configure):
    stream = configure("console", "info", "control")
    structlog.get_logger("x").info("hello", password="canary", session="s1")
    assert "hello" in stream.getvalue()
    assert "s1" in stream.getvalue()
    assert "canary" not in stream.getvalue()


@pytest.mark.parametrize(
    "event",
    [
        {"password": "canary"}, {"camera_password": "canary"}, {"Authorization": "Bearer canary"},
        {"ticket": "canary"}, {"set_cookie": "canary"}, {"token": b"canary"}, {"secret": ["canary"]},
        {"url": "rtsp://user:canary@10.0.0.1/x"}, {"url": "rtsp://user:p@canary@10.0.0.1/x"},
        {"url": "rtsp://canary@10.0.0.1/x"}, {"url": "rtsp://user:can/canary@10.0.0.1/x"},
        {"path": "/media/s/live.flv?ticket=canary"}, {"path": "/x?a=1&ticket=canary&b=2"},
        {"event": "GET /media/s/live.flv?ticket=canary HTTP/1.1"}, {"header": "Bearer canary"},
        {"exception": "Traceback\n  rtsp://user:canary@host/x\n"}, {"nested": {"password": "canary"}},
        {"nested": [{"a": {"ticket": "canary"}}]}, {"nested": ("rtsp://u:canary@host",)},
        {"error": ValueError("rtsp://u:canary@host")},
    ],
)  # fmt: skip
def test_credentials_are_taken_out(event):
    redacted = redact(None, "info", dict(event))
    assert "canary" not in repr(redacted)
    assert REDACTED in repr(redacted)


def test_everything_else_stays():
    event = {
        "event": "e", "url": "rtsp://10.0.0.1/x", "number": 1, "flag": True, "none": None, "share": 0.5,
        "names": ["a", "b"], "mail": "a@b",
    }  # fmt: skip
    assert redact(None, "info", dict(event)) == event


def test_nesting_is_bounded():
    value = current = {}
    for _ in range(10_000):
        current["x"] = current = {}
    assert len(repr(redact(None, "info", {"value": value["x"]}))) < 10**6
