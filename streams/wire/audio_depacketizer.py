"""From RTP packets to coded sound: AAC (RFC 3640, modes AAC-hbr and AAC-lbr) and G.711 (RFC 3551 §4.5.14).

What is damaged is left out: a gap in the sound is heard, and nothing depends on what came before. Interleaved
access units (RFC 3640 §3.2.3.2) and MP4A-LATM (RFC 6416) are not supported.
"""

from abc import ABC, abstractmethod
from typing import Final

from streams.errors import ProtocolError, StreamError, UnsupportedError
from streams.media import (
    MAX_AUDIO_CHANNELS,
    MAX_AUDIO_UNIT_BYTES,
    MAX_SAMPLE_RATE_HZ,
    AudioCodec,
    AudioTrack,
)
from streams.wire.aac import parse_audio_specific_config
from streams.wire.bitstream import BitReader
from streams.wire.rtp import DISCARD, RtpPacket, SequenceTracker
from streams.wire.sdp import MediaDescription, RtpMap

MAX_UNITS_PER_PACKET: Final = 64
"""AAC access units in one packet: a second of sound at 64 kHz."""

_G711: Final = {"PCMA": AudioCodec.PCMA, "PCMU": AudioCodec.PCMU}
_STATIC_RTPMAPS: Final = {
    0: RtpMap(encoding="PCMU", clock_rate=8000),
    8: RtpMap(encoding="PCMA", clock_rate=8000),
}
"""Payload types that need no rtpmap (RFC 3551 §6)."""


class AudioDepacketizer(ABC):
    """One track's receiver. `clock_rate`: of its RTP timestamps, in Hz."""

    def __init__(self, track: AudioTrack, clock_rate: int) -> None:
        self.track = track
        self.clock_rate = clock_rate
        self.malformed_payloads = 0
        self._sequence = SequenceTracker()
        self._ssrc: int | None = None

    @property
    def lost_packets(self) -> int:
        return self._sequence.lost

    def receive(self, packet: RtpPacket) -> list[tuple[int, bytes]]:
        """The sound that this packet completes, each piece with its RTP timestamp (32 bits). Never raises."""
        if not packet.payload:
            # Of another payload type, or only padding: its place counts if it comes in order.
            if packet.ssrc == self._ssrc and packet.sequence_number == self._sequence.expected:
                self._sequence.skip(1)
            return []
        if packet.ssrc != self._ssrc:
            self._ssrc = packet.ssrc
            self._sequence.restart()
            self._forget()
        missing = self._sequence.update(packet.sequence_number)
        if missing == DISCARD:
            return []
        if missing:
            self._forget()
        try:
            return self._receive_payload(packet)
        except ProtocolError:
            self.malformed_payloads += 1
            self._forget()
            return []

    @abstractmethod
    def _receive_payload(self, packet: RtpPacket) -> list[tuple[int, bytes]]:
        """Raises ProtocolError."""

    @abstractmethod
    def _forget(self) -> None:
        """Drop what is begun."""


class G711Depacketizer(AudioDepacketizer):
    def _forget(self) -> None:
        """Every packet stands for itself."""

    def _receive_payload(self, packet: RtpPacket) -> list[tuple[int, bytes]]:
        return [(packet.timestamp, packet.payload)]


