"""Session descriptions (SDP, RFC 8866), as far as cameras use them.

Tolerant where cameras are careless (line ends, unknown or misplaced lines, missing mandatory ones), strict
where a mistake would be believed. The limits bound what one description may make us keep.
"""

import base64
import binascii
from collections.abc import Iterable
from typing import Final

import msgspec

from streams.errors import LimitExceededError, ProtocolError

MAX_LINE_BYTES: Final = 16 * 1024
"""The longest real lines are an fmtp with three parameter sets in Base64."""
MAX_MEDIA_DESCRIPTIONS: Final = 32
MAX_ATTRIBUTES: Final = 256
"""Attributes of the session or of one media description."""
MAX_FORMATS: Final = 128
"""There are 128 RTP payload types."""
MAX_PAYLOAD_TYPE: Final = 127

_DEFAULT_PORT: Final = 0
"""In RTSP the transport is agreed on later (RFC 2326 §C.1.2)."""


class RtpMap(msgspec.Struct, frozen=True, kw_only=True):
    """`a=rtpmap`: `encoding` in upper case, `clock_rate` in Hz, `channels` of sound."""

    encoding: str
    clock_rate: int
    channels: int = 1


class MediaDescription(msgspec.Struct, frozen=True, kw_only=True):
    """One `m=` section. `formats`: payload types in order of preference.

    `rtpmap`, `fmtp`: by payload type; the parameters of an fmtp by lower-case name. `control`:
    the track's URL, absolute or relative to the presentation's (RFC 2326 §C.1.1).
    """

    kind: str
    protocol: str = "RTP/AVP"
    formats: tuple[int, ...] = ()
    rtpmap: dict[int, RtpMap] = {}
    fmtp: dict[int, dict[str, str]] = {}
    control: str | None = None


class SessionDescription(msgspec.Struct, frozen=True, kw_only=True):
    name: str = "-"
    control: str | None = None
    media: tuple[MediaDescription, ...] = ()


def parse_sdp(data: bytes) -> SessionDescription:
    """Raises ProtocolError if this is no session description, LimitExceededError beyond a limit."""
    name, session_attributes = "-", list[str]()
    attributes = session_attributes
    sections: list[tuple[str, list[str]]] = []
    lines = data.decode("utf-8", "replace").replace("\r", "\n").split("\n")
    if not next(filter(None, lines), "").startswith("v="):
        raise ProtocolError("not a session description")
    for line in lines:
        if len(line) > MAX_LINE_BYTES:
            raise LimitExceededError("SDP line is too long")
        kind, value = line[:2], line[2:].strip()
        if kind == "m=":
            attributes = []
            sections.append((value, attributes))
            if len(sections) > MAX_MEDIA_DESCRIPTIONS:
                raise LimitExceededError("too many media descriptions")
        elif kind == "a=":
            attributes.append(value)
            if len(attributes) > MAX_ATTRIBUTES:
                raise LimitExceededError("too many SDP attributes")
        elif kind == "s=" and not sections:
            name = value
    return SessionDescription(
        name=name,
        control=_value(session_attributes, "control"),
        media=tuple(_parse_media(line, attributes) for line, attributes in sections),
    )


def serialize_sdp(description: SessionDescription, address: str) -> bytes:
    """`address`: the IPv4 address that describes it, for the origin line."""
    lines = ["v=0", f"o=- 0 0 IN IP4 {address}", f"s={description.name}", "c=IN IP4 0.0.0.0", "t=0 0"]
    if description.control is not None:
        lines.append(f"a=control:{description.control}")
    return ("\r\n".join([*lines, ""]) + serialize_media(description.media)).encode()


def serialize_media(descriptions: Iterable[MediaDescription]) -> str:
    """The `m=` sections; the session's own lines go before them."""
    lines = []
    for media in descriptions:
        formats = " ".join(map(str, media.formats))
        lines.append(f"m={media.kind} {_DEFAULT_PORT} {media.protocol} {formats}")
        lines += [
            f"a=rtpmap:{payload_type} {rtpmap.encoding}/{rtpmap.clock_rate}"
            + (f"/{rtpmap.channels}" if rtpmap.channels > 1 else "")
            for payload_type, rtpmap in media.rtpmap.items()
        ]
        for payload_type, parameters in media.fmtp.items():
            pairs = "; ".join(f"{key}={value}" for key, value in parameters.items())
            lines.append(f"a=fmtp:{payload_type} {pairs}")
        if media.control is not None:
            lines.append(f"a=control:{media.control}")
    return "".join(f"{line}\r\n" for line in lines)


def decode_sprop(value: str) -> list[bytes]:
    """The NAL units of one sprop-* parameter (RFC 6184 §8.1, RFC 7798 §7.1): Base64, separated by commas.

    What is no Base64 is left out: the parameter sets come in band as well.
    """
    nal_units = []
    for text in value.split(","):
        padded = text.strip() + "=" * (-len(text.strip()) % 4)  # some cameras omit the padding
        try:
            nal_units.append(base64.b64decode(padded, validate=True))
        except (binascii.Error, ValueError):
            continue
    return [nal_unit for nal_unit in nal_units if nal_unit]


def encode_sprop(*nal_units: bytes) -> str:
    return ",".join(base64.b64encode(nal_unit).decode() for nal_unit in nal_units)


def _parse_media(line: str, attributes: list[str]) -> MediaDescription:
    fields = line.split()
    if len(fields) < 3:  # noqa: PLR2004
        raise ProtocolError("malformed media description")
    formats = tuple(int(text) for text in fields[3:] if _is_payload_type(text))
    if len(formats) > MAX_FORMATS:
        raise LimitExceededError("too many formats in a media description")
    rtpmap: dict[int, RtpMap] = {}
    fmtp: dict[int, dict[str, str]] = {}
    for attribute in attributes:
        name, _, value = attribute.partition(":")
        payload_type, _, rest = value.strip().partition(" ")
        if not _is_payload_type(payload_type):
            continue
        if name == "rtpmap" and (parsed := _parse_rtpmap(rest)) is not None:
            rtpmap[int(payload_type)] = parsed
        elif name == "fmtp":
            fmtp[int(payload_type)] = _parse_fmtp(rest)
    return MediaDescription(
        kind=fields[0].lower(),
        protocol=fields[2],
        formats=formats,
        rtpmap=rtpmap,
        fmtp=fmtp,
        control=_value(attributes, "control"),
    )


def _parse_rtpmap(text: str) -> RtpMap | None:
    encoding, _, rest = text.strip().partition("/")
    clock_rate, _, channels = (part.strip() for part in rest.partition("/"))
    if not encoding or not _is_decimal(clock_rate, digits=9):
        return None
    return RtpMap(
        encoding=encoding.strip().upper(),
        clock_rate=int(clock_rate),
        channels=int(channels) if _is_decimal(channels, digits=2) else 1,
    )


def _parse_fmtp(text: str) -> dict[str, str]:
    pairs = (part.strip().partition("=") for part in text.split(";"))
    return {key.strip().lower(): value.strip() for key, _, value in pairs if key}


def _value(attributes: list[str], name: str) -> str | None:
    prefix = name + ":"
    return next((text[len(prefix) :].strip() for text in attributes if text.startswith(prefix)), None)


def _is_payload_type(text: str) -> bool:
    return _is_decimal(text, digits=3) and int(text) <= MAX_PAYLOAD_TYPE


def _is_decimal(text: str, *, digits: int) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= digits
