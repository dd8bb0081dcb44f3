"""One RTSP viewer: from DESCRIBE, which redeems the ticket, to the last packet (RFC 2326).

    DESCRIBE ──ticket redeemed, camera has a picture──▶ described ──SETUP──▶ set up ──PLAY──▶ playing
                                                            └── TEARDOWN, loss or the session's end ──▶ over

The RTSP session lives and dies with its connection, over UDP too.
"""

import asyncio
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from gateway.messages import DigestProof, Streaming
from gateway.relay.cameras import Cameras, wait_for_picture
from gateway.relay.refusals import Refusal
from gateway.relay.rtsp_connection import RtspConnection
from gateway.relay.rtsp_media import (
    InterleavedTransport,
    RtpTransport,
    RtspReader,
    Splitter,
    UdpTransport,
    ticks_now,
)
from gateway.relay.rtsp_ports import PortPair
from gateway.relay.sessions import OverReason, ViewerSession, ViewerSessions
from gateway.relay.viewer import ViewerSettings, ViewerSocket
from policies.access import Action
from streams.hub import ReaderFailedError, Stream
from streams.media import TIME_BASE_HZ, Track
from streams.mux.rtp import AUDIO_CHANNEL, AUDIO_CONTROL, VIDEO_CHANNEL, VIDEO_CONTROL, describe_rtp
from streams.wire.rtsp import (
    RtspRequest,
    SessionHeader,
    Transport,
    TransportOffer,
    parse_transport_offers,
)
from streams.wire.rtsp import UdpTransport as UdpHeader
from streams.wire.sdp import serialize_media

PROTOCOL = "rtsp"
VIEWER_METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, SET_PARAMETER, TEARDOWN"
REPORT_SECONDS = 5.0
"""Between two sender reports (RFC 3550 §6.2)."""
SESSION_SECONDS = 60
"""A viewer over UDP that says nothing for so long, by RTSP or RTCP, is gone; announced in every SETUP."""

_NOWHERE = {"IP4": "0.0.0.0", "IP6": "::"}  # noqa: S104 - RTSP agrees on addresses later (RFC 2326 §C.1.7)
_CONTROLS = {VIDEO_CONTROL: VIDEO_CHANNEL, AUDIO_CONTROL: AUDIO_CHANNEL}


@dataclass(frozen=True, kw_only=True)
class RtspViewers:
    """What every viewer of a worker needs. `report` tells control that a ticket is used up."""

    sessions: ViewerSessions
    cameras: Cameras
    report: Callable[[Streaming], None]
    settings: ViewerSettings
    splitter: Splitter

    async def watch(
        self,
        connection: RtspConnection,
        request: RtspRequest,
        session_id: str,
        ticket: str,
        digest: DigestProof | None,
    ) -> None:
        """Answer DESCRIBE and all that follows, until the session is over.

        Raises `Refusal`, `RefusedError`, `ControlUnavailableError` while nothing has been answered.
        """
        async with (
            self.sessions.redeemed(
                session_id, ticket, PROTOCOL, connection.remote, Action.LIVE_VIEW, digest=digest
            ) as session,
            self.cameras.stream(session.stream) as stream,
        ):
            await wait_for_picture(stream, session, self.settings.first_picture_seconds)
            if stream.track is None or not session.may_see(stream.track):
                raise Refusal("obligation_unmet", "the picture is larger than the permission allows")
            viewing = _Viewing(self, connection, session, stream, stream.track)
            session.over.add_done_callback(connection.wake)
            try:
                await viewing.run(request)
            finally:
                viewing.close()


