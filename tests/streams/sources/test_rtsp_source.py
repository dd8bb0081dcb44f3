import asyncio
import itertools
import socket
import time
from contextlib import asynccontextmanager
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.rtsp_cameras import (
    LOOPBACK,
    PASSWORD,
    ClipProducer,
    Collector,
    failure_of,
    pull,
    rtsp_source,
    serve_tcp,
)

from streams.errors import (
    LimitExceededError,
    LoginRefusedError,
    ProtocolError,
    SourceRefusedError,
    SourceUnreachableError,
    StreamError,
    UnsupportedError,
)
from streams.media import Codec
from streams.simulator.camera import Disturbance, Faults, Login, SimulatedCamera, serve_cameras
from streams.sources.bit_rate_limit import BitRateLimit
from streams.sources.rtsp import RtspSource, RtspSourceSettings
from streams.sources.rtsp_connection import LARGE_READ_BYTES, MAX_UNSENT_BYTES, TURN_BYTES, RtspConnection
from streams.sources.rtsp_session import MAX_MALFORMED_PACKETS_PER_SECOND
from streams.sources.rtsp_url import confine_url, control_url
from streams.sources.source import CameraAddress
from streams.wire.rtsp import serialize_interleaved

LOGIN = {"username": "viewer", "password": PASSWORD}
H264 = ClipProducer(Codec.H264)
DIGESTS = [(Login.DIGEST_MD5,), (Login.DIGEST_SHA256,), (Login.BASIC, Login.DIGEST_MD5, Login.DIGEST_SHA256)]


def camera(**options):
    return SimulatedCamera(**({"name": "gate", "producer": H264} | LOGIN | options))


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("logins", DIGESTS)
@pytest.mark.parametrize("has_qop", [False, True])
async def test_pulls_exactly_what_the_camera_sends(codec, logins, has_qop):
    producer = ClipProducer(codec)
    async with serve_cameras([camera(producer=producer, logins=logins, has_qop=has_qop)]) as server:
        collector = await pull(server.url("gate"), 60, **LOGIN)
        assert server.playing["gate"] == 0
        assert server.requests["TEARDOWN"] == 1
    assert collector.tracks == [producer.track]
    expected = [unit.nal_units for unit in producer.units * 2][:60]
    assert [unit.nal_units for unit in collector.units[:60]] == expected
    steps = {after.dts - before.dts for before, after in itertools.pairwise(collector.units)}
    assert steps == {3600}
    assert all(unit.pts == unit.dts and not unit.discontinuity for unit in collector.units)


@pytest.mark.parametrize("codec", Codec)
@pytest.mark.parametrize("described", [False, True])
async def test_parameter_sets_may_come_from_the_description_or_in_band(codec, described):
    producer = ClipProducer(codec)
    source = camera(producer=producer, describes_parameter_sets=described, sends_parameter_sets=not described)
    async with serve_cameras([source]) as server:
        collector = await pull(server.url("gate"), 3, **LOGIN)
    assert collector.tracks == [producer.track]


async def test_reordered_pictures_keep_their_presentation_times():
    producer = ClipProducer(Codec.H264, b_frames=2)
    async with serve_cameras([camera(producer=producer)]) as server:
        collector = await pull(server.url("gate"), 60, **LOGIN)
    units = collector.units[:50]
    shift = units[0].pts - producer.units[0].pts
    assert [unit.pts - shift for unit in units] == [unit.pts for unit in producer.units]
    assert all(unit.dts <= unit.pts for unit in units)
    assert all(after.dts > before.dts for before, after in itertools.pairwise(units))


async def test_an_open_camera_needs_no_login():
    async with serve_cameras([camera(username=None)]) as server:
        await pull(server.url("gate"), 2)


async def test_basic_is_refused_unless_the_camera_is_flagged():
    async with serve_cameras([camera(logins=(Login.BASIC,))]) as server:
        refusal = await failure_of(server.url("gate"), **LOGIN)
        assert isinstance(refusal, SourceRefusedError)
        assert server.requests["SETUP"] == 0
        await pull(server.url("gate"), 2, allow_basic=True, **LOGIN)


