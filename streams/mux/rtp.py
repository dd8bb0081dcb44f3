"""RTP as a container: packets interleaved after RFC 2326 §10.12, ready for every viewer over RTSP and TCP.

Video is on channel 0 (RFC 6184, RFC 7798), sound on channel 2 (RFC 3640, RFC 3551); channels 1 and 3 are for
the RTCP that each viewer's connection adds. Parameter sets go in band before every random access unit. The
trace mark's SEI NAL unit is a packet of its own, so that a mark is patched inside that packet's payload.

Sequence numbers run on from unit to unit. They have no gap for viewers of one output: what an output caches
was numbered when it was made, and what is muxed again when it opens comes before everything live. Timestamps
are the stream's, modulo 2^32.
"""

import hashlib
import struct
from collections.abc import Sequence

from streams.errors import StreamError
from streams.media import AudioUnit, Track
from streams.mux.codec_configuration import codec_configuration
from streams.mux.muxed_unit import NAL_LENGTH_BYTES, Sample, SampleMuxer, sound_sample
from streams.wire.audio_packetizer import AudioPayloadFormat
from streams.wire.packetizer import PAYLOAD_FORMATS, NalUnit, describe_track
from streams.wire.sdp import MediaDescription, RtpMap

VIDEO_CHANNEL = 0
AUDIO_CHANNEL = 2
VIDEO_PAYLOAD_TYPE = 96
VIDEO_CONTROL = "track0"
AUDIO_CONTROL = "track1"

_MAGIC = 0x24
_RTP_HEADER_BYTES = 12
_RTP_VERSION = 0x8000
_MARKER = 0x80
# Magic and channel, size; then of RTP: version, marker and payload type, sequence number, timestamp, SSRC.
_PACKET = struct.Struct(">HHHHII")


class _InterleavedSender:
    """One medium's packets: a channel, a source and its running sequence number."""

    def __init__(self, channel: int, payload_type: int, ssrc: int, sequence_number: int) -> None:
        self._start = _MAGIC << 8 | channel
        self._kind = _RTP_VERSION | payload_type
        self._ssrc = ssrc
        self._sequence_number = sequence_number

    def header(self, payload_bytes: int, timestamp: int, *, marker: bool) -> bytes:
        sequence_number = self._sequence_number
        self._sequence_number = sequence_number + 1 & 0xFFFF
        kind = self._kind | _MARKER if marker else self._kind
        size = _RTP_HEADER_BYTES + payload_bytes
        return _PACKET.pack(self._start, size, kind, sequence_number, timestamp, self._ssrc)

    def packets(
        self, payloads: Sequence[tuple[bytes, NalUnit]], timestamp: int, *, ends: bool
    ) -> list[NalUnit]:
        """The packets' pieces in order. `ends`: the last payload is the access unit's last."""
        last = len(payloads) if ends else 0
        start, kind, ssrc, sequence_number = self._start, self._kind, self._ssrc, self._sequence_number
        pack = _PACKET.pack  # as `header`, but this is the hot path
        pieces: list[NalUnit] = []
        for number, (header, body) in enumerate(payloads, start=1):
            size = _RTP_HEADER_BYTES + len(header) + len(body)
            marked = kind | _MARKER if number == last else kind
            pieces += (pack(start, size, marked, sequence_number, timestamp, ssrc), header, body)
            sequence_number = sequence_number + 1 & 0xFFFF
        self._sequence_number = sequence_number
        return pieces


