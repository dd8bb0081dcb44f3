"""RTMP through the tunnel."""

import asyncio
import ipaddress

import pytest
from support.http_media import HEIGHT, WIDTH, Recorder, make_clip
from support.rtmp_server import serve_rtmp

from streams.errors import SourceUnreachableError, UnsupportedError
from streams.sources.egress import EgressSettings
from streams.sources.pyav import PyavSettings, PyavSource
from streams.sources.rtmp import rtmp_input
from streams.sources.source import CameraAddress

EGRESS = EgressSettings(allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),))


async def test_access_units_arrive_and_the_server_sees_the_cameras_own_name():
    recorder = Recorder()
    async with asyncio.timeout(10), serve_rtmp(make_clip("flv")) as (port, seen):
        address = CameraAddress(url=f"rtmp://localhost:{port}/live/gate/cam1?key=7")
        settings = PyavSettings(egress=_egress_with_ipv6())
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(PyavSource(address, settings).run(recorder))
            await recorder.wait_for(45)
            task.cancel()
    assert (recorder.tracks[0].width, recorder.tracks[0].height) == (WIDTH, HEIGHT)
    assert f"rtmp://localhost:{port}/live/gate".encode() in seen[0]
    assert b"cam1?key=7" in b"".join(seen)


def _egress_with_ipv6():
    networks = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
    return EgressSettings(allowed_networks=networks)


async def test_nobody_listens():
    source = PyavSource(CameraAddress(url="rtmp://127.0.0.1:1/app/cam"), PyavSettings(egress=EGRESS))
    with pytest.raises(SourceUnreachableError):
        await source.run(Recorder())


def test_the_child_is_given_the_tunnel_and_the_credential():
    address = CameraAddress(url="rtmp://camera.example:1936/app/cam", username="u", password="p")
    result = rtmp_input(address, 4000)
    assert result.url == "rtmp://u:p@127.0.0.1:4000/app/cam"
    assert result.options["rtmp_tcurl"] == "rtmp://camera.example:1936/app"
    assert "u:p" not in repr(result)


@pytest.mark.parametrize("path", ["", "/", "/app", "/app/", "//cam"])
def test_an_address_without_application_and_stream_is_unsupported(path):
    with pytest.raises(UnsupportedError):
        rtmp_input(CameraAddress(url="rtmp://h" + path), 1)


@pytest.mark.parametrize("password", ["a@b", "a/b", "a b", "a?b", "a#b", "a%40", "a:b"])
def test_a_credential_that_rtmp_cannot_carry_is_unsupported(password):
    with pytest.raises(UnsupportedError) as raised:
        rtmp_input(CameraAddress(url="rtmp://h/app/cam", username="u", password=password), 1)
    assert password not in str(raised.value)