@pytest.mark.parametrize(
    ("fields", "address"),
    [({}, {}), ({}, LOGIN | {"password": "wrong"}), ({}, LOGIN | {"username": "nobody"})],
)
async def test_a_wrong_login_is_refused_and_tried_only_once(fields, address):
    async with serve_cameras([camera(**fields)]) as server:
        refusal = await failure_of(server.url("gate"), **address)
        assert isinstance(refusal, SourceRefusedError)
        assert server.requests["DESCRIBE"] <= 2


async def test_a_camera_that_rejects_everyone_is_not_asked_for_ever():
    async with serve_cameras([camera(faults=Faults(rejects_everyone=True))]) as server:
        assert isinstance(await failure_of(server.url("gate"), **LOGIN), SourceRefusedError)
        assert server.requests["DESCRIBE"] == 2


async def test_a_redirect_is_refused_and_nothing_is_sent_to_the_new_address():
    visitors = []

    async def visited(reader, writer):
        visitors.append(await reader.read(1))

    async with serve_tcp(visited) as port:
        faults = Faults(redirect_to=f"rtsp://127.0.0.1:{port}/gate")
        async with serve_cameras([camera(faults=faults)]) as server:
            refusal = await failure_of(server.url("gate"), **LOGIN)
    assert isinstance(refusal, SourceRefusedError)
    assert "redirect" in str(refusal)
    assert visitors == []


@pytest.mark.parametrize(
    ("disturbance", "expected"),
    [
        (Disturbance.GARBAGE, ProtocolError),
        (Disturbance.CLOSE, SourceUnreachableError),
        (Disturbance.SILENCE, SourceUnreachableError),
        (Disturbance.HALF_PACKET, SourceUnreachableError),
    ],
)
@pytest.mark.parametrize("after_packets", [0, 7])
async def test_a_disturbed_camera_ends_the_run_with_a_reason(disturbance, expected, after_packets):
    faults = Faults(disturbance=disturbance, after_packets=after_packets)
    async with serve_cameras([camera(faults=faults)]) as server:
        failure = await failure_of(server.url("gate"), silence_seconds=0.3, **LOGIN)
        assert type(failure) is expected


async def test_an_unknown_path_is_refused():
    async with serve_cameras([camera()]) as server:
        assert isinstance(await failure_of(server.url("elsewhere"), **LOGIN), SourceRefusedError)


async def test_nobody_listens():
    async with serve_cameras([]) as server:
        url = server.url("gate")
    assert isinstance(await failure_of(url), SourceUnreachableError)


async def test_a_camera_that_never_answers_is_unreachable():
    async def never(reader, writer):
        await reader.read()

    async with serve_tcp(never) as port:
        failure = await failure_of(f"rtsp://127.0.0.1:{port}/gate", response_timeout_seconds=0.1)
    assert isinstance(failure, SourceUnreachableError)


@pytest.mark.parametrize(
    "url",
    ["rtsps://127.0.0.1/gate", "http://127.0.0.1/gate", "rtsp://u:p@127.0.0.1/", "rtsp://192.0.2.1/", "gate"],
)
async def test_addresses_that_are_not_allowed(url):
    assert isinstance(await failure_of(url), UnsupportedError)


async def test_keepalive_holds_a_session_that_the_camera_would_end():
    async with serve_cameras([camera()], session_timeout_seconds=0.5) as server:
        source = rtsp_source(server.url("gate"), keepalive_seconds=0.1, **LOGIN)
        collector = Collector()
        started = time.monotonic()
        async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
            run = tasks.create_task(source.run(collector))
            while time.monotonic() < started + 1.1:
                await collector.reached(len(collector.units) + 1)
            run.cancel()
        assert server.requests["GET_PARAMETER"] >= 2


