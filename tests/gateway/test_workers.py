"""The link to relay workers: who may speak, what one bad message costs, claims and leases."""

import asyncio
import os
import stat
import struct
from types import SimpleNamespace

import msgspec
import pytest
from support.controls import add_camera, open_city

from gateway.app import Control
from gateway.keys import InstallationKeys
from gateway.messages import (
    CameraReport,
    Claimed,
    Drain,
    Hello,
    Lease,
    Redeem,
    Release,
    SessionOver,
    Usage,
)
from gateway.store.errors import StoreUnavailableError


async def _raw(city, data):
    """Send bytes; wait until control closes the connection."""
    reader, writer = await asyncio.open_unix_connection(city.folder / "control.sock")
    writer.write(data)
    async with asyncio.timeout(10):
        await reader.read()
    writer.close()
    await writer.wait_closed()


def _framed(message):
    body = message if isinstance(message, bytes) else msgspec.msgpack.encode(message)
    return struct.pack(">I", len(body)) + body


_NO_MESSAGES = [
    _framed(b""),
    _framed(b"\xc1"),
    _framed(msgspec.msgpack.encode({"type": "Hello"})),
    _framed(msgspec.msgpack.encode({"type": "Lease", "sequence": 1})),
    struct.pack(">I", 2**32 - 1),
    _framed(Redeem(request=1, session="s", ticket="t", protocol="flv", remote="")),
    _framed(Hello(worker=7, pid=1)) + _framed(Hello(worker=7, pid=1)),
    _framed(Hello(worker=7, pid=1)) + _framed(b"\xc1"),
    b"GET / HTTP/1.1\r\n\r\n",
]