class RtpMuxer(SampleMuxer):
    """One access unit's packets, or one sound unit's, at a time; nothing comes before them."""

    mime = "application/rtp"
    init = b""
    restart = b""
    counts = True

    def __init__(self, track: Track) -> None:
        """Raises ProtocolError if the track's parameter sets are unusable.

        Sources and first sequence numbers follow from the parameter sets: other ones have others, so that
        receivers see a new source begin (RFC 3550 §8.1) instead of a gap.
        """
        codec_configuration(track)
        identity = hashlib.blake2b(b"".join(track.parameter_sets), digest_size=8).digest()
        ssrc, video_sequence, audio_sequence = struct.unpack(">IHH", identity)
        self._payloads = PAYLOAD_FORMATS[track.codec]().payloads
        self._parameter_sets = track.parameter_sets
        self._video = _InterleavedSender(VIDEO_CHANNEL, VIDEO_PAYLOAD_TYPE, ssrc, video_sequence)
        self._sound = _sound(track)
        audio_payload_type = self._sound.format.payload_type if self._sound else 0
        self._audio = _InterleavedSender(AUDIO_CHANNEL, audio_payload_type, ssrc ^ 1, audio_sequence)

    def mux(self, sample: Sample) -> Sample:
        timestamp = sample.pts & 0xFFFF_FFFF
        if sample.is_random_access:
            return self._mux_random_access(sample, timestamp)
        payloads = list(self._payloads(_nal_units(sample.tail)))
        pieces = tuple(self._video.packets(payloads, timestamp, ends=True))
        size = sum(map(len, pieces))
        return Sample(b"", b"", pieces, size, False, sample.pts, sample.dts, sample.received_ns)

    def mux_audio(self, unit: AudioUnit) -> Sample | None:
        """None too for an AAC access unit that is too large for RFC 3640's AU-header."""
        if self._sound is None:
            return None
        pieces: list[bytes] = []
        for payload in self._sound.payloads(unit):
            size = len(payload.header) + len(payload.body)
            header = self._audio.header(size, payload.timestamp, marker=payload.marker)
            pieces += (header, payload.header, payload.body)
        if not pieces:
            return None
        return sound_sample(unit, *pieces)

    def _mux_random_access(self, sample: Sample, timestamp: int) -> Sample:
        """The mark lies in the last NAL unit of the sample's head, whose end is the tail's beginning."""
        video = self._video
        *first, sei_head = _nal_units(sample.head)
        sei_length = int.from_bytes(sample.head[-len(sei_head) - NAL_LENGTH_BYTES :][:NAL_LENGTH_BYTES])
        sei_end = sei_length - len(sei_head) - len(sample.mark)
        sample_tail = memoryview(sample.tail)
        before = list(self._payloads([*self._parameter_sets, *first]))
        after = list(self._payloads(_nal_units(sample_tail[sei_end:])))
        head = video.packets(before, timestamp, ends=False)
        head += (video.header(sei_length, timestamp, marker=not after), sei_head)
        tail = (sample_tail[:sei_end], *video.packets(after, timestamp, ends=True))
        return Sample(
            b"".join(head),
            sample.mark,
            tail,
            sum(map(len, head)) + len(sample.mark) + sum(map(len, tail)),
            True,
            sample.pts,
            sample.dts,
            sample.received_ns,
            sample.slices_hash,
        )


def describe_rtp(track: Track) -> list[MediaDescription]:
    """What `RtpMuxer` sends: video as `track0`; as `track1` sound, if the track has one that RTP can carry.

    Raises ProtocolError if the track lacks a parameter set.
    """
    media = [describe_track(track, VIDEO_PAYLOAD_TYPE, VIDEO_CONTROL)]
    sound = _sound(track)
    if sound is not None:
        layout = sound.format
        kind = layout.payload_type
        media.append(
            MediaDescription(
                kind="audio",
                formats=(kind,),
                rtpmap={
                    kind: RtpMap(
                        encoding=layout.encoding, clock_rate=layout.clock_rate, channels=layout.channels
                    )
                },
                fmtp={kind: layout.parameters} if layout.parameters else {},
                control=AUDIO_CONTROL,
            )
        )
    return media


def _sound(track: Track) -> AudioPayloadFormat | None:
    """None without sound, and for one that RTP cannot carry."""
    if track.audio is None:
        return None
    try:
        return AudioPayloadFormat(track.audio)
    except StreamError:
        return None


def _nal_units(sample: bytes | memoryview) -> list[NalUnit]:
    """The NAL units of a sample, or of a part of it that ends within its last one."""
    view = memoryview(sample)
    nal_units: list[NalUnit] = []
    start = 0
    while start < len(view):
        begin = start + NAL_LENGTH_BYTES
        start = begin + int.from_bytes(view[start:begin])
        nal_units.append(view[begin:start])
    return nal_units
