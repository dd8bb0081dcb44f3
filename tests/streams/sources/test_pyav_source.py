"""PyavSource against real HTTP servers, files and processes."""

import asyncio
import contextlib
import functools
import ipaddress
import os
import resource
import signal
import ssl
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
import structlog
from aiohttp import encode_basic_auth, web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from support.http_media import HEIGHT, WIDTH, Canary, Recorder, make_clip, send_and_stay, serve

from streams.errors import (
    LimitExceededError,
    ProtocolError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.media import Codec
from streams.sources.egress import EgressSettings
from streams.sources.origin import media_type, open_origin
from streams.sources.pyav import PyavSettings, PyavSource
from streams.sources.pyav_process import DemuxerSettings, redact
from streams.sources.source import CameraAddress

LOOPBACK_NETWORKS = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))
EGRESS = EgressSettings(allowed_networks=(ipaddress.ip_network("127.0.0.0/8"),))
PASSWORD = "canary-p%40ss-7391"
TYPES = {"flv": "video/x-flv", "mpegts": "video/mp2t", "mp4": "video/mp4"}


def make_source(url, settings=None, **address):
    return PyavSource(CameraAddress(url=url, **address), settings or PyavSettings(egress=EGRESS))


@contextlib.asynccontextmanager
async def running(source, recorder):
    """Run a source until the block ends, then cancel it."""
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(source.run(recorder))
        yield task
        task.cancel()


async def failure_of(source, recorder, act):
    """Run a source, do something to it, and return the error that it ends with."""

    async def run():
        with pytest.raises(StreamError) as raised:
            await source.run(recorder)
        return raised.value

    async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(run())
        await act()
    return task.result()


def children():
    return {int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()}


def read_proc(pid, *names):
    return "".join(Path(f"/proc/{pid}/{name}").read_text() for name in names)


@pytest.fixture(autouse=True)
def _no_process_is_left():
    before = children()
    yield
    assert children() <= before


@pytest.mark.parametrize("codec", ["h264", "h265"])
@pytest.mark.parametrize("container", ["flv", "mpegts", "mp4"])
async def test_access_units_of_every_container_and_codec_arrive(container, codec):
    async def camera(request):
        return await send_and_stay(request, make_clip(container, codec), TYPES[container])

    recorder = Recorder()
    async with asyncio.timeout(10), serve(camera) as base, running(make_source(base + "/live"), recorder):
        # The demuxer holds the last packets of an unfinished TS and fragment back.
        await recorder.wait_for(48)
    (track,) = recorder.tracks
    assert (track.codec, track.width, track.height) == (Codec(codec), WIDTH, HEIGHT)
    assert len(track.parameter_sets) == {"h264": 2, "h265": 3}[codec]
    units = recorder.units
    assert units[0].is_random_access
    assert [index for index, unit in enumerate(units) if unit.is_random_access] == [0, 25]
    assert all(later.dts - earlier.dts == 3600 for earlier, later in pairwise(units))
    assert not any(unit.discontinuity for unit in units)
    assert all(unit.pts >= unit.dts for unit in units)


async def test_received_is_stamped_by_our_own_clock():
    async def camera(request):
        return await send_and_stay(request, make_clip("flv"), "video/x-flv")

    recorder = Recorder()
    async with serve(camera) as base:
        source = PyavSource(CameraAddress(url=base), PyavSettings(egress=EGRESS), clock_ns=lambda: 42)
        async with running(source, recorder):
            await recorder.wait_for(1)
    assert recorder.units[0].received_ns == 42


async def test_a_stream_that_ends_delivers_everything_first():
    async def camera(_):
        return web.Response(body=make_clip("flv"), content_type="video/x-flv")

    recorder = Recorder()
    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError, match="ended"):
            await make_source(base).run(recorder)
    assert len(recorder.units) == 50