@asynccontextmanager
async def mute_after_play(on_play=lambda: None):
    """A camera that answers up to PLAY, and then hangs: its URL, an event when it does, what it is asked."""
    replies = {
        "OPTIONS": b"",
        "DESCRIBE": b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n",
        "SETUP": b"",
        "PLAY": b"",
    }
    playing, asked = asyncio.Event(), []

    async def answer(reader, writer):
        while head := await reader.readuntil(b"\r\n\r\n"):
            method = head.split(b" ")[0].decode()
            asked.append(method)
            cseq = head.split(b"CSeq: ")[1].split(b"\r\n")[0]
            if method not in replies or playing.is_set():
                continue
            body = replies[method]
            writer.write(
                b"RTSP/1.0 200 OK\r\nCSeq: %s\r\nSession: 1\r\nTransport: RTP/AVP/TCP;interleaved=4-5\r\n"
                b"Content-Length: %d\r\n\r\n%s" % (cseq, len(body), body)
            )
            if method == "PLAY":
                on_play()
                playing.set()

    async with serve_tcp(answer) as port, asyncio.timeout(20):
        yield f"rtsp://127.0.0.1:{port}/gate", playing, asked


async def test_a_camera_that_does_not_read_teardown_does_not_hold_the_cancellation():
    async with mute_after_play() as (url, playing, _), asyncio.TaskGroup() as tasks:
        run = tasks.create_task(rtsp_source(url, teardown_timeout_seconds=0.1).run(Collector()))
        await playing.wait()
        await asyncio.sleep(0)
        run.cancel()
    assert run.cancelled()


async def test_a_camera_that_hangs_is_missed_in_time_although_its_keepalive_is_due():
    async with mute_after_play() as (url, *_):
        failure = await failure_of(
            url,
            keepalive_seconds=0.1,
            silence_seconds=0.5,
            response_timeout_seconds=60,
            teardown_timeout_seconds=0.1,
        )
    assert isinstance(failure, SourceUnreachableError)
    assert "no pictures" in str(failure)


def test_what_came_damaged_is_as_lost_as_what_never_came():
    source = rtsp_source("rtsp://127.0.0.1/gate")
    assert source.lost_packets == 0
    source.depacketizer = SimpleNamespace(lost_packets=2, malformed_payloads=3)
    assert source.lost_packets == 5


async def test_a_camera_that_answers_slowly_has_all_its_time_for_the_first_picture():
    late_ns = [0]

    def take_long():
        late_ns[0] = 9_000_000_000

    async with mute_after_play(take_long) as (url, _, asked):
        settings = RtspSourceSettings(
            keepalive_seconds=0.1, silence_seconds=0.5, teardown_timeout_seconds=0.1
        )
        source = RtspSource(
            CameraAddress(url=url), settings, LOOPBACK, clock_ns=lambda: time.monotonic_ns() + late_ns[0]
        )
        with pytest.raises(SourceUnreachableError, match="no pictures"):
            await source.run(Collector())
    assert asked[:6] == ["OPTIONS", "DESCRIBE", "SETUP", "PLAY", "OPTIONS", "TEARDOWN"]


async def failure_with(*answers, **options):
    """How a run fails when its requests get these answers, one after the other."""

    async def serve(reader, writer):
        for answer in answers:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
        await reader.read()

    async with serve_tcp(serve) as port:
        return await failure_of(f"rtsp://127.0.0.1:{port}/gate", response_timeout_seconds=2, **options)


OK = b"RTSP/1.0 200 OK\r\nCSeq: %d\r\n\r\n"


def described(sdp):
    return b"RTSP/1.0 200 OK\r\nCSeq: 2\r\nContent-Length: %d\r\n\r\n%s" % (len(sdp), sdp)