class AacDepacketizer(AudioDepacketizer):
    """`size_bits`, `index_bits`, `index_delta_bits`: the fields of an AU-header (RFC 3640 §3.2.1)."""

    def __init__(
        self,
        track: AudioTrack,
        clock_rate: int,
        *,
        ticks_per_unit: int,
        size_bits: int,
        index_bits: int,
        index_delta_bits: int,
    ) -> None:
        super().__init__(track, clock_rate)
        self._ticks_per_unit = ticks_per_unit
        self._size_bits = size_bits
        self._index_bits = index_bits
        self._index_delta_bits = index_delta_bits
        self._fragment = bytearray()
        self._fragment_timestamp = 0

    def _forget(self) -> None:
        self._fragment.clear()

    def _receive_payload(self, packet: RtpPacket) -> list[tuple[int, bytes]]:
        payload = packet.payload
        sizes, position = self._read_headers(payload)
        if len(sizes) == 1 and (sizes[0] > len(payload) - position or self._fragment):
            return self._add_fragment(packet, payload[position:], sizes[0])
        self._forget()
        units = []
        for number, size in enumerate(sizes):
            end = position + size
            if end > len(payload):
                raise ProtocolError("AAC access unit is cut off")
            timestamp = packet.timestamp + number * self._ticks_per_unit & 0xFFFFFFFF
            units.append((timestamp, payload[position:end]))
            position = end
        return units

    def _read_headers(self, payload: bytes) -> tuple[list[int], int]:
        """The sizes of the access units, and where the first begins."""
        bits = int.from_bytes(payload[:2], "big")
        start = 2 + (bits + 7) // 8
        if start > len(payload):
            raise ProtocolError("AU-headers are cut off")
        reader = BitReader(payload[2:start])
        sizes: list[int] = []
        while bits >= (needed := self._size_bits + (self._index_delta_bits if sizes else self._index_bits)):
            bits -= needed
            size = reader.bits(self._size_bits)
            if reader.bits(needed - self._size_bits):
                raise ProtocolError("interleaved AAC")
            if size == 0 or len(sizes) == MAX_UNITS_PER_PACKET:
                raise ProtocolError("AAC access units are empty or too many")
            sizes.append(size)
        if not sizes:
            raise ProtocolError("no AU-header")
        return sizes, start

    def _add_fragment(self, packet: RtpPacket, data: bytes, size: int) -> list[tuple[int, bytes]]:
        """One access unit over several packets, each with the whole unit's size (RFC 3640 §3.2.3)."""
        if packet.timestamp != self._fragment_timestamp:
            self._fragment.clear()
        self._fragment_timestamp = packet.timestamp
        self._fragment += data
        if size > MAX_AUDIO_UNIT_BYTES or len(self._fragment) > size:
            raise ProtocolError("AAC access unit is too large")
        if len(self._fragment) < size:
            return []
        unit = bytes(self._fragment)
        self._fragment.clear()
        return [(packet.timestamp, unit)]


def open_audio_depacketizer(media: MediaDescription) -> tuple[int, AudioDepacketizer]:
    """The payload type to receive and its depacketizer.

    Raises UnsupportedError if the media description offers no sound that we can take.
    """
    for payload_type in media.formats:
        rtpmap = media.rtpmap.get(payload_type) or _STATIC_RTPMAPS.get(payload_type)
        if rtpmap is None:
            continue
        if rtpmap.encoding == "MPEG4-GENERIC":
            return payload_type, _open_aac(media.fmtp.get(payload_type, {}), rtpmap.clock_rate)
        if rtpmap.encoding in _G711:
            codec, rate, channels = _G711[rtpmap.encoding], rtpmap.clock_rate, rtpmap.channels
            if not 0 < rate <= MAX_SAMPLE_RATE_HZ or not 0 < channels <= MAX_AUDIO_CHANNELS:
                raise UnsupportedError("the camera sends sound of an unusual kind")
            track = AudioTrack(codec=codec, sample_rate=rate, channels=channels)
            return payload_type, G711Depacketizer(track, rate)
    raise UnsupportedError("the camera offers no sound that we can relay")


def _open_aac(parameters: dict[str, str], clock_rate: int) -> AacDepacketizer:
    try:
        configuration = bytes.fromhex(parameters.get("config", ""))
        size_bits, index_bits, index_delta_bits = (
            int(parameters.get(name) or "0") for name in ("sizelength", "indexlength", "indexdeltalength")
        )
        aac = parse_audio_specific_config(configuration)
    except (ValueError, StreamError):
        raise UnsupportedError("the camera describes its sound wrongly") from None
    others = ("ctsdeltalength", "dtsdeltalength", "streamstateindication", "auxiliarydatasizelength")
    is_plain = all(parameters.get(name, "0") == "0" for name in (*others, "randomaccessindication"))
    if (
        not is_plain
        or not 0 < size_bits <= 16  # noqa: PLR2004 (AAC-lbr has 6, AAC-hbr 13)
        or not 0 <= index_bits <= 16  # noqa: PLR2004
        or not 0 <= index_delta_bits <= 16  # noqa: PLR2004
        or not 0 < clock_rate <= MAX_SAMPLE_RATE_HZ
        or not 0 < aac.channels <= MAX_AUDIO_CHANNELS
    ):
        raise UnsupportedError("the camera sends AAC in an unusual mode")
    track = AudioTrack(
        codec=AudioCodec.AAC,
        sample_rate=aac.sample_rate,
        channels=aac.channels,
        configuration=configuration,
    )
    return AacDepacketizer(
        track,
        clock_rate,
        ticks_per_unit=aac.samples_per_unit * clock_rate // aac.sample_rate,
        size_bits=size_bits,
        index_bits=index_bits,
        index_delta_bits=index_delta_bits,
    )