async def test_a_clock_that_jumps_becomes_a_discontinuity():
    clip = make_clip("flv")
    header = 13  # the FLV header and the first PreviousTagSize

    async def camera(_):
        return web.Response(body=clip + clip[header:], content_type="video/x-flv")

    recorder = Recorder()
    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError):
            await make_source(base).run(recorder)
    assert len(recorder.units) == 100
    assert [index for index, unit in enumerate(recorder.units) if unit.discontinuity] == [50]
    assert all(later.dts > earlier.dts for earlier, later in pairwise(recorder.units))


@pytest.mark.parametrize(
    ("status", "error"),
    [(404, SourceRefusedError), (403, SourceRefusedError), (500, SourceUnreachableError)],
)
async def test_http_status(status, error):
    async def camera(_):
        return web.Response(status=status)

    async with serve(camera) as base:
        with pytest.raises(error, match=str(status)):
            await make_source(base).run(Recorder())


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_refused_and_nothing_sent_there(status):
    async with Canary().listen() as canary:

        async def camera(_):
            return web.Response(status=status, headers={"Location": f"http://127.0.0.1:{canary.port}/"})

        async with serve(camera) as base:
            with pytest.raises(SourceRefusedError, match="redirect"):
                await make_source(base, username="u", password=PASSWORD, allow_basic=True).run(Recorder())
    assert canary.connections == 0


async def test_digest_login_never_sends_the_password():
    seen = []

    async def camera(request):
        seen.append(request.headers.get("Authorization", ""))
        if not seen[-1].startswith("Digest "):
            challenge = 'Digest realm="camera", nonce="abc", qop="auth", algorithm=SHA-256'
            return web.Response(status=401, headers={"WWW-Authenticate": challenge})
        return web.Response(body=make_clip("flv"))

    recorder = Recorder()
    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError, match="ended"):
            await make_source(base, username="u", password=PASSWORD).run(recorder)
    assert recorder.units
    assert len(seen) == 2
    assert PASSWORD not in "".join(seen)


async def test_basic_login_only_where_the_camera_is_flagged():
    expected = encode_basic_auth("u", PASSWORD, "utf-8")
    seen = []

    async def camera(request):
        seen.append(request.headers.get("Authorization"))
        if seen[-1] != expected:
            return web.Response(status=401, headers={"WWW-Authenticate": 'Basic realm="camera"'})
        return web.Response(body=make_clip("flv"))

    async with serve(camera) as base:
        with pytest.raises(SourceRefusedError):
            await make_source(base, username="u", password=PASSWORD).run(Recorder())
        assert seen == [None]
        with pytest.raises(SourceUnreachableError, match="ended"):
            await make_source(base, username="u", password=PASSWORD, allow_basic=True).run(Recorder())
    assert seen == [None, expected]