@pytest.mark.parametrize(
    ("sdp", "expected"),
    [
        (b"v=0\r\nm=audio 0 RTP/AVP 0\r\n", UnsupportedError),
        (b"v=0\r\nm=video 0 RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\n", UnsupportedError),
        (b"<html>", ProtocolError),
    ],
)
async def test_descriptions_without_video_for_us(sdp, expected):
    assert type(await failure_with(OK % 1, described(sdp))) is expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (301, SourceRefusedError),
        (403, SourceRefusedError),
        (503, SourceUnreachableError),
        (100, ProtocolError),
    ],
)
async def test_statuses(status, expected):
    assert type(await failure_with(b"RTSP/1.0 %d Whatever\r\nCSeq: 1\r\n\r\n" % status)) is expected


DESCRIPTION = b"v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n"
SETUP = b"RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession: 1\r\nTransport: RTP/AVP/TCP;interleaved=2-3\r\n\r\n"


async def test_a_camera_that_insists_on_udp():
    udp = SETUP.replace(b"/TCP;interleaved=2-3", b";unicast;client_port=1-2")
    assert type(await failure_with(OK % 1, described(DESCRIPTION), udp)) is UnsupportedError


async def test_a_login_of_an_unknown_kind():
    challenge = b"RTSP/1.0 401 No\r\nCSeq: 1\r\nWWW-Authenticate: Negotiate\r\n\r\n"
    assert type(await failure_with(challenge, **LOGIN)) is SourceRefusedError


async def test_late_answers_rtcp_and_foreign_payload_types_are_ignored():
    receiver_report = serialize_interleaved(3, b"\x81\xc9\x00\x07")
    foreign = serialize_interleaved(2, b"\x80\x61" + bytes(10))
    late = OK % 1
    garbage = serialize_interleaved(2, b"\x00") * (MAX_MALFORMED_PACKETS_PER_SECOND + 1)
    answers = (OK % 1, described(DESCRIPTION), SETUP, OK % 4 + receiver_report + foreign + late + garbage)
    failure = await failure_with(*answers)
    assert type(failure) is ProtocolError
    assert str(failure) == "RTP packet is too short"


async def test_a_stale_nonce_is_answered_again_but_not_for_ever():
    challenge = (
        b'RTSP/1.0 401 No\r\nCSeq: %d\r\nWWW-Authenticate: Digest realm="r", nonce="%d", stale=true\r\n\r\n'
    )
    failure = await failure_with(*(challenge % (number, number) for number in range(1, 9)), **LOGIN)
    assert type(failure) is LoginRefusedError


async def test_a_redirect_request_is_refused():
    request = b"REDIRECT rtsp://192.0.2.1/ RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    assert type(await failure_with(request)) is SourceRefusedError


async def test_other_requests_are_answered():
    request = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n"
    assert type(await failure_with(request + OK % 1, described(b"v=0\r\n"))) is UnsupportedError


class CloggedTransport(asyncio.Transport):
    """A peer that does not read."""

    def __init__(self, unsent_bytes):
        super().__init__()
        self.unsent_bytes = unsent_bytes
        self.is_aborted = False
        self.written = []

    def get_write_buffer_size(self):
        return self.unsent_bytes

    def write(self, data):
        self.written.append(data)

    def abort(self):
        self.is_aborted = True


@pytest.mark.parametrize("beyond", [0, 1])
async def test_answers_to_a_peer_that_does_not_read_are_bounded(beyond):
    connection = RtspConnection(time.monotonic_ns, BitRateLimit(100_000_000))
    transport = CloggedTransport(MAX_UNSENT_BYTES + beyond)
    connection.connection_made(transport)
    connection.data_received(b"OPTIONS * RTSP/1.0\r\nCSeq: 7\r\n\r\n")
    assert transport.is_aborted == bool(beyond)
    assert len(transport.written) == 1 - beyond
    if beyond:
        with pytest.raises(LimitExceededError):
            await connection.wait_until_ended(timeout_seconds=0)
    else:
        assert transport.written[0].startswith(b"RTSP/1.0 501 Not Implemented\r\nCSeq: 7\r\n")


