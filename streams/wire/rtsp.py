"""RTSP 1.0 messages (RFC 2326), for both ends of a connection: bytes in, values out.

One TCP connection carries text messages and, between them, binary packets `$`, channel, length (§10.12).
The parser keeps what is incomplete and nothing else; its memory is bounded by the limits below, which are
gortsplib's, the widest that are known to be enough for every camera it met.

Requests are read strictly: they come from anybody. Responses come from cameras, and are taken as these write
them: with folded headers, spaces before the colon, lines that are no headers, or ends of line without CR.
"""

import re
import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from streams.errors import LimitExceededError, ProtocolError
from streams.wire.fragment_run import FragmentRun, FragmentScanner

MAX_METHOD_BYTES: Final = 64
MAX_URL_BYTES: Final = 2048
MAX_HEADER_COUNT: Final = 255
MAX_HEADER_BYTES: Final = 2048
"""One header line: name, colon, value."""
MAX_HEAD_BYTES: Final = 64 * 1024
"""Start line and all headers together."""
MAX_BODY_BYTES: Final = 128 * 1024
MIN_SCAN_BYTES: Final = 2048
"""Less holds no two packets of the usual size: looking for a run would cost more than it saves."""

VERSION: Final = "RTSP/1.0"
INTERLEAVED_HEADER_BYTES: Final = 4