@pytest.fixture
def tls(tmp_path):
    """A server's TLS context with a certificate for 127.0.0.1 that nobody has signed."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "camera")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "camera.pem"
    pkcs8 = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    pem = serialization.Encoding.PEM
    path.write_bytes(key.private_bytes(pem, *pkcs8) + certificate.public_bytes(pem))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(path)
    return context


async def test_a_certificate_that_nobody_has_signed_is_not_believed(tls):
    requests = []

    async def camera(request):
        requests.append(request)
        return web.Response()

    async with serve(camera, tls) as base:
        with pytest.raises(SourceUnreachableError, match="Certificate"):
            await make_source(base, username="u", password=PASSWORD, allow_basic=True).run(Recorder())
    assert requests == []


@pytest.mark.parametrize("host", ["LOCALHOST.", "[::ffff:127.0.0.1]", "[0:0:0:0:0:ffff:7f00:1]"])
async def test_other_spellings_of_the_host_reach_the_same_pinned_address(host):
    async def camera(request):
        assert request.path_qs == "/a%2Fb/live?x=%20%C3%A4"
        return web.Response(body=make_clip("flv"))

    recorder = Recorder()
    settings = PyavSettings(egress=EgressSettings(allowed_networks=LOOPBACK_NETWORKS))
    async with serve(camera) as base:
        url = base.replace("127.0.0.1", host) + "/a%2Fb/live?x=%20%C3%A4#part"
        with pytest.raises(SourceUnreachableError, match="ended"):
            await make_source(url, settings).run(recorder)
    assert recorder.units


async def test_garbage_is_a_protocol_error():
    async def camera(_):
        return web.Response(body=bytes(range(256)) * 8192)

    async with serve(camera) as base:
        with pytest.raises(ProtocolError):
            await make_source(base).run(Recorder())


@contextlib.asynccontextmanager
async def answering(answer):
    """A camera that answers each request with these bytes; yields its address."""

    async def answer_once(reader, writer):
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer_once, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/live"


@pytest.mark.parametrize(
    "challenge",
    [
        b'realm="\xd5\xc5", nonce="n"',
        b'realm="r", nonce="n", domain="http://[::1"',
        b'realm="r", nonce="n", domain="http://x:99999999/"',
    ],
)
async def test_a_challenge_that_the_library_stumbles_over_is_the_cameras_error(challenge):
    head = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\nWWW-Authenticate: Digest "
    async with answering(head + challenge + b"\r\n\r\n") as url:
        with pytest.raises(ProtocolError) as raised:
            await make_source(url, username="u", password=PASSWORD).run(Recorder())
    assert PASSWORD not in str(raised.value)


async def test_a_content_type_that_cannot_be_read_is_the_cameras_error():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nContent-Type: video/x-flv; x*0*\r\n\r\n"
    async with answering(head) as url:
        with pytest.raises(ProtocolError, match="IndexError"):
            await make_source(url).run(Recorder())


@given(value=st.binary(max_size=60), name=st.sampled_from([b"WWW-Authenticate: Digest ", b"Content-Type: "]))
@settings(max_examples=25, deadline=None)
def test_whatever_a_header_field_says_only_our_own_errors_escape(name, value):
    status = b"401 Unauthorized" if name.startswith(b"WWW") else b"200 OK"
    head = b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\n" + name + value + b"\r\n\r\n"

    async def pull():
        async with (
            answering(head) as url,
            open_origin(
                CameraAddress(url=url, username="u", password="p"), EGRESS, timeout_seconds=5
            ) as origin,
        ):
            with contextlib.suppress(StreamError):
                async with origin.get(url) as response:
                    media_type(response)

    asyncio.run(pull())


async def test_a_stream_without_video_is_unsupported():
    async def camera(_):
        return web.Response(body=b"FLV\x01\x04\x00\x00\x00\x09\x00\x00\x00\x00")

    async with serve(camera) as base:
        with pytest.raises((UnsupportedError, SourceUnreachableError, ProtocolError)):
            await make_source(base).run(Recorder())


async def test_a_flood_is_ended():
    async def camera(request):
        return await send_and_stay(request, make_clip("flv"), "video/x-flv")

    recorder = Recorder()
    async with serve(camera) as base:
        source = make_source(base, PyavSettings(egress=EGRESS, max_bit_rate_bps=8_000))
        with pytest.raises(LimitExceededError):
            await source.run(recorder)
    assert sum(unit.size_bytes for unit in recorder.units) <= 10_000


async def test_silence_ends_the_stream():
    async def camera(request):
        return await send_and_stay(request, make_clip("flv"), "video/x-flv")

    settings = PyavSettings(egress=EGRESS, open_timeout_seconds=5, silence_seconds=0.3)
    recorder = Recorder()
    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError, match="no pictures"):
            await make_source(base, settings).run(recorder)
    assert recorder.units


async def test_a_camera_that_never_starts_ends_too():
    async def camera(request):
        return await send_and_stay(request, b"FLV", "video/x-flv")

    settings = PyavSettings(egress=EGRESS, open_timeout_seconds=0.5, silence_seconds=0.5)
    async with serve(camera) as base:
        with pytest.raises(SourceUnreachableError):
            await make_source(base, settings).run(Recorder())


async def test_nobody_listens():
    with pytest.raises(SourceUnreachableError):
        await make_source("http://127.0.0.1:1/x").run(Recorder())


def open_descriptors():
    return {int(entry.name) for entry in Path("/proc/self/fd").iterdir()}


async def test_no_descriptor_left_for_a_child_is_an_unreachable_source(tmp_path):
    """Two are left: one for the file, and one that is less than the pipes need."""
    (tmp_path / "cam.mp4").write_bytes(make_clip("mp4"))
    source = make_source(f"file://{tmp_path}/cam.mp4", PyavSettings(egress=EGRESS, file_folder=tmp_path))
    used = open_descriptors()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [number for number in range(max(used) + 3) if number not in used][:3]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (free[-1], hard))
        with pytest.raises(SourceUnreachableError, match="no demuxer"):
            await source.run(Recorder())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_killed_child_is_an_unreachable_source():
    async def camera(request):
        return await send_and_stay(request, make_clip("flv"), "video/x-flv")

    recorder = Recorder()
    before = children()

    async def kill():
        await recorder.wait_for(1)
        (child,) = children() - before
        os.kill(child, signal.SIGKILL)

    async with serve(camera) as base:
        error = await failure_of(make_source(base), recorder, kill)
    assert isinstance(error, SourceUnreachableError)
    assert "SIGKILL" in str(error)


async def test_the_child_has_a_cpu_budget_and_its_end_is_named():
    async def camera(request):
        return await send_and_stay(request, make_clip("flv"), "video/x-flv")

    settings = PyavSettings(egress=EGRESS, demuxer=DemuxerSettings(cpu_seconds_per_minute=7))
    recorder = Recorder()
    before = children()

    async def overspend():
        await recorder.wait_for(1)
        (child,) = children() - before
        soft, _ = resource.prlimit(child, resource.RLIMIT_CPU)
        assert 7 <= soft <= 9
        os.kill(child, signal.SIGXCPU)

    async with serve(camera) as base:
        error = await failure_of(make_source(base, settings), recorder, overspend)
    assert isinstance(error, LimitExceededError)


@pytest.mark.parametrize("turns", [0, 1, 3, 10, 30, 100])
async def test_cancelling_at_any_moment_leaves_no_process(turns):
    async def camera(request):
        return await send_and_stay(request, make_clip("flv"), "video/x-flv")

    async with serve(camera) as base, running(make_source(base), Recorder()):
        for _ in range(turns):
            await asyncio.sleep(0)


async def test_memory_is_bounded():
    async def camera(request):
        return await send_and_stay(request, make_clip("flv"), "video/x-flv")

    # Less than the child has mapped when it confines itself: the first allocation of any size fails.
    settings = PyavSettings(egress=EGRESS, demuxer=DemuxerSettings(memory_bytes=64 * 1024 * 1024))
    async with serve(camera) as base:
        with pytest.raises((LimitExceededError, SourceUnreachableError)):
            await make_source(base, settings).run(Recorder())


async def test_the_password_is_nowhere(caplog):
    """RTMP is the one scheme whose child must know the password."""
    greeted = asyncio.Event()
    release = asyncio.Event()

    async def camera(reader, writer):
        await reader.read(1)
        greeted.set()
        await release.wait()
        writer.write(b"\x00" * 5000)
        writer.close()

    before = children()
    password = "canary-pass-7391"
    server = await asyncio.start_server(camera, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    address = CameraAddress(url=f"rtmp://127.0.0.1:{port}/app/cam", username="u", password=password)

    async def look():
        await greeted.wait()
        (child,) = children() - before
        assert password not in read_proc(child, "cmdline", "environ", "status")
        release.set()

    with structlog.testing.capture_logs() as logs:
        async with server:
            error = await failure_of(PyavSource(address, PyavSettings(egress=EGRESS)), Recorder(), look)
    assert isinstance(error, SourceUnreachableError)
    told = f"{error!r} {error.__cause__!r} {error.__context__!r} {logs} {caplog.text} {address!r}"
    assert password not in told


async def test_what_a_child_complains_about_is_redacted(monkeypatch):
    from streams.sources import pyav_process

    script = "import sys; sys.stderr.write('failed: rtmp://u:canary@h/ and canary'); sys.exit(3)"
    monkeypatch.setattr(pyav_process, "_COMMAND", (pyav_process._COMMAND[0], "-c", script))
    async with serve(functools.partial(send_and_stay, body=b"FLV", content_type="video/x-flv")) as base:
        with (
            structlog.testing.capture_logs() as logs,
            pytest.raises(SourceUnreachableError, match="status 3"),
        ):
            await make_source(base, username="u", password="canary").run(Recorder())
    assert [entry["event"] for entry in logs] == ["demuxer complained"]
    assert "canary" not in str(logs)
    assert "failed" in str(logs)


@pytest.mark.parametrize(
    "text", ["p@ss'w", "p%40ss%27w", 'open("p@ss\'w")', "rtmp://u:p%40ss'w@h/x", "//u:p@ss'w@h"]
)
def test_redaction_knows_every_spelling_of_the_password(text):
    assert "ss" not in redact(text, "p@ss'w")


async def test_a_file_plays_in_a_loop_in_real_time(tmp_path):
    (tmp_path / "cam 1.mp4").write_bytes(make_clip("mp4", seconds=1))
    settings = PyavSettings(egress=EGRESS, file_folder=tmp_path)
    recorder = Recorder()
    loop = asyncio.get_running_loop()
    async with running(make_source(f"file://{tmp_path}/cam%201.mp4", settings), recorder):
        await recorder.wait_for(1)
        start = loop.time()
        await recorder.wait_for(31)
        elapsed = loop.time() - start
    assert elapsed > 1.0, "30 access units at 25 a second"
    assert [index for index, unit in enumerate(recorder.units[:31]) if unit.is_random_access] == [0, 25]
    assert len(recorder.tracks) == 1
    assert all(later.dts - earlier.dts == 3600 for earlier, later in pairwise(recorder.units))


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("{folder}/../secret.flv", UnsupportedError),
        ("{folder}/link.flv", UnsupportedError),
        ("{folder}/..%2Fsecret.flv", UnsupportedError),
        ("/etc/passwd", UnsupportedError),
        ("/dev/zero", UnsupportedError),
        ("{folder}/fifo", UnsupportedError),
        ("{folder}", UnsupportedError),
        ("{folder}/absent.flv", SourceUnreachableError),
        ("{folder}/nul%00", SourceUnreachableError),
        ("{folder}/loop", SourceUnreachableError),
        ("//host/{folder}/clip.flv", UnsupportedError),
        ("{folder}/clip.flv?x", UnsupportedError),
        ("{folder}/empty.flv", ProtocolError),
    ],
)
async def test_only_regular_files_of_the_folder_are_opened(tmp_path, path, error):
    folder = tmp_path / "media"
    folder.mkdir()
    (tmp_path / "secret.flv").write_bytes(make_clip("flv"))
    (folder / "clip.flv").write_bytes(make_clip("flv"))
    (folder / "empty.flv").write_bytes(b"")
    (folder / "link.flv").symlink_to(tmp_path / "secret.flv")
    (folder / "loop").symlink_to(folder / "loop")
    os.mkfifo(folder / "fifo")
    settings = PyavSettings(egress=EGRESS, file_folder=folder)
    with pytest.raises(error) as raised:
        await make_source("file:" + path.format(folder=folder), settings).run(Recorder())
    assert str(tmp_path) not in str(raised.value)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "srt://127.0.0.1:9000",
        "rtsp://127.0.0.1/x",
        "udp://127.0.0.1:1",
        "concat:/etc/passwd|/etc/shadow",
        "subfile,,start,0,end,9,,:/etc/passwd",
        "pipe:0",
        "data:video/mp2t;base64,AA",
        "gopher://127.0.0.1/",
        "async:http://127.0.0.1/",
        "/etc/passwd",
        "",
        "http://user:pw@127.0.0.1/",
        "http://169.254.169.254/latest/meta-data",
        "rtmp://127.0.0.1:1/onlyapp",
    ],
)
async def test_addresses_that_are_refused_without_a_process(url):
    with pytest.raises((UnsupportedError, SourceUnreachableError)):
        await make_source(url).run(Recorder())
