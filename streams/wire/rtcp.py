"""RTCP (RFC 3550 §6): the sender's clock, and the report that a receiver owes for it."""

import struct
from collections.abc import Iterator
from typing import Final

import msgspec

from streams.errors import LimitExceededError, ProtocolError
from streams.wire.rtp import VERSION

MAX_COMPOUND_PACKETS: Final = 32
"""RTCP packets in one compound packet; real ones have two or three."""

_NTP_EPOCH_SECONDS: Final = 2_208_988_800
_NS_PER_SECOND: Final = 1_000_000_000
_SENDER_REPORT: Final = 200
_RECEIVER_REPORT: Final = 201
_SOURCE_DESCRIPTION: Final = 202
_BYE: Final = 203
_CANONICAL_NAME: Final = 1
_MAX_TEXT_BYTES: Final = 255
_HEADER: Final = struct.Struct(">BBH")
_SENDER_INFO: Final = struct.Struct(">IQIII")
_REPORT: Final = struct.Struct(">BBHIIIIIII")


class SenderReport(msgspec.Struct, frozen=True, kw_only=True):
    """Ties the sender's wall clock to its RTP timestamps.

    `ntp_timestamp`: 64 bits, 32.32 fixed point seconds since 1900; `rtp_timestamp`: the same instant.
    """

    ssrc: int
    ntp_timestamp: int
    rtp_timestamp: int
    packet_count: int
    octet_count: int


class ReceiverReport(msgspec.Struct, frozen=True, kw_only=True):
    """One reception report block (RFC 3550 §6.4.2).

    `fraction_lost` in 1/256 since the last report; `last_sender_report`: the middle 32 bits of its NTP
    timestamp; `delay_since_last_sender_report` in 1/65,536 s; `jitter` in timestamp units.
    """

    ssrc: int
    reported_ssrc: int
    fraction_lost: int
    lost: int
    highest_sequence_number: int
    jitter: int
    last_sender_report: int
    delay_since_last_sender_report: int


def ntp_timestamp(unix_ns: int) -> int:
    """64 bits, 32.32 fixed point seconds since 1900 (RFC 3550 §4), from nanoseconds since 1970."""
    seconds, rest = divmod(unix_ns, _NS_PER_SECOND)
    return (seconds + _NTP_EPOCH_SECONDS & 0xFFFFFFFF) << 32 | (rest << 32) // _NS_PER_SECOND


def parse_sender_report(data: bytes) -> SenderReport | None:
    """The sender report of a compound packet, None if it has none. Raises ProtocolError and nothing else."""
    for kind, body in _split_compound(data):
        if kind == _SENDER_REPORT:
            if len(body) < _SENDER_INFO.size:
                raise ProtocolError("RTCP sender report is cut off")
            ssrc, ntp_timestamp, rtp_timestamp, packet_count, octet_count = _SENDER_INFO.unpack_from(body)
            return SenderReport(
                ssrc=ssrc,
                ntp_timestamp=ntp_timestamp,
                rtp_timestamp=rtp_timestamp,
                packet_count=packet_count,
                octet_count=octet_count,
            )
    return None


def serialize_sender_report(report: SenderReport) -> bytes:
    """A sender report without reception blocks."""
    body = _SENDER_INFO.pack(
        report.ssrc, report.ntp_timestamp, report.rtp_timestamp, report.packet_count, report.octet_count
    )
    return _HEADER.pack(VERSION << 6, _SENDER_REPORT, len(body) // 4) + body


def serialize_receiver_report(report: ReceiverReport) -> bytes:
    """A receiver report with one block; `lost` is clamped to its 24 bits (RFC 3550 §6.4.1)."""
    lost = min(report.lost, 0x7FFFFF)
    return _REPORT.pack(
        VERSION << 6 | 1,
        _RECEIVER_REPORT,
        _REPORT.size // 4 - 1,
        report.ssrc,
        report.reported_ssrc,
        report.fraction_lost << 24 | lost,
        report.highest_sequence_number,
        report.jitter,
        report.last_sender_report,
        report.delay_since_last_sender_report,
    )


def serialize_canonical_name(ssrc: int, name: str) -> bytes:
    """A source description of one chunk that names the source (RFC 3550 §6.5.1): part of every report."""
    text = name.encode()[:_MAX_TEXT_BYTES]
    chunk = ssrc.to_bytes(4) + bytes((_CANONICAL_NAME, len(text))) + text + b"\0"
    return _padded(_SOURCE_DESCRIPTION, chunk)


def serialize_bye(ssrc: int, reason: str) -> bytes:
    """The source says that it ends, and why (RFC 3550 §6.6)."""
    text = reason.encode()[:_MAX_TEXT_BYTES].decode(errors="ignore").encode()  # no half a character
    return _padded(_BYE, ssrc.to_bytes(4) + bytes((len(text),)) + text)


def _padded(kind: int, body: bytes) -> bytes:
    """A packet about one source, filled up to whole words."""
    body += bytes(-len(body) % 4)
    return _HEADER.pack(VERSION << 6 | 1, kind, len(body) // 4) + body


def _split_compound(data: bytes) -> Iterator[tuple[int, bytes]]:
    position = 0
    for _ in range(MAX_COMPOUND_PACKETS):
        if position == len(data):
            return
        if len(data) - position < _HEADER.size:
            raise ProtocolError("RTCP packet is cut off")
        flags, kind, words = _HEADER.unpack_from(data, position)
        end = position + _HEADER.size + 4 * words
        if flags >> 6 != VERSION or end > len(data):
            raise ProtocolError("malformed RTCP packet")
        yield kind, data[position + _HEADER.size : end]
        position = end
    if position != len(data):
        raise LimitExceededError("too many RTCP packets in one")