_DOLLAR: Final = 0x24
_INTERLEAVED_HEADER: Final = struct.Struct(">BBH")
_END_OF_HEAD: Final = b"\r\n\r\n"
_END_OF_RESPONSE_HEAD: Final = re.compile(rb"\n\r?\n")
_FOLD: Final = re.compile(r"\r?\n[ \t]+")
_RESPONSE: Final = "RTSP/"
_TOKEN: Final = frozenset("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
_UPPER_CASE: Final = range(ord("A"), ord("Z") + 1)

Headers = tuple[tuple[str, str], ...]
"""In the order of the message; names compare without regard to case, and may repeat."""


class _Message(msgspec.Struct, frozen=True, kw_only=True):
    headers: Headers = ()
    body: bytes = b""

    def header(self, name: str) -> str | None:
        """The first value of a header."""
        return next(iter(self.header_values(name)), None)

    def header_values(self, name: str) -> list[str]:
        wanted = name.lower()
        return [value for key, value in self.headers if key.lower() == wanted]

    @property
    def cseq(self) -> int | None:
        """The number that pairs a response with its request; None if absent or no number."""
        value = self.header("CSeq")
        return int(value) if value is not None and _is_number(value) else None


class RtspRequest(_Message, frozen=True, kw_only=True):
    method: str
    url: str


class RtspResponse(_Message, frozen=True, kw_only=True):
    status: int
    reason: str


class InterleavedPacket(msgspec.Struct, frozen=True, gc=False):
    """One RTP or RTCP packet in the RTSP connection; `channel` is what SETUP agreed on."""

    channel: int
    payload: bytes


RtspEvent = RtspRequest | RtspResponse | InterleavedPacket | FragmentRun


class RtspParser:
    """One direction of one connection. After an error the connection is beyond repair: close it.

    `scanner`: finds runs of fragments, which are then yielded as such and not packet by packet. Without it
    none are.
    """

    def __init__(self) -> None:
        self.scanner: FragmentScanner | None = None
        self._buffer = bytearray()
        self._needed = 0

    def run_at(self, data: bytes, position: int) -> FragmentRun | None:
        """The run that begins there, if one does; `receive_data(data, position)` takes everything else.

        A busy gateway's usual read is runs from beginning to end, and needs no generator.
        """
        if self.scanner is None or len(data) - position < MIN_SCAN_BYTES or self._buffer:
            return None
        return self.scanner.scan(data, position)

    def receive_data(self, data: bytes, position: int = 0) -> Iterator[RtspEvent]:
        """Yield everything that is complete now; iterate to the end, since parsing happens on the way.

        `position`: where in `data` to begin; 0, or where a run has ended.

        Raises ProtocolError and nothing else, after having yielded what preceded the violation.
        """
        if self._buffer:
            self._buffer += data
            if len(self._buffer) < self._needed:
                return
            data = bytes(self._buffer)
            self._buffer.clear()
        self._needed = 0
        end, scanner = len(data), self.scanner
        while position < end:
            if data[position] == _DOLLAR:
                if scanner is not None and end - position >= MIN_SCAN_BYTES:
                    run = scanner.scan(data, position)
                    if run is not None:
                        yield run
                        position = run.stop
                        continue
                start = position + INTERLEAVED_HEADER_BYTES
                if start > end:
                    break
                stop = start + (data[position + 2] << 8 | data[position + 3])
                if stop > end:
                    self._needed = stop - position
                    break
                yield InterleavedPacket(data[position + 1], data[start:stop])
                position = stop
            elif data[position] in b"\r\n":
                # Empty lines before a start line are to be skipped (RFC 2326 §4.1).
                position += 1
            else:
                message, consumed = self._parse_message(data, position)
                if message is None:
                    break
                yield message
                position += consumed
        self._buffer += data[position:]

    def _parse_message(self, data: bytes, start: int) -> tuple[RtspRequest | RtspResponse | None, int]:
        if data[start] not in _UPPER_CASE:
            raise ProtocolError("neither an RTSP message nor an interleaved packet")
        end_of_head, start_of_body = _find_end_of_head(data, start)
        if end_of_head < 0:
            if len(data) - start >= MAX_HEAD_BYTES:
                raise LimitExceededError("RTSP headers are too large")
            return None, 0
        head = data[start:end_of_head].decode("latin-1")
        start_line, *lines = _response_lines(head) if head.startswith(_RESPONSE) else head.split("\r\n")
        headers = _parse_headers(lines)
        end_of_body = start_of_body + _content_length(headers)
        if end_of_body > len(data):
            self._needed = end_of_body - start
            return None, 0
        body = data[start_of_body:end_of_body]
        return _parse_start_line(start_line, headers, body), end_of_body - start


def serialize(message: RtspRequest | RtspResponse) -> bytes:
    """The message's bytes, with Content-Length where there is a body.

    Raises ValueError if a field would break out of its line: that is the caller's fault, not the peer's.
    """
    if isinstance(message, RtspRequest):
        lines = [f"{message.method} {message.url} {VERSION}"]
    else:
        lines = [f"{VERSION} {message.status} {message.reason}"]
    lines += [f"{name}: {value}" for name, value in message.headers]
    if message.body:
        lines.append(f"Content-Length: {len(message.body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a line break inside an RTSP header")
    return "\r\n".join([*lines, "", ""]).encode() + message.body


def serialize_interleaved(channel: int, payload: bytes) -> bytes:
    """One packet as it stands between RTSP messages (RFC 2326 §10.12)."""
    return _INTERLEAVED_HEADER.pack(_DOLLAR, channel, len(payload)) + payload


def _find_end_of_head(data: bytes, start: int) -> tuple[int, int]:
    """Where the head that begins at `start` ends, negative if it is incomplete, and where the body begins."""
    stop = start + MAX_HEAD_BYTES
    if data.startswith(_RESPONSE.encode(), start):
        found = _END_OF_RESPONSE_HEAD.search(data, start, stop)
        return found.span() if found is not None else (-1, -1)
    end = data.find(_END_OF_HEAD, start, stop)
    return end, end + len(_END_OF_HEAD)


def _response_lines(head: str) -> Iterator[str]:
    """The lines of a response's head as they should have been, without those that are no headers."""
    start_line, *lines = _FOLD.sub(" ", head).split("\n")
    yield start_line.removesuffix("\r")
    for line in lines:
        name, colon, value = line.removesuffix("\r").partition(":")
        name = name.rstrip(" \t")
        if colon and name and _TOKEN.issuperset(name):
            yield f"{name}:{value}"


def _parse_start_line(line: str, headers: Headers, body: bytes) -> RtspRequest | RtspResponse:
    if not line.isprintable():
        raise ProtocolError("control characters in an RTSP start line")
    first, _, rest = line.partition(" ")
    if first.startswith(_RESPONSE):
        status, _, reason = rest.partition(" ")
        if first != VERSION or len(status) != 3 or not _is_number(status):  # noqa: PLR2004
            raise ProtocolError("malformed RTSP status line")
        return RtspResponse(status=int(status), reason=reason, headers=headers, body=body)
    url, _, version = rest.rpartition(" ")
    if len(first) > MAX_METHOD_BYTES:
        raise LimitExceededError("RTSP method is too long")
    if len(url) > MAX_URL_BYTES:
        raise LimitExceededError("RTSP URL is too long")
    if version != VERSION or not url or " " in url or not url.isascii() or not _TOKEN.issuperset(first):
        raise ProtocolError("malformed RTSP request line")
    return RtspRequest(method=first, url=url, headers=headers, body=body)


def _parse_headers(lines: list[str]) -> Headers:
    if len(lines) > MAX_HEADER_COUNT:
        raise LimitExceededError("too many RTSP headers")
    return tuple(map(_parse_header, lines))


def _parse_header(line: str) -> tuple[str, str]:
    if len(line) > MAX_HEADER_BYTES:
        raise LimitExceededError("RTSP header is too long")
    name, colon, value = line.partition(":")
    if not colon or not name or not _TOKEN.issuperset(name):
        raise ProtocolError("malformed RTSP header")
    if "\r" in value or "\n" in value:
        raise ProtocolError("a line break inside an RTSP header")
    return name, value.strip(" \t")


def _content_length(headers: Headers) -> int:
    values = {value for name, value in headers if name.lower() == "content-length"}
    if not values:
        return 0
    value = values.pop()
    # Two different lengths are how a message is smuggled past a peer that believes the other one.
    if values or not _is_number(value):
        raise ProtocolError("malformed Content-Length")
    length = int(value)
    if length > MAX_BODY_BYTES:
        raise LimitExceededError("RTSP body is too large")
    return length


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 10  # noqa: PLR2004


class Transport(msgspec.Struct, frozen=True, kw_only=True):
    """The one transport that we speak: RTP and RTCP interleaved in the RTSP connection (RFC 2326 §12.39)."""

    rtp_channel: int
    rtcp_channel: int

    def __str__(self) -> str:
        return f"RTP/AVP/TCP;unicast;interleaved={self.rtp_channel}-{self.rtcp_channel}"


def parse_transport(value: str) -> Transport | None:
    """The first interleaved alternative of a Transport header, or None if it names none.

    Raises ProtocolError for channels that are no channels.
    """
    for alternative in value.split(","):
        protocol, *parameters = (part.strip() for part in alternative.split(";"))
        if protocol.upper() != "RTP/AVP/TCP":
            continue
        for parameter in parameters:
            name, _, channels = parameter.partition("=")
            if name.strip().lower() == "interleaved":
                return _parse_channels(_unquoted(channels))
        return Transport(rtp_channel=0, rtcp_channel=1)
    return None


def _parse_channels(text: str) -> Transport:
    channels = _parse_pair(text, _CHANNELS)
    if channels is None:
        raise ProtocolError("malformed interleaved channels")
    return Transport(rtp_channel=channels[0], rtcp_channel=channels[1])


def _unquoted(pair: str) -> str:
    """Cameras quote a pair of numbers, or put spaces between them."""
    return pair.strip(' "').replace(" ", "")


class UdpTransport(msgspec.Struct, frozen=True, kw_only=True):
    """RTP and RTCP over UDP (RFC 2326 §12.39). The server's ports are in its answer, if it names them."""

    client_ports: tuple[int, int]
    server_ports: tuple[int, int] | None = None

    def __str__(self) -> str:
        text = f"RTP/AVP;unicast;client_port={self.client_ports[0]}-{self.client_ports[1]}"
        if self.server_ports is not None:
            text += f";server_port={self.server_ports[0]}-{self.server_ports[1]}"
        return text


def parse_udp_answer(value: str, asked: UdpTransport) -> UdpTransport | None:
    """What a server answered to `asked`, or None if it sends in another way. Never raises.

    Any other address or client port that it names is ignored: it has been told where to send.
    """
    protocol, *parameters = (part.strip() for part in value.split(";"))
    named = {name.strip().lower(): text for name, _, text in (part.partition("=") for part in parameters)}
    if "multicast" in named or protocol.upper() not in ("RTP/AVP", "RTP/AVP/UDP"):
        return None
    server_ports = _parse_pair(_unquoted(named.get("server_port", "")), range(1, 0x10000))
    return UdpTransport(client_ports=asked.client_ports, server_ports=server_ports)


_CHANNELS: Final = range(0x100)
MIN_CLIENT_PORT: Final = 1024
"""Below are services, and no player: what is sent to such a port was never asked for by one."""


class TransportOffer(msgspec.Struct, frozen=True, kw_only=True):
    """One alternative of a client's SETUP that a server can take (RFC 2326 §12.39).

    Either `client_ports`, of RTP and RTCP over UDP, or channels in the RTSP connection, which the server
    chooses if `channels` is None. `is_record`: the client is going to send.
    """

    client_ports: tuple[int, int] | None = None
    channels: tuple[int, int] | None = None
    is_record: bool = False


def parse_transport_offers(value: str) -> list[TransportOffer]:
    """The unicast RTP/AVP alternatives of a Transport header, in the client's order of preference.

    What is malformed or of another profile is left out; addresses that it names are ignored. Never raises.
    """
    offers = []
    for alternative in value.split(","):
        protocol, *parameters = (part.strip() for part in alternative.split(";"))
        named = {
            name.strip().lower(): text.strip(' "')
            for name, _, text in (parameter.partition("=") for parameter in parameters)
        }
        if "multicast" in named or not _is_profile(protocol):
            continue
        is_record = named.get("mode", "").upper() in ("RECORD", "RECEIVE")
        if protocol.upper().endswith("TCP"):
            channels = _parse_pair(named.get("interleaved", ""), _CHANNELS)
            if channels is not None or "interleaved" not in named:
                offers.append(TransportOffer(channels=channels, is_record=is_record))
            continue
        ports = _parse_pair(named.get("client_port", ""), range(MIN_CLIENT_PORT, 0x10000))
        if ports is not None:
            offers.append(TransportOffer(client_ports=ports, is_record=is_record))
    return offers


def _is_profile(protocol: str) -> bool:
    return protocol.upper() in ("RTP/AVP", "RTP/AVP/UDP", "RTP/AVP/TCP")


def _parse_pair(text: str, allowed: range) -> tuple[int, int] | None:
    """Two different numbers as `5-6`, or as `5` alone, which means the same."""
    first, dash, second = text.partition("-")
    if not _is_number(first) or (dash and not _is_number(second)):
        return None
    pair = int(first), int(second) if dash else int(first) + 1
    return pair if pair[0] != pair[1] and all(number in allowed for number in pair) else None


DEFAULT_SESSION_TIMEOUT_SECONDS: Final = 60
"""What Session headers without a timeout mean (RFC 2326 §12.37)."""


class SessionHeader(msgspec.Struct, frozen=True, kw_only=True):
    """An RTSP session's identifier and after how many idle seconds the server may end it, if it says so."""

    id: str
    timeout_seconds: int | None = None

    def __str__(self) -> str:
        return self.id if self.timeout_seconds is None else f"{self.id};timeout={self.timeout_seconds}"


def parse_session(value: str) -> SessionHeader:
    """Raises ProtocolError if there is no identifier; an unreadable timeout counts as none."""
    identifier, *parameters = (part.strip() for part in value.split(";"))
    if not identifier:
        raise ProtocolError("empty RTSP session identifier")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        seconds = value.strip()
        if name.strip().lower() == "timeout" and _is_number(seconds) and int(seconds) > 0:
            return SessionHeader(id=identifier, timeout_seconds=int(seconds))
    return SessionHeader(id=identifier)
