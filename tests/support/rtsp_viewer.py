"""A relay worker that serves RTSP, its control with RTSP's rules for tickets, and a client by hand."""

import asyncio
import contextlib
import socket
import time
from dataclasses import dataclass

import msgspec
from support.fake_control import FakeControl
from support.relay_worker import RunningRelay
from support.units import FRAME_TICKS, encode_clip, encode_sound

from gateway.messages import Redeem, Redeemed, Refused, Streaming
from gateway.relay.settings import RelaySettings
from gateway.relay.viewer import ViewerSettings
from gateway.relay.worker import RelayWorker
from streams.media import AudioCodec, Codec
from streams.wire.digest import (
    ALGORITHMS,
    Credentials,
    DigestAuthorization,
    DigestChallenge,
    authorize,
    digest_ha1,
    parse_challenges,
    verify_digest,
)
from streams.wire.rtsp import InterleavedPacket, RtspParser, RtspRequest, RtspResponse, serialize


class RtspControl(FakeControl):
    """Checks digests against the session's ticket, and lets a ticket be used again, as before `Streaming`."""

    def _redeem(self, message: Redeem) -> Redeemed | Refused:
        keep = dict(self.tickets)
        if (proof := message.digest) is not None:
            mine = [secret for secret, ticket in self.tickets.items() if ticket.session == message.session]
            secret = next((s for s in mine if self._proves(message.session, s, proof)), "")
            message = msgspec.structs.replace(message, ticket=secret)
        answer = super()._redeem(message)
        if not any(isinstance(m, Streaming) and m.session == message.session for m in self.received):
            self.tickets = keep
            return answer
        return Refused(request=message.request, status=403, code="ticket_invalid", detail="used")

    def _proves(self, session, secret, proof):
        algorithm = ALGORITHMS[proof.algorithm]
        authorization = DigestAuthorization(
            username=session,
            realm=proof.realm,
            nonce=proof.nonce,
            uri=proof.uri,
            response=proof.response,
            algorithm=algorithm,
            nonce_count=proof.nc,
            client_nonce=proof.cnonce,
        )
        challenge = DigestChallenge(realm=proof.realm, nonce=proof.nonce, algorithm=algorithm)
        ha1 = digest_ha1(algorithm, Credentials(username=session, password=secret), proof.realm)
        return verify_digest(authorization, challenge, ha1, proof.method, (proof.uri,))


class SoundSource:
    """A camera with sound: a clip for ever, in real time by default."""

    def __init__(self, codec=Codec.H264, sound=AudioCodec.AAC, *, pause_seconds=0.02, repeat=1, **clip):
        self.track, self.units = encode_clip(codec, **clip)
        audio, self.sounds = encode_sound(sound) if sound else (None, ())
        self.track = msgspec.structs.replace(self.track, audio=audio)
        self._pause_seconds = pause_seconds
        self._repeat = repeat

    async def run(self, publisher):
        publisher.configure(self.track)
        # Not from zero: FFmpeg takes an RTP timestamp of 0 for none.
        count = 25
        shift = count * FRAME_TICKS
        while True:
            waiting = list(self.sounds)
            for unit in self.units:
                now_ns = time.monotonic_ns()
                publisher.publish(
                    msgspec.structs.replace(
                        unit,
                        pts=unit.pts - unit.dts + count * FRAME_TICKS,
                        dts=count * FRAME_TICKS,
                        nal_units=unit.nal_units * self._repeat,
                        received_ns=now_ns,
                    )
                )
                count += 1
                while waiting and waiting[0].pts + shift <= count * FRAME_TICKS:
                    sound = waiting.pop(0)
                    publisher.publish_audio(
                        msgspec.structs.replace(sound, pts=sound.pts + shift, received_ns=now_ns)
                    )
                await asyncio.sleep(self._pause_seconds)
            shift = count * FRAME_TICKS


@dataclass
class RunningRtsp(RunningRelay):
    rtsp_port: int = 0

    def address(self, session: tuple[str, str], *, login: bool = False) -> str:
        session_id, ticket = session
        host = f"127.0.0.1:{self.rtsp_port}"
        if login:
            return f"rtsp://{session_id}:{ticket}@{host}/live/{session_id}"
        return f"rtsp://{host}/live/{session_id}?ticket={ticket}"

    def publishing(self, camera: str, login: tuple[str, str] | None = None) -> str:
        credentials = "" if login is None else f"{login[0]}:{login[1]}@"
        return f"rtsp://{credentials}127.0.0.1:{self.rtsp_port}/publish/{camera}"