async def test_no_error_names_the_password():
    for logins in ((Login.BASIC,), (Login.DIGEST_MD5,)):
        async with serve_cameras([camera(logins=logins, faults=Faults(rejects_everyone=True))]) as server:
            failure = await failure_of(server.url("gate"), allow_basic=True, **LOGIN)
            assert PASSWORD not in repr(failure)
    assert PASSWORD not in repr(CameraAddress(url="rtsp://camera/", **LOGIN))


async def test_a_bug_in_the_publisher_escapes():
    class Broken(Collector):
        def publish(self, unit):
            raise ZeroDivisionError

    async with serve_cameras([camera()]) as server, asyncio.timeout(20):
        source = RtspSource(CameraAddress(url=server.url("gate"), **LOGIN), RtspSourceSettings(), LOOPBACK)
        with pytest.raises(ZeroDivisionError):
            await source.run(Broken())


ORIGIN = "rtsp://camera:8554/live?channel=1"


@pytest.mark.parametrize(
    ("base", "control", "expected"),
    [
        ("rtsp://camera:8554/live/", "trackID=0", "rtsp://camera:8554/live/trackID=0"),
        ("rtsp://camera:8554/live", "trackID=0", "rtsp://camera:8554/live/trackID=0"),
        ("rtsp://camera:8554/live?channel=1", "trackID=0", "rtsp://camera:8554/live?channel=1/trackID=0"),
        ("rtsp://camera:8554/live", "?ctype=video", "rtsp://camera:8554/live?ctype=video"),
        ("rtsp://camera:8554/live", "*", "rtsp://camera:8554/live"),
        ("rtsp://camera:8554/live", None, "rtsp://camera:8554/live"),
        ("rtsp://camera:8554/", "rtsp://10.0.0.9:554/live/video", "rtsp://camera:8554/live/video"),
        ("rtsp://camera:8554/", "rtsps://user:secret@evil/x?y", "rtsp://camera:8554/x?y"),
    ],
)
def test_control_urls_stay_at_the_camera(base, control, expected):
    assert control_url(base, control, ORIGIN) == expected


def test_confined_urls_are_bounded():
    assert len(confine_url("rtsp://x/" + "a" * (2048 - 19), ORIGIN)) == 2048
    with pytest.raises(LimitExceededError):
        confine_url("rtsp://x/" + "a" * (2048 - 18), ORIGIN)


@given(st.text())
def test_no_control_leaves_the_camera(text):
    for control in (text, "rtsp://" + text):
        try:
            url = control_url("rtsp://camera:8554/live", control, ORIGIN)
        except StreamError:
            continue
        assert url.startswith("rtsp://camera:8554")
        assert "\r" not in url
        assert " " not in url


