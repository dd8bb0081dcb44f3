"""From sound to RTP payloads: AAC after RFC 3640 (AAC-hbr), G.711 after RFC 3551 §4.5.14."""

from collections.abc import Iterator
from typing import Final

import msgspec

from streams.errors import UnsupportedError
from streams.media import MAX_AUDIO_CHANNELS, MAX_SAMPLE_RATE_HZ, AudioCodec, AudioTrack, AudioUnit
from streams.wire.aac import parse_audio_specific_config
from streams.wire.packetizer import DEFAULT_MAX_PAYLOAD_BYTES, RtpSender
from streams.wire.rtp import RtpPacket, serialize_rtp
from streams.wire.sample_clock import SampleClock

MAX_AAC_UNIT_BYTES: Final = (1 << 13) - 1
"""The AU-size of AAC-hbr has 13 bits (RFC 3640 §3.3.6)."""

_AU_HEADERS_LENGTH: Final = (16).to_bytes(2, "big")
_AU_INDEX_BITS: Final = 3
_DYNAMIC_PAYLOAD_TYPE: Final = 97
_STATIC: Final = {AudioCodec.PCMU: 0, AudioCodec.PCMA: 8}
_STATIC_RATE: Final = 8_000


class AudioRtpFormat(msgspec.Struct, frozen=True, kw_only=True):
    """What a session description says about the sound. `parameters`: of its fmtp line, in order."""

    payload_type: int
    encoding: str
    clock_rate: int
    channels: int
    samples_per_unit: int | None = None
    parameters: dict[str, str] = {}


class AudioPayload(msgspec.Struct, frozen=True, gc=False):
    """`timestamp`: in the sound's own clock, modulo 2^32. The payload is `header` and then `body`."""

    timestamp: int
    marker: bool
    header: bytes
    body: bytes


def audio_rtp_format(audio: AudioTrack) -> AudioRtpFormat:
    """Raises a StreamError for a sound that has no place in RTP, or that declares itself wrongly."""
    if not (0 < audio.channels <= MAX_AUDIO_CHANNELS and 0 < audio.sample_rate <= MAX_SAMPLE_RATE_HZ):
        raise UnsupportedError("a sound without usable rate or channels")
    if audio.codec is AudioCodec.AAC:
        aac = parse_audio_specific_config(audio.configuration)
        return AudioRtpFormat(
            payload_type=_DYNAMIC_PAYLOAD_TYPE,
            encoding="mpeg4-generic",
            clock_rate=aac.sample_rate,
            channels=audio.channels,
            samples_per_unit=aac.samples_per_unit,
            parameters={
                "streamtype": "5",
                "profile-level-id": "1",
                "mode": "AAC-hbr",
                "sizelength": "13",
                "indexlength": "3",
                "indexdeltalength": "3",
                "config": audio.configuration.hex(),
            },
        )
    is_static = audio.sample_rate == _STATIC_RATE and audio.channels == 1
    return AudioRtpFormat(
        payload_type=_STATIC[audio.codec] if is_static else _DYNAMIC_PAYLOAD_TYPE,
        encoding=audio.codec.upper(),
        clock_rate=audio.sample_rate,
        channels=audio.channels,
    )


class AudioPayloadFormat:
    """Cuts one sound into payloads of at most `max_payload_bytes`."""

    def __init__(self, audio: AudioTrack, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES) -> None:
        """Raises a StreamError as `audio_rtp_format` does."""
        self.format = audio_rtp_format(audio)
        self._clock = SampleClock(self.format.clock_rate)
        self._max_payload_bytes = max_payload_bytes

    def payloads(self, unit: AudioUnit) -> Iterator[AudioPayload]:
        """The unit's payloads in order; none for an AAC access unit beyond MAX_AAC_UNIT_BYTES."""
        samples_per_unit = self.format.samples_per_unit
        if samples_per_unit is None:
            return self._g711(unit)
        return self._aac(unit, samples_per_unit)

    def _aac(self, unit: AudioUnit, samples: int) -> Iterator[AudioPayload]:
        """A fragment's AU-header has the size of the whole access unit; the last has the marker (§3.1)."""
        data, size = unit.data, len(unit.data)
        if size > MAX_AAC_UNIT_BYTES:
            return
        timestamp = self._clock.advance(unit.pts, samples) & 0xFFFFFFFF
        header = _AU_HEADERS_LENGTH + (size << _AU_INDEX_BITS).to_bytes(2, "big")
        step = self._max_payload_bytes - len(header)
        for start in range(0, size, step):
            is_last = start + step >= size
            yield AudioPayload(timestamp, is_last, header, data[start : start + step])

    def _g711(self, unit: AudioUnit) -> Iterator[AudioPayload]:
        """One byte is one sample of one channel. The marker would begin a talkspurt: there are none."""
        channels = self.format.channels
        data = unit.data
        time = self._clock.advance(unit.pts, len(data) // channels)
        step = self._max_payload_bytes // channels * channels
        for start in range(0, len(data), step):
            timestamp = (time + start // channels) & 0xFFFFFFFF
            yield AudioPayload(timestamp, False, b"", data[start : start + step])


class AudioPacketizer:
    """One sound's sender. The sender's payload type is to be that of `audio_rtp_format`."""

    def __init__(
        self, audio: AudioTrack, sender: RtpSender, max_payload_bytes: int = DEFAULT_MAX_PAYLOAD_BYTES
    ) -> None:
        """Raises a StreamError as `audio_rtp_format` does."""
        self._payloads = AudioPayloadFormat(audio, max_payload_bytes).payloads
        self._sender = sender
        self._sequence_number = sender.first_sequence_number

    def packetize(self, unit: AudioUnit) -> list[bytes]:
        packets = []
        for payload in self._payloads(unit):
            packet = RtpPacket(
                self._sender.payload_type,
                payload.marker,
                self._sequence_number,
                (payload.timestamp + self._sender.timestamp_offset) & 0xFFFFFFFF,
                self._sender.ssrc,
                payload.header + payload.body,
            )
            self._sequence_number = (self._sequence_number + 1) & 0xFFFF
            packets.append(serialize_rtp(packet))
        return packets
