"""Encoders that publish a camera here: who watches gets what they deliver, and the newest one wins."""

import asyncio
import traceback

import aiohttp
import pytest
from support.clip_source import ClipSource
from support.relay_worker import running_relay

from gateway.messages import PUSH_URL, Claim, Hello, PublisherFailed, Release, StreamMoved
from gateway.relay.control_link import RefusedError
from streams.errors import LimitExceededError, LoginRefusedError, SourceUnreachableError, StreamError
from streams.sources.source import CameraAddress
from streams.wire.digest import Credentials

CAMERA = "camera-1"
NO_LOGIN = Credentials(username="", password="")


def publishers_of(relay):
    relay.control.addresses[CAMERA] = CameraAddress(url=PUSH_URL)
    return relay.worker._publishers


def ticket(relay, number):
    session = relay.control.ticket(number)
    relay.control.addresses[CAMERA] = CameraAddress(url=PUSH_URL)
    return session


def login(password):
    return Credentials(username="encoder", password=password)


class Ignoring:
    def configure(self, track): ...

    def publish(self, unit): ...


async def error_of(source):
    with pytest.raises(StreamError) as raised:
        await source.run(Ignoring())
    return raised.value


async def deliver(publishers, on_replaced=lambda: None, login=NO_LOGIN):
    """Publish a clip until cancelled."""
    async with publishers.publishing(CAMERA, login, on_replaced) as publisher:
        await ClipSource().run(publisher)


async def test_a_publisher_s_login_is_control_s_answer(tmp_path):
    async with running_relay(tmp_path) as relay:
        relay.control.logins[CAMERA] = ("encoder", "secret")
        publishers, expected = publishers_of(relay), []

        def proves(credentials):
            expected.append((credentials.username, credentials.password))
            return True

        assert await publishers.admits(CAMERA, "192.0.2.1", proves)
        assert not await publishers.admits("unknown", "192.0.2.1", proves)
        assert expected == [("encoder", "secret"), ("", "")]
        failed = await relay.control.wait_for(PublisherFailed)
        assert (failed.camera, failed.remote) == ("unknown", "192.0.2.1")


