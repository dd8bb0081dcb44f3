"""One record per source and minute, however many failures there are."""

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.controls import PASSWORD, Clock, open_city

from gateway import login_failures
from gateway.login_failures import (
    MAX_NAME_CHARS,
    MAX_NAMES,
    MAX_SOURCES,
    FailureKind,
    LoginFailures,
    source_of,
)
from gateway.messages import PublisherFailed, Refused
from gateway.store.errors import StoreUnavailableError


class Ledger:
    """Keeps what is recorded; fails as often as it is told to."""

    def __init__(self):
        self.events = []
        self.failures = 0

    async def record(self, *events):
        if self.failures:
            self.failures -= 1
            raise StoreUnavailableError("the disk is full")
        self.events += events


async def test_ten_thousand_failures_of_a_thousand_sources_are_65_records():
    ledger = Ledger()
    failures = LoginFailures(ledger, Clock())
    for number in range(10_000):
        source = number % 1000
        failures.count(FailureKind.PASSWORD, f"10.0.{source // 250}.{source % 250}", f"name-{number}")
    await failures.flush()
    assert len(ledger.events) == MAX_SOURCES + 1
    own, others = ledger.events[:-1], ledger.events[-1]
    assert {event.detail["failures"] for event in own} == {10}
    assert len({event.remote for event in own}) == MAX_SOURCES
    assert (others.remote, others.reason) == (None, "other_sources")
    assert others.detail["failures"] == 10_000 - 10 * MAX_SOURCES
    assert sum(event.detail["password"] for event in ledger.events) == 10_000
    for event in ledger.events:
        assert len(event.actor_name.split(", ")) == MAX_NAMES
        assert event.detail["more_names"]


async def test_the_last_source_with_a_record_of_its_own_and_the_first_without():
    ledger = Ledger()
    failures = LoginFailures(ledger, Clock())
    for number in range(MAX_SOURCES):
        failures.count(FailureKind.TOKEN, f"10.0.0.{number}")
    await failures.flush()
    assert len(ledger.events) == MAX_SOURCES
    for number in range(MAX_SOURCES + 1):
        failures.count(FailureKind.TOKEN, f"10.0.0.{number}")
    await failures.flush()
    assert ledger.events[-1].remote is None
    assert len(ledger.events) == 2 * MAX_SOURCES + 1


async def test_kinds_and_names_of_a_source():
    ledger, clock = Ledger(), Clock()
    failures = LoginFailures(ledger, clock)
    for number in range(MAX_NAMES):
        failures.count(FailureKind.PASSWORD, "192.0.2.1", f"n{number}")
    clock.advance(3)
    failures.count(FailureKind.CODE, "192.0.2.1", "n0")
    failures.count(FailureKind.TOKEN, "192.0.2.1")
    await failures.flush()
    (event,) = ledger.events
    assert event.detail == {
        "since": "2026-01-05T08:00:00+00:00",
        "until": "2026-01-05T08:00:03+00:00",
        "failures": MAX_NAMES + 2,
        "more_names": False,
        "password": MAX_NAMES,
        "code": 1,
        "token": 1,
    }
    failures.count(FailureKind.PASSWORD, "192.0.2.1", "x" * (MAX_NAME_CHARS + 1))
    await failures.flush()
    assert ledger.events[-1].actor_name == "x" * MAX_NAME_CHARS
    await failures.flush()
    assert len(ledger.events) == 2


async def test_what_cannot_be_recorded_is_kept_and_nothing_is_counted_twice():
    ledger = Ledger()
    failures = LoginFailures(ledger, Clock())
    failures.count(FailureKind.PASSWORD, "192.0.2.1")
    ledger.failures = 2
    for _ in range(2):
        with pytest.raises(StoreUnavailableError):
            await failures.flush()
        failures.count(FailureKind.PASSWORD, "192.0.2.1")
    await failures.flush()
    await failures.flush()
    assert [event.detail["failures"] for event in ledger.events] == [1, 2]


@pytest.mark.parametrize("seconds", [60, -1])
async def test_a_minute_is_recorded_when_it_is_over_or_the_clock_was_set_back(monkeypatch, seconds):
    monkeypatch.setattr(login_failures, "_CHECK_SECONDS", 0)
    ledger, clock = Ledger(), Clock()
    failures = LoginFailures(ledger, clock)
    ledger.failures = 1
    failures.count(FailureKind.PASSWORD, "192.0.2.1")
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(failures.run())
        clock.advance(59.9)
        for _ in range(10):
            await asyncio.sleep(0)
        assert (ledger.events, ledger.failures) == ([], 1)
        clock.advance(seconds - 59.9)
        async with asyncio.timeout(10):
            while not ledger.events:
                await asyncio.sleep(0)
        running.cancel()


@pytest.mark.parametrize(
    ("remote", "source"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3::4", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", "unknown"),
        ("x" * 10_000, "unknown"),
    ],
)
def test_a_source_is_an_address_or_what_one_subscriber_has(remote, source):
    assert source_of(remote) == source


@given(st.text() | st.ip_addresses().map(str))
def test_every_source_is_short(remote):
    assert len(source_of(remote)) <= 43


async def test_a_flood_through_the_real_route_writes_nothing_until_the_minute_is_over(tmp_path):
    async with open_city(tmp_path) as city:
        before = len(await city.records())
        for number in range(20):
            body = {"username": f"user-{number}", "password": "wrong-password"}
            await city.call(None, "POST", "/login", body, 401)
        for number in range(100):
            sent = {"X-Custos-Remote": f"2001:db8::{number:x}"}
            await city.request("GET", "/api/v1/me", f"token-{number}", headers=sent)
        assert len(await city.records()) == before
        city.clock.advance(60)
        found = {event.remote: event for event in await city.recorded(2, kind="login_failures")}
        assert found["192.0.2.1"].detail["password"] == 20
        assert found["2001:db8::/64"].detail["token"] == 100
        assert len(await city.records()) == before + 2


async def test_refused_tickets_are_counted_and_the_rest_is_recorded_at_the_end(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        for session in ("no-such-session", "another"):
            assert isinstance(await worker.redeem(session, "wrong"), Refused)
        await city.call(None, "POST", "/login", {"username": "x", "password": PASSWORD}, 401)
    async with open_city(tmp_path) as city:
        found = {event.remote: event for event in await city.records(kind="login_failures")}
        assert found["192.0.2.7"].detail["ticket"] == 2
        assert found["192.0.2.1"].detail["password"] == 1


async def test_an_encoders_wrong_login_is_counted_as_its_worker_reports_it(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        worker.send(PublisherFailed(camera="gate", remote="192.0.2.9"))
        await worker.settled()
        await city.services.authentication.failures.flush()
        (failed,) = await city.records(kind="login_failures")
        assert (failed.remote, failed.actor_name, failed.detail["publisher"]) == ("192.0.2.9", "gate", 1)
