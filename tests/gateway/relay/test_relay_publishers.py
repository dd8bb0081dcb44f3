"""Encoders that publish a camera here: who watches gets what they deliver, and the newest one wins."""

import asyncio

import aiohttp
import pytest
from support.clip_source import ClipSource
from support.relay_worker import running_relay

from gateway.messages import PUSH_URL, Claim, Hello, PublisherFailed, Release, StreamMoved
from gateway.relay.control_link import RefusedError
from streams.sources.source import CameraAddress

CAMERA = "camera-1"


def publishers_of(relay):
    relay.control.addresses[CAMERA] = CameraAddress(url=PUSH_URL)
    return relay.worker._publishers


def ticket(relay, number):
    session = relay.control.ticket(number)
    relay.control.addresses[CAMERA] = CameraAddress(url=PUSH_URL)
    return session


async def deliver(publishers, on_replaced=lambda: None):
    """Publish a clip until cancelled."""
    async with publishers.publishing(CAMERA, on_replaced) as publisher:
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
            publishers.publishing(CAMERA, replaced.set),
            publishers.publishing(CAMERA, lambda: pytest.fail("the newest is replaced")),
        ):
            assert replaced.is_set()
        release = await relay.control.wait_for(Release)
        assert release.epoch == relay.control.epoch
        assert len([m for m in relay.control.received if isinstance(m, Release)]) == 1


async def test_an_encoder_that_left_while_it_asked_takes_nothing_from_the_one_that_delivers(tmp_path):
    async with running_relay(tmp_path) as relay, asyncio.TaskGroup() as tasks:
        publishers, control = publishers_of(relay), relay.control
        async with publishers.publishing(CAMERA, lambda: pytest.fail("nobody has replaced it")):
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


async def test_the_newest_encoder_wins_at_another_worker(tmp_path):
    async with running_relay(tmp_path) as relay:
        publishers = publishers_of(relay)
        replaced = asyncio.Event()
        async with publishers.publishing(CAMERA, replaced.set):
            relay.control.send(StreamMoved(stream=CAMERA))
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
        async with publishers.publishing(CAMERA, replaced.set) as publisher:
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