async def test_viewers_get_what_is_published_and_stay_from_encoder_to_encoder(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        publishers = publishers_of(relay)
        async with asyncio.TaskGroup() as tasks:
            first = tasks.create_task(deliver(publishers))
            await relay.control.wait_for(Claim, lambda claim: claim.publishing)
            async with client.get(relay.media(ticket(relay, 1), "live.flv")) as answer:
                assert answer.status == 200
                await answer.content.readexactly(20_000)
                first.cancel()
                released = await relay.control.wait_for(Release)
                second = tasks.create_task(deliver(publishers))
                await answer.content.readexactly(20_000)
                relay.control.received.clear()
                relay.control.disconnect()
                hello = await relay.control.wait_for(Hello)
                second.cancel()
        assert list(hello.streams) == [CAMERA]
        assert hello.streams[CAMERA] > released.epoch


async def test_the_newest_encoder_wins_here(tmp_path):
    async with running_relay(tmp_path) as relay:
        publishers = publishers_of(relay)
        replaced = asyncio.Event()
        async with (
            publishers.publishing(CAMERA, NO_LOGIN, replaced.set),
            publishers.publishing(CAMERA, NO_LOGIN, lambda: pytest.fail("the newest is replaced")),
        ):
            assert replaced.is_set()
        release = await relay.control.wait_for(Release)
        assert release.epoch == relay.control.epoch
        assert len([m for m in relay.control.received if isinstance(m, Release)]) == 1


async def test_an_encoder_that_left_while_it_asked_takes_nothing_from_the_one_that_delivers(tmp_path):
    async with running_relay(tmp_path) as relay, asyncio.TaskGroup() as tasks:
        publishers, control = publishers_of(relay), relay.control
        async with publishers.publishing(CAMERA, NO_LOGIN, lambda: pytest.fail("nobody has replaced it")):
            control.received.clear()
            control.answer_claims.clear()
            newcomer = tasks.create_task(deliver(publishers))
            await control.wait_for(Claim)
            newcomer.cancel()
            control.answer_claims.set()
            await relay.worker._link.claim(CAMERA)  # answered after the one before
            assert not [message for message in control.received if isinstance(message, Release)]
            control.received.clear()
            control.disconnect()
            assert CAMERA in (await control.wait_for(Hello)).streams


async def test_another_key_of_the_camera_cuts_its_encoder_which_comes_again_with_it(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        publishers, old, new = publishers_of(relay), login("old"), login("new")
        relay.control.logins[CAMERA] = ("encoder", "old")
        replaced = asyncio.Event()
        async with publishers.publishing(CAMERA, old, replaced.set):
            relay.control.logins[CAMERA] = ("encoder", "new")
            relay.control.send(StreamMoved(stream=CAMERA))
            async with asyncio.timeout(5):
                await replaced.wait()
            await relay.control.wait_for(Release)
            with pytest.raises(LoginRefusedError):
                async with publishers.publishing(CAMERA, old, lambda: None):
                    pass
            async with asyncio.TaskGroup() as tasks:
                again = tasks.create_task(deliver(publishers, lambda: None, new))
                async with client.get(relay.media(ticket(relay, 1), "live.flv")) as answer:
                    await answer.content.readexactly(20_000)
                # who logged in before the change, and delivers only now, takes nothing from it
                with pytest.raises(LoginRefusedError):
                    async with publishers.publishing(CAMERA, old, lambda: None):
                        pass
                again.cancel()


async def test_what_was_wrong_with_an_encoder_is_the_camera_s_error_until_the_next_one_comes(tmp_path):
    async with running_relay(tmp_path) as relay:
        publishers, failures = publishers_of(relay), []
        async with (
            asyncio.TaskGroup() as tasks,
            publishers.publishing(
                CAMERA, NO_LOGIN, lambda: None, failure=lambda: failures[-1], lost_packets=lambda: 3
            ),
        ):
            source = publishers.source(CAMERA)
            assert source.lost_packets == 3
            running = tasks.create_task(error_of(source))
            await asyncio.sleep(0)
            failures.append(LimitExceededError("a flood"))
        assert isinstance(running.result(), LimitExceededError)
        assert isinstance(await error_of(publishers.source(CAMERA)), LimitExceededError)
        again = await error_of(publishers.source(CAMERA))
        frames = len(traceback.extract_tb(again.__traceback__))
        again = await error_of(publishers.source(CAMERA))
        assert len(traceback.extract_tb(again.__traceback__)) == frames
        async with publishers.publishing(CAMERA, NO_LOGIN, lambda: None):
            assert publishers.source(CAMERA).lost_packets == 0
        assert isinstance(await error_of(publishers.source(CAMERA)), SourceUnreachableError)


async def test_the_newest_encoder_wins_at_another_worker(tmp_path):
    async with running_relay(tmp_path) as relay:
        publishers = publishers_of(relay)
        replaced = asyncio.Event()
        async with publishers.publishing(CAMERA, NO_LOGIN, replaced.set):
            relay.control.send(StreamMoved(stream=CAMERA, epoch=relay.control.epoch + 1))
            async with asyncio.timeout(5):
                await replaced.wait()
        relay.control.received.clear()
        relay.control.disconnect()
        assert (await relay.control.wait_for(Hello)).streams == {}


async def test_an_encoder_that_was_overtaken_while_it_asked_is_replaced_at_once(tmp_path):
    async with running_relay(tmp_path) as relay:
        publishers = publishers_of(relay)
        publishers.taken(CAMERA, relay.control.epoch + 10)
        replaced = asyncio.Event()
        async with publishers.publishing(CAMERA, NO_LOGIN, replaced.set) as publisher:
            assert replaced.is_set()
            publisher.publish(object())  # goes nowhere


async def test_a_camera_that_cannot_be_published_is_refused(tmp_path):
    async with running_relay(tmp_path) as relay:
        relay.control.refusals[CAMERA] = "not_found"
        with pytest.raises(RefusedError):
            await deliver(publishers_of(relay))


async def test_a_viewer_of_a_camera_that_nobody_publishes_is_told(tmp_path):
    async with running_relay(tmp_path) as relay, aiohttp.ClientSession() as client:
        relay.control.refusals[CAMERA] = "not_publishing"
        async with client.get(relay.media(ticket(relay, 1), "live.flv")) as answer:
            assert (await answer.json())["code"] == "not_publishing"