async def test_after_a_large_read_the_others_get_their_turn():
    class Pausable(CloggedTransport):
        calls = ()

        def is_closing(self):
            return False

        def pause_reading(self):
            self.calls += ("pause",)

        def resume_reading(self):
            self.calls += ("resume",)

    connection = RtspConnection(time.monotonic_ns, BitRateLimit(100_000_000))
    transport = Pausable(0)
    connection.connection_made(transport)
    packet = serialize_interleaved(0, bytes(1000))
    connection.data_received(packet)
    assert transport.calls == ()
    connection.data_received(packet * (LARGE_READ_BYTES // len(packet) + 1))
    assert transport.calls == ("pause",)
    await asyncio.sleep(0)
    assert transport.calls == ("pause", "resume")


# Read in turns


def turn_of(reading):
    """Both steps; whether there may be more."""
    return reading.fetch() and reading.take()


class InTurns(Collector):
    """Takes the offer after some pictures, and then expects nothing but in its turns."""

    def __init__(self, after):
        super().__init__()
        self.in_turn = None
        self._after = after

    def publish(self, unit):
        assert self.in_turn is not False
        super().publish(unit)
        if len(self.units) == self._after:
            self.in_turn = False

    async def take_turns(self, until):
        """Until so many pictures came; the loop's other events come between."""
        await self.reached(self._after)
        while len(self.units) < until:
            self.in_turn = True
            turn_of(self.reading)
            self.in_turn = False
            await asyncio.sleep(0)


async def test_a_camera_can_be_read_in_turns_and_whenever_bytes_come_again():
    collector = InTurns(after=20)
    async with serve_cameras([camera()]) as server, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(rtsp_source(server.url("gate"), **LOGIN).run(collector))
        await collector.take_turns(until=60)
        collector.in_turn = None
        collector.reading.end_turns()
        await collector.reached(100)
        running.cancel()
    assert collector.reading is None
    expected = [unit.nal_units for unit in H264.units * 4][:100]
    assert [unit.nal_units for unit in collector.units[:100]] == expected


async def test_the_session_is_kept_alive_and_ended_while_it_has_turns():
    collector = InTurns(after=2)
    async with serve_cameras([camera()]) as server, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        source = rtsp_source(server.url("gate"), keepalive_seconds=0.5, **LOGIN)
        running = tasks.create_task(source.run(collector))
        await collector.reached(2)
        asked = server.requests["GET_PARAMETER"] + server.requests["OPTIONS"]
        while server.requests["GET_PARAMETER"] + server.requests["OPTIONS"] < asked + 2:
            await collector.take_turns(until=len(collector.units) + 1)
        collector.in_turn = None
        running.cancel()
    assert server.requests["TEARDOWN"] == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_a_camera_that_goes_away_in_its_turns_is_missed(reset):
    async def taking_turns(connection):
        while not transport.is_closing():
            turn_of(connection)
            await asyncio.sleep(0)

    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    if reset:
        ours.send(b"unread")
    theirs.close()
    connection = RtspConnection(time.monotonic_ns, BitRateLimit(100_000_000))
    ours.setblocking(False)
    transport, _ = await loop.create_connection(lambda: connection, sock=ours)
    async with asyncio.timeout(20):
        await taking_turns(connection)
        with pytest.raises(SourceUnreachableError):
            await connection.wait_until_ended(timeout_seconds=10)


async def test_a_bug_in_the_publisher_escapes_from_a_turn():
    class Broken(InTurns):
        def publish(self, unit):
            super().publish(unit)
            if self.in_turn:
                raise ZeroDivisionError

    collector = Broken(after=2)
    async with serve_cameras([camera()]) as server, asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        turns = tasks.create_task(collector.take_turns(until=1000))
        with pytest.raises(ZeroDivisionError):
            await rtsp_source(server.url("gate"), **LOGIN).run(collector)
        turns.cancel()


async def test_what_was_fetched_when_turns_end_is_taken_first():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    loop = asyncio.get_running_loop()
    connection = RtspConnection(time.monotonic_ns, BitRateLimit(100_000_000))
    received = []
    connection.deliver = lambda packet, _ns: received.append(packet.payload)
    transport, _ = await loop.create_connection(lambda: connection, sock=ours)
    theirs.sendall(serialize_interleaved(9, b"one"))
    assert connection.fetch()
    connection.end_turns()
    assert received == [b"one"]
    theirs.sendall(serialize_interleaved(9, b"two"))
    async with asyncio.timeout(20):
        while len(received) < 2:
            await asyncio.sleep(0)
    assert received == [b"one", b"two"]
    transport.abort()
    theirs.close()


@pytest.mark.parametrize("missing", [0, 1])
async def test_a_turn_that_read_all_it_may_says_that_there_may_be_more(missing):
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 * TURN_BYTES)
    loop = asyncio.get_running_loop()
    connection = RtspConnection(time.monotonic_ns, BitRateLimit(100_000_000))
    transport, _ = await loop.create_connection(lambda: connection, sock=ours)
    assert not turn_of(connection)
    theirs.sendall((serialize_interleaved(9, bytes(1000)) * 70)[: TURN_BYTES - missing])
    assert turn_of(connection) == (missing == 0)
    assert not turn_of(connection)
    transport.abort()
    theirs.close()
    with pytest.raises(StreamError):
        await connection.wait_until_ended(timeout_seconds=10)
    assert not turn_of(connection)