def free_port() -> socket.socket:
    """A bound port that others may listen on as long as the socket is open."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


@contextlib.asynccontextmanager
async def running_rtsp(folder, *, source=SoundSource, **settings):
    control = RtspControl(folder)
    settings.setdefault("viewer", ViewerSettings(first_picture_seconds=2.0))
    with contextlib.closing(free_port()) as reserved:
        port = reserved.getsockname()[1]
        values = {"worker": 0, "host": "127.0.0.1", "port": 0, "rtsp_port": port, "usage_seconds": 0.05}
        # In a thread, because a worker reads its certificate as it is made.
        worker = await asyncio.to_thread(
            RelayWorker,
            RelaySettings(**values | {"run_folder": str(folder)} | settings),
            lambda _address: source(),
        )
        ready = asyncio.get_running_loop().create_future()
        async with control.serve(), asyncio.TaskGroup() as tasks:
            stopped = tasks.create_task(worker.run(ready.set_result))
            relay = RunningRtsp(control, worker, await ready, stopped, rtsp_port=port)
            await relay.until_ready()
            try:
                yield relay
            finally:
                worker.stop()


class RtspClient:
    """One connection by hand. `packets` collects what comes interleaved between the answers."""

    def __init__(self, reader, writer):
        self._reader = reader
        self._writer = writer
        self._parser = RtspParser()
        self._events = []
        self._number = 0
        self.packets: list[InterleavedPacket] = []
        self.session = None

    @classmethod
    @contextlib.asynccontextmanager
    async def connected(cls, port, tls=None):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls)
        try:
            yield cls(reader, writer)
        finally:
            writer.transport.abort()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    @property
    def socket(self) -> socket.socket:
        return self._writer.get_extra_info("socket")

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    async def request(self, method, url, *headers, body=b"") -> RtspResponse:
        self._number += 1
        fields = [("CSeq", str(self._number)), *headers]
        if self.session is not None:
            fields.append(("Session", self.session))
        self.send(serialize(RtspRequest(method=method, url=url, headers=tuple(fields), body=body)))
        async with asyncio.timeout(10):
            while True:
                event = await self.event()
                if isinstance(event, RtspResponse):
                    assert event.cseq == self._number
                    return event

    async def event(self) -> RtspResponse | InterleavedPacket:
        """The next answer or packet. Raises ConnectionError when the server is gone."""
        while not self._events:
            data = await self._reader.read(65536)
            if not data:
                raise ConnectionResetError("closed")
            self._events += self._parser.receive_data(data)
        event = self._events.pop(0)
        if isinstance(event, InterleavedPacket):
            self.packets.append(event)
        return event

    async def until_closed(self) -> None:
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(20):
                while True:
                    await self.event()

    async def set_up(self, base, *, transport="RTP/AVP/TCP;unicast;interleaved=0-1", track="track0"):
        answer = await self.request("SETUP", f"{base}{track}", ("Transport", transport))
        if answer.status == 200:
            self.session = answer.header("Session").partition(";")[0]
        return answer

    async def play(self, address, **options) -> RtspResponse:
        """DESCRIBE, SETUP, PLAY."""
        described = await self.request("DESCRIBE", address)
        assert described.status == 200, described
        base = described.header("Content-Base")
        assert (await self.set_up(base, **options)).status == 200
        return await self.request("PLAY", base)

    async def packets_on(self, channel: int, count: int) -> list[bytes]:
        async with asyncio.timeout(10):
            while True:
                found = [packet.payload for packet in self.packets if packet.channel == channel]
                if len(found) >= count:
                    return found
                await self.event()


def digest_header(answer: RtspResponse, credentials, method, url, algorithm, *, nonce=None) -> str:
    """Authorization for a 401's challenge of this algorithm."""
    challenge = next(
        c
        for c in parse_challenges(answer.header_values("WWW-Authenticate"))
        if isinstance(c, DigestChallenge) and c.algorithm is algorithm
    )
    if nonce is not None:
        challenge = msgspec.structs.replace(challenge, nonce=nonce)
    return authorize(
        challenge,
        Credentials(username=credentials[0], password=credentials[1]),
        method,
        url,
        nonce_count=1,
        client_nonce="c",
    )