async def test_what_is_no_message_costs_the_connection_and_nothing_else(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker(0)
        for data in _NO_MESSAGES:
            await _raw(city, data)
        await city.until(lambda: city.services.workers.numbers() == [0])
        await worker.settled()


async def test_a_message_that_nobody_thought_of_costs_the_connection_and_nothing_else(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        good, bad = await city.worker(0), await city.worker(1)
        with monkeypatch.context() as patched:
            patched.setattr(city.services.workers._events, "usage", lambda _: 1 / 0)
            bad.send(Usage(sessions=[], cameras=[]))
            await bad.closed()
        assert city.services.workers.numbers() == [0]
        await good.settled()


async def test_a_request_that_fails_is_refused(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        session, ticket = opened["id"], opened["media"]["ticket"]
        for error, code, status in (
            (StoreUnavailableError("x"), "store_unavailable", 503),
            (RuntimeError("SECRET"), "internal_error", 500),
        ):

            async def failing(unit, error=error):
                raise error

            with monkeypatch.context() as patched:
                # Not of all of control: its own heartbeats must go on.
                patched.setattr(city.services.tickets, "_store", SimpleNamespace(run=failing))
                answer = await worker.redeem(session, ticket)
            assert (answer.code, answer.status, "SECRET" in answer.detail) == (code, status, False)
        await worker.start(opened)
        odd = await worker.redeem(session, "\0" * 100_000, protocol="\0")
        assert odd.code == "ticket_invalid"


@pytest.mark.parametrize("is_back", [True, False])
async def test_a_session_whose_worker_never_heard_of_its_start_is_lost(tmp_path, database_url, is_back):
    async with open_city(tmp_path, url=database_url) as city:
        await city.grant()
        worker, opened = await city.worker(), await city.watch("urban-operator")
        session, may_commit = opened["id"], asyncio.Event()

        async def stalled(unit):
            await may_commit.wait()

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(city.services.store.run(stalled))
            ticket = opened["media"]["ticket"]
            worker.send(Redeem(request=0, session=session, ticket=ticket, protocol="flv", remote="192.0.2.7"))
            await worker.settled()
            if is_back:
                await city.worker()
            else:
                worker.channel.abort()
                await city.until(lambda: not city.services.workers.connected)
            may_commit.set()
        live = city.services.live.get(session)
        await city.until(lambda: live.state == "lost")
        city.clock.advance(15)
        (end,) = await city.recorded(kind="session_end", session_id=session)
        assert (end.reason, end.detail["bytes_sent"]) == ("lost", 0)


async def test_a_camera_whose_password_does_not_open_is_refused_alone(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        other = InstallationKeys(os.urandom(32))
        with monkeypatch.context() as patched:
            patched.setattr(city.services.catalogue, "_keys", other)
            assert (await worker.claim("gate")).code == "internal_error"
        assert isinstance(await worker.claim("gate"), Claimed)


async def test_claims_have_epochs_and_go_with_their_worker(tmp_path):
    async with open_city(tmp_path) as city:
        await add_camera(city, "open", username=None, password=None)
        workers = city.services.workers
        one, two = await city.worker(1), await city.worker(2)
        first, second = await two.claim("gate"), await two.claim("open")
        assert (first.stream, first.address.username, first.address.password) == (
            "gate",
            "viewer",
            "camera-password",
        )
        assert second.address.password is None
        assert second.epoch > first.epoch
        assert workers.worker_for("gate") == 2
        assert workers.worker_for("bridge") == 1
        one.send(Release(stream="gate", epoch=first.epoch))
        await one.settled()
        assert workers.worker_for("gate") == 2
        two.send(Usage(sessions=[], cameras=[CameraReport(stream="gate", state="live", bit_rate_bps=5)]))
        await two.settled()
        listed = {
            item["id"]: item["status"] for item in (await city.call("root", "GET", "/cameras"))["items"]
        }
        assert (listed["gate"]["state"], listed["gate"]["bit_rate_bps"], listed["bridge"]["state"]) == (
            "live",
            5,
            "idle",
        )
        two.send(Release(stream="gate", epoch=first.epoch))
        await two.settled()
        assert (workers.worker_for("gate"), workers.report("gate")) == (1, None)
        two.channel.abort()
        await city.until(lambda: workers.numbers() == [1])
        assert workers.worker_for("open") == 1
        assert (await one.claim("nope")).code == "camera_disabled"


async def test_a_worker_says_hello_with_what_it_pulls(tmp_path):
    async with open_city(tmp_path) as city:
        await city.worker(0)
        await city.worker(1, streams={"gate": 1})
        assert city.services.workers.worker_for("gate") == 1


async def test_leases_come_at_once_and_again(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        first = await worker.wait_for(Lease)
        await worker.wait_for(Lease, lambda lease: lease.sequence > first.sequence + 1)


async def test_both_sockets_are_for_this_user_only_and_replace_old_ones(tmp_path):
    for name in ("control.sock", "control-http.sock"):
        (tmp_path / name).write_text("left by a killed process")
    async with open_city(tmp_path, furnish=False):
        for name in ("control.sock", "control-http.sock"):
            mode = (tmp_path / name).stat().st_mode
            assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o600)


async def test_readiness_needs_a_worker_and_the_ledger(tmp_path, monkeypatch):
    async with open_city(tmp_path) as city:
        status, _, text = await city.request("GET", "/readyz")
        assert (status, '"worker_unavailable"' in text) == (503, True)
        worker = await city.worker()
        status, _, text = await city.request("GET", "/readyz")
        assert (status, '"workers":1' in text) == (200, True)

        async def failing():
            raise StoreUnavailableError("gone")

        with monkeypatch.context() as patched:
            patched.setattr(city.services.store, "head", failing)
            status, _, text = await city.request("GET", "/readyz")
        assert (status, '"store_unavailable"' in text) == (503, True)
        status, _, _ = await city.request("GET", "/healthz")
        assert status == 200
        worker.channel.abort()


async def test_workers_are_told_when_control_stops(tmp_path):
    async with open_city(tmp_path) as city:
        worker = await city.worker()
        assert isinstance(city.control, Control)
    assert [type(message) for message in worker.received if not isinstance(message, Lease)][-1] in (
        Drain,
        str,
    )
    assert any(isinstance(message, Drain) for message in worker.received)


async def test_metrics_count_and_name_nobody(tmp_path):
    async with open_city(tmp_path) as city:
        await city.grant()
        worker = await city.worker()
        opened = await city.watch("urban-operator")
        await worker.start(opened)
        await worker.claim("gate")
        worker.send(
            Usage(sessions=[], cameras=[CameraReport(stream="gate", state="live", bit_rate_bps=1_000_000)])
        )
        await worker.settled()
        lines = (await city.request("GET", "/metrics"))[2].splitlines()
        assert 'custos_sessions{state="active"} 1.0' in lines
        assert 'custos_cameras{state="live"} 1.0' in lines
        assert "custos_ingest_bits_per_second 1e+06" in lines
        assert "custos_relay_workers 1.0" in lines
        assert 'custos_http_requests_total{route="POST /api/v1/sessions",status="201"} 1.0' in lines
        worker.send(
            SessionOver(
                session=opened["id"], reason="completed", lost=False, bytes_sent=99, dropped_access_units=0
            )
        )
        await city.until(lambda: not len(city.services.live))
        for path in ("/api/v1/cameras/gate", "/no/such/thing", "/api/v1/x?ticket=y"):
            await city.request("GET", path, city.tokens["traffic-admin"])
        text = (await city.request("GET", "/metrics"))[2]
        assert 'custos_sessions_ended_total{reason="completed"} 1.0' in text
        assert "custos_sent_bytes_total 99.0" in text
        assert 'route="GET /api/v1/cameras/{id}"' in text
        for name in ("gate", "urban-operator", "no/such", opened["id"]):
            assert name not in text