class _Viewing:
    """The RTSP session of one viewer. `channels` and `ports`: what was set up, by the container's channel."""

    def __init__(
        self,
        viewers: RtspViewers,
        connection: RtspConnection,
        session: ViewerSession,
        stream: Stream,
        track: Track,
    ) -> None:
        self._viewers = viewers
        self._connection = connection
        self._session = session
        self._stream = stream
        self._track = track
        self._media = describe_rtp(track)
        self._has_sound = any(media.control == AUDIO_CONTROL for media in self._media)
        self._header = SessionHeader(id=secrets.token_hex(8), timeout_seconds=SESSION_SECONDS)
        self._base = ""
        self._channels: dict[int, tuple[int, int]] = {}
        self._ports: dict[int, PortPair] = {}
        self._socket = ViewerSocket(connection.transport, viewers.settings)
        self._transport: RtpTransport | None = None
        self._reader: RtspReader | None = None
        self._heard_at = time.monotonic()
        self._report_at = asyncio.get_running_loop().time() + REPORT_SECONDS
        self._handlers: dict[str, Callable[[RtspRequest], None]] = {
            "OPTIONS": self._options,
            "DESCRIBE": self._describe,
            "SETUP": self._set_up,
            "PLAY": self._play,
            "GET_PARAMETER": self._keep_alive,
            "SET_PARAMETER": self._keep_alive,
            "TEARDOWN": self._tear_down,
        }

    async def run(self, describe: RtspRequest) -> None:
        self._base = base_of(describe.url)
        self._describe(describe)
        try:
            await self._converse()
        except ReaderFailedError as error:
            self._session.end(error.reason, lost=error.reason == OverReason.LOST)
        if self._session.reason != OverReason.COMPLETED:
            await self._say_goodbye()

    async def _converse(self) -> None:
        while (request := await self._next_request()) is not None:
            self._heard_at = time.monotonic()
            named = request.header("Session")
            if named is not None and named.partition(";")[0].strip() != self._header.id:
                self._connection.respond(request, 454)
            elif (handler := self._handlers.get(request.method)) is not None:
                handler(request)
            else:
                self._connection.respond(request, 501)

    def close(self) -> None:
        """Stop the media; the connection stays its owner's."""
        self._connection.has_media = False
        if self._reader is not None:
            self._stream.unsubscribe(self._reader)
        if self._transport is not None:
            self._transport.close()
        for pair in self._ports.values():
            pair.close()

    async def _next_request(self) -> RtspRequest | None:
        """None when the session is over; meanwhile the reports go out."""
        while True:
            try:
                async with asyncio.timeout_at(self._report_at):
                    return await self._connection.next_request(self._session.over)
            except TimeoutError:
                self._report_at = asyncio.get_running_loop().time() + REPORT_SECONDS
                self._report()

    def _options(self, request: RtspRequest) -> None:
        self._connection.respond(request, 200, ("Public", VIEWER_METHODS))

    def _keep_alive(self, request: RtspRequest) -> None:
        self._connection.respond(request, 200, ("Session", str(self._header)))

    def _describe(self, request: RtspRequest) -> None:
        address = self._connection.transport.get_extra_info("sockname")[0]
        family = "IP6" if ":" in address else "IP4"
        lines = [
            "v=0",
            f"o=- {int(self._header.id, 16)} 1 IN {family} {address}",
            "s=-",
            f"c=IN {family} {_NOWHERE[family]}",
            "t=0 0",
            "a=control:*",
            "a=range:npt=now-",
        ]
        body = ("\r\n".join([*lines, ""]) + serialize_media(self._media)).encode()
        headers = ("Content-Base", self._base), ("Content-Type", "application/sdp")
        self._connection.respond(request, 200, *headers, body=body)

    def _set_up(self, request: RtspRequest) -> None:
        if self._transport is not None:
            self._connection.respond(request, 455)
            return
        channel = _CONTROLS.get(request.url.rstrip("/").rpartition("/")[2])
        if channel is None or (channel == AUDIO_CHANNEL and not self._has_sound):
            self._connection.respond(request, 404)
            return
        offers = parse_transport_offers(request.header("Transport") or "")
        accepted = next(filter(None, (self._accept(channel, offer) for offer in offers)), None)
        if accepted is None:
            self._connection.respond(request, 461)
        else:
            self._connection.respond(request, 200, ("Transport", accepted), ("Session", str(self._header)))

    def _accept(self, channel: int, offer: TransportOffer) -> str | None:
        """The Transport header that agrees to the offer; all media of a session go the same way."""
        if offer.is_record:
            return None
        if offer.client_ports is None:
            channels = offer.channels or (channel, channel + 1)
            taken = {number for own, pair in self._channels.items() if own != channel for number in pair}
            if self._ports or taken & set(channels):
                return None
            self._channels[channel] = channels
            return str(Transport(rtp_channel=channels[0], rtcp_channel=channels[1]))
        if self._channels or channel in self._ports:
            return None
        local = self._connection.transport.get_extra_info("sockname")[0]
        try:
            pair = PortPair.open(local, self._connection.remote, offer.client_ports)
        except OSError:
            return None
        pair.listen(self._hear)
        self._ports[channel] = pair
        return str(UdpHeader(client_ports=offer.client_ports, server_ports=pair.ports))

    def _hear(self) -> None:
        """A receiver report: the viewer is there, which is all that we need to know."""
        self._heard_at = time.monotonic()

    def _play(self, request: RtspRequest) -> None:
        if self._transport is not None:
            self._keep_alive(request)
            return
        if not self._channels and not self._ports:
            self._connection.respond(request, 455)
            return
        self._transport = self._open_transport()
        self._reader = RtspReader(self._session, self._stream, self._transport, self._viewers.settings)
        self._viewers.report(Streaming(session=self._session.id))
        self._stream.subscribe(self._reader, "rtp", "unframed")
        self._connection.has_media = True
        information = ",".join(
            f"url={self._base}{control};seq={first.sequence_number};rtptime={first.timestamp}"
            for control, channel in _CONTROLS.items()
            if (first := self._transport.first.get(channel)) is not None
        )
        headers = [("Session", str(self._header)), ("Range", "npt=now-")]
        if information:
            headers.append(("RTP-Info", information))
        self._connection.respond(request, 200, *headers)
        self._transport.release()

    def _open_transport(self) -> RtpTransport:
        if self._ports:
            return UdpTransport(self._ports, self._viewers.splitter)
        return InterleavedTransport(
            self._socket,
            self._channels,
            has_sound=self._has_sound,
            splitter=self._viewers.splitter,
        )

    def _tear_down(self, request: RtspRequest) -> None:
        if self._reader is not None:
            self._stream.unsubscribe(self._reader)
        if self._transport is not None:
            self._transport.say_goodbye(OverReason.COMPLETED)
        self._connection.has_media = False
        self._connection.respond(request, 200)
        self._session.end(OverReason.COMPLETED)

    def _report(self) -> None:
        if self._ports and time.monotonic() - self._heard_at > SESSION_SECONDS:
            self._session.end(OverReason.LOST, lost=True)
            return
        newest = self._stream.last_random_access
        if self._transport is None or newest is None or self._connection.transport.is_closing():
            return
        track, unit = newest
        rates = {VIDEO_CHANNEL: TIME_BASE_HZ}
        if track.audio is not None:
            rates[AUDIO_CHANNEL] = track.audio.sample_rate
        self._transport.report(ticks_now(unit.received_ns, unit.pts), rates, time.time_ns())

    async def _say_goodbye(self) -> None:
        """BYE, if the viewer reads at all; then reset the connection, so that nothing queued is sent."""
        if self._reader is not None:
            self._stream.unsubscribe(self._reader)
        if self._transport is not None and self._socket.can_be_told:
            self._transport.say_goodbye(self._session.why)
            await self._socket.settle(self._viewers.settings.end_message_seconds)
        self._socket.discard()


def base_of(url: str) -> str:
    """What the tracks' controls are relative to: the request's URL without its ticket or login."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path.rstrip('/')}/"
