import asyncio
import contextlib

import aiohttp
import pytest
from support.fake_control import FakeControl
from support.relay_worker import running_relay

from gateway.messages import Claimed, Drain, End, Hello, Redeem, Redeemed, SessionOver, Usage
from gateway.relay.control_link import ControlLink, ControlUnavailableError, LinkSettings, RefusedError
from gateway.relay.sessions import OverReason

QUICK = LinkSettings(answer_seconds=0.2, first_pause_seconds=0.01, max_pause_seconds=0.02)


@contextlib.asynccontextmanager
async def linked(folder, settings=QUICK):
    control = FakeControl(folder)
    pushed = asyncio.Queue()
    link = ControlLink(folder / "control.sock", lambda: Hello(worker=7, pid=1), pushed.put_nowait, settings)
    async with control.serve(), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        await control.wait_for(Hello)
        yield control, link, pushed
        running.cancel()


def over(session="s"):
    return SessionOver(session=session, reason="slow", lost=False, bytes_sent=1, dropped_access_units=0)


async def test_question_and_answers(tmp_path):
    async with linked(tmp_path) as (control, link, _):
        session, ticket = control.ticket(1)
        redeemed = await link.redeem(session, ticket, "flv", "127.0.0.1")
        assert isinstance(redeemed, Redeemed)
        assert (await link.claim("camera-1")).address == control.addresses["camera-1"]
        with pytest.raises(RefusedError) as refusal:
            await link.redeem(session, ticket, "flv", "127.0.0.1")
        assert (refusal.value.status, refusal.value.code) == (403, "ticket_invalid")


async def test_an_answer_that_comes_too_late_is_undone(tmp_path):
    async with linked(tmp_path) as (control, link, _):
        control.answer_redeem.clear()
        session, ticket = control.ticket(1)
        with pytest.raises(ControlUnavailableError):
            await link.redeem(session, ticket, "flv", "127.0.0.1")
        control.answer_redeem.set()
        undone = await control.over(session)
        assert (undone.lost, undone.bytes_sent) == (True, 0)


async def test_a_claim_that_is_answered_too_late_is_handed_on(tmp_path):
    async with linked(tmp_path) as (control, link, pushed):
        control.ticket(1)
        control.answer_claims.clear()
        with pytest.raises(ControlUnavailableError):
            await link.claim("camera-1")
        control.answer_claims.set()
        async with asyncio.timeout(5):
            while not isinstance(late := await pushed.get(), Claimed):
                pass
        assert (late.stream, late.epoch) == ("camera-1", control.epoch)


async def test_a_question_whose_asker_left_is_undone(tmp_path):
    async with linked(tmp_path, LinkSettings()) as (control, link, _):
        control.answer_redeem.clear()
        session, ticket = control.ticket(1)
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(link.redeem(session, ticket, "flv", "127.0.0.1"))
            await control.wait_for(Redeem)
            asking.cancel()
        control.answer_redeem.set()
        assert (await control.over(session)).lost


async def test_a_broken_connection_fails_its_questions_and_comes_back(tmp_path):
    async with linked(tmp_path, LinkSettings(first_pause_seconds=0.01)) as (control, link, _):
        control.answer_redeem.clear()
        session, ticket = control.ticket(1)

        async def ask():
            with pytest.raises(ControlUnavailableError):
                await link.redeem(session, ticket, "flv", "")

        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(ask())
            await control.wait_for(Redeem)
            control.received.clear()
            control.disconnect()
        control.answer_redeem.set()
        await control.wait_for(Hello)
        assert await link.claim("camera-1")


async def test_ends_wait_for_control_and_follow_the_hello(tmp_path):
    control = FakeControl(tmp_path)
    link = ControlLink(tmp_path / "control.sock", lambda: Hello(worker=7, pid=1), lambda _: None, QUICK)
    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(link.run())
        link.deliver(over())
        link.report(Usage(sessions=[], cameras=[]))
        with pytest.raises(ControlUnavailableError):
            await link.claim("camera-1")
        async with control.serve():
            await control.over("s")
            running.cancel()
    assert [type(message) for message in control.received] == [Hello, SessionOver]


async def test_control_pushes(tmp_path):
    end = End(session="s", reason="revoked")
    async with linked(tmp_path) as (control, _, pushed):
        control.send(end)
        async with asyncio.timeout(5):
            while await pushed.get() != end:
                pass


async def test_hello_names_what_runs(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.flv")) as answer:
            await answer.content.readexactly(3)
            relay.control.received.clear()
            relay.control.disconnect()
            hello = await relay.control.wait_for(Hello)
            await answer.content.readexactly(10_000)
    assert [(s.session, s.camera) for s in hello.sessions] == [(session[0], "camera-1")]
    assert hello.sessions[0].bytes_sent > 0
    assert hello.streams == {"camera-1": 1}


async def test_without_a_lease_every_session_ends_and_none_begins(tmp_path):
    async with running_relay(tmp_path, lease_seconds=0.3) as relay, aiohttp.ClientSession() as client:
        session = relay.control.ticket(1)
        async with client.get(relay.media(session, "live.flv")) as answer:
            await answer.content.readexactly(3)
            relay.control.leases = False
            over = await relay.control.over(session[0])
            assert (over.reason, over.lost) == ("lease_lost", False)
            with contextlib.suppress(aiohttp.ClientError):
                await answer.content.read()
        async with client.get(relay.media(relay.control.ticket(2), "live.flv")) as answer:
            assert answer.status == 503
        relay.control.leases = True
        await relay.until_ready()
        async with client.get(relay.media(relay.control.ticket(3), "live.flv")) as answer:
            assert answer.status == 200


async def test_a_replaced_session_reports_its_first_reader_as_replaced(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        first = relay.control.ticket(1)
        async with client.ws_connect(relay.media(first, "ws")) as viewer:
            await viewer.receive()
            async with client.get(relay.media(relay.control.ticket(1), "live.flv")) as answer:
                await answer.content.readexactly(3)
                assert (await relay.control.over(first[0])).reason == "replaced"
                relay.control.received.clear()
                await relay.control.wait_for(Usage, lambda m: [s.session for s in m.sessions] == [first[0]])


async def test_drain_tells_viewers_reports_all_and_leaves(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        sessions = [relay.control.ticket(n) for n in range(3)]
        async with (
            client.ws_connect(relay.media(sessions[0], "ws")) as viewer,
            client.get(relay.media(sessions[1], "live.flv")) as flv,
            client.get(relay.media(sessions[2], "live.mp4")) as mp4,
        ):
            await viewer.receive()
            await flv.content.readexactly(3)
            await mp4.content.readexactly(3)
            relay.control.send(Drain(reason="draining"))
            async for message in viewer:
                last = message
            assert last.json() == {"type": "end", "reason": "draining", "detail": "", "by": ""}
        for session in sessions:
            over = await relay.control.over(session[0])
            assert (over.reason, over.lost) == ("draining", False)
        async with asyncio.timeout(5):
            await relay.stopped
        with pytest.raises(OSError, match="Connect call failed"):
            await asyncio.open_connection("127.0.0.1", relay.port)


def test_a_worker_s_reasons_are_ones_that_control_knows():
    from gateway.live_session import EndReason

    assert {reason.value for reason in OverReason} <= {reason.value for reason in EndReason}
