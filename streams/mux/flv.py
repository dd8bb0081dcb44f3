"""FLV: video only, H.264 as Adobe specified it (FLV 10.1 §E) and H.265 as Enhanced RTMP 1 (`hvc1`)."""

from streams.media import TIME_BASE_HZ, AudioUnit, Codec, Track
from streams.mux.codec_configuration import codec_configuration
from streams.mux.muxed_unit import MuxedUnit

# Signature, version, flags: video, and no audio, or players wait for it; then the header's size.
_FILE_HEADER = b"FLV\x01\x01" + (9).to_bytes(4)
_NO_PREVIOUS_TAG = bytes(4)
_TAG_HEADER_BYTES = 11
_VIDEO_TAG = b"\x09"
_STREAM_ID = bytes(3)
_TICKS_PER_MS = TIME_BASE_HZ // 1000
_MAX_COMPOSITION_MS = (1 << 23) - 1

# Frame type in the upper four bits: 1 keyframe, 2 other. Lower four: codec 7 is AVC; in an extended header
# (bit 7) the packet type instead: 0 sequence start, 1 coded units with a composition time.
_SEQUENCE_START = {Codec.H264: b"\x17\x00\x00\x00\x00", Codec.H265: b"\x90hvc1"}
_RANDOM_ACCESS = {Codec.H264: b"\x17\x01", Codec.H265: b"\x91hvc1"}
_INTER = {Codec.H264: b"\x27\x01", Codec.H265: b"\xa1hvc1"}


class FlvMuxer:
    """One tag per access unit. Timestamps are the stream's in ms, modulo 2^32, as FLV defines them."""

    mime = "video/x-flv"

    def __init__(self, track: Track) -> None:
        """Raises ProtocolError if the track's parameter sets are unusable."""
        content = _SEQUENCE_START[track.codec] + codec_configuration(track).record
        self.restart = _tag_header(len(content), 0) + content + _previous_tag_size(len(content))
        self.init = _FILE_HEADER + _NO_PREVIOUS_TAG + self.restart
        self._random_access = _RANDOM_ACCESS[track.codec]
        self._inter = _INTER[track.codec]

    def mux(self, sample: MuxedUnit) -> MuxedUnit:
        dts_ms = sample.dts // _TICKS_PER_MS
        composition_ms = sample.pts // _TICKS_PER_MS - dts_ms
        composition_ms = max(-_MAX_COMPOSITION_MS, min(_MAX_COMPOSITION_MS, composition_ms))
        video_header = self._random_access if sample.is_random_access else self._inter
        video_header += composition_ms.to_bytes(3, signed=True)
        size = len(video_header) + sample.size_bytes
        return sample.enclosed(_tag_header(size, dts_ms) + video_header, _previous_tag_size(size))

    def mux_audio(self, unit: AudioUnit) -> MuxedUnit | None:  # noqa: ARG002
        return None


def _tag_header(content_bytes: int, timestamp_ms: int) -> bytes:
    """The timestamp's upper byte comes after its lower three."""
    timestamp = (timestamp_ms & 0xFFFF_FFFF).to_bytes(4)
    return _VIDEO_TAG + content_bytes.to_bytes(3) + timestamp[1:] + timestamp[:1] + _STREAM_ID


def _previous_tag_size(content_bytes: int) -> bytes:
    return (_TAG_HEADER_BYTES + content_bytes).to_bytes(4)
