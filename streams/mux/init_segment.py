"""The init segment of fragmented MP4 (ISO/IEC 14496-12 §8): what each track is, and no samples."""

import struct

import msgspec

from streams.errors import StreamError
from streams.media import MAX_AUDIO_CHANNELS, TIME_BASE_HZ, AudioCodec, Track
from streams.mux.codec_configuration import CodecConfiguration
from streams.wire.aac import AacFormat, parse_audio_specific_config

VIDEO_TRACK_ID, AUDIO_TRACK_ID = 1, 2
RANDOM_ACCESS_FLAGS = 0x0200_0000
"""sample_flags (§8.8.3.1): depends on no other."""

_UNITY_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
_UNDETERMINED_LANGUAGE = 0x55C4
_ENABLED_IN_MOVIE = 3
_FULL_VOLUME = 0x0100
_MAX_DECLARED_RATE = 0xFFFF
"""samplerate is 16.16 fixed; beyond it the AudioSpecificConfig alone tells."""


class Mp4Sound(msgspec.Struct, frozen=True):
    """Sound that MP4 has a place for. `configuration`: its AudioSpecificConfig."""

    format: AacFormat
    channels: int
    configuration: bytes

    @property
    def codecs(self) -> str:
        return f"mp4a.40.{self.format.object_type}"


def mp4_sound(track: Track) -> Mp4Sound | None:
    """None without sound, and for one that MP4 or browsers have no place for."""
    audio = track.audio
    if audio is None or audio.codec is not AudioCodec.AAC or not 0 < audio.channels <= MAX_AUDIO_CHANNELS:
        return None
    try:
        layout = parse_audio_specific_config(audio.configuration)
    except StreamError:
        return None
    return Mp4Sound(layout, audio.channels, audio.configuration)


def init_segment(track: Track, configuration: CodecConfiguration, sound: Mp4Sound | None) -> bytes:
    tracks, extends = [_video_track(track, configuration)], [_track_extends(VIDEO_TRACK_ID, 0, 0)]
    if sound is not None:
        tracks.append(_audio_track(sound))
        duration = sound.format.samples_per_unit
        extends.append(_track_extends(AUDIO_TRACK_ID, duration, RANDOM_ACCESS_FLAGS))
    movie = _box(b"moov", _movie_header(), *tracks, _box(b"mvex", *extends))
    return _box(b"ftyp", b"iso5", bytes(4), b"iso5", b"iso6", b"mp41") + movie


def _movie_header() -> bytes:
    times = struct.pack(">IIII", 0, 0, TIME_BASE_HZ, 0)
    rate_and_volume = struct.pack(">IH10x", 0x10000, _FULL_VOLUME)
    next_track = (AUDIO_TRACK_ID + 1).to_bytes(4)
    return _full_box(b"mvhd", 0, times, rate_and_volume, _UNITY_MATRIX, bytes(24), next_track)


def _video_track(track: Track, configuration: CodecConfiguration) -> bytes:
    entry = _box(
        configuration.sample_entry,
        bytes(6) + (1).to_bytes(2),
        bytes(16) + struct.pack(">HH", track.width, track.height),
        struct.pack(">IIIH", 0x48_0000, 0x48_0000, 0, 1),
        bytes(32) + struct.pack(">Hh", 24, -1),
        _box(configuration.record_type, configuration.record),
    )
    size = struct.pack(">II", track.width << 16, track.height << 16)
    media = _media(TIME_BASE_HZ, b"vide", b"video\0", _full_box(b"vmhd", 1, bytes(8)), entry)
    return _box(b"trak", _track_header(VIDEO_TRACK_ID, 0, size), media)


def _audio_track(sound: Mp4Sound) -> bytes:
    sample_rate = sound.format.sample_rate
    declared_rate = sample_rate if sample_rate <= _MAX_DECLARED_RATE else 0
    entry = _box(
        b"mp4a",
        bytes(6) + (1).to_bytes(2),
        bytes(8) + struct.pack(">HHII", sound.channels, 16, 0, declared_rate << 16),
        _full_box(b"esds", 0, _elementary_stream(sound.configuration)),
    )
    media = _media(sample_rate, b"soun", b"sound\0", _full_box(b"smhd", 0, bytes(4)), entry)
    return _box(b"trak", _track_header(AUDIO_TRACK_ID, _FULL_VOLUME, bytes(8)), media)


def _elementary_stream(configuration: bytes) -> bytes:
    """ES_Descriptor (ISO/IEC 14496-1 §7.2.6.5): MPEG-4 audio, buffer and bit rates unknown."""
    decoder = b"\x40\x15" + bytes(11) + _descriptor(5, configuration)
    return _descriptor(3, bytes(3) + _descriptor(4, decoder) + _descriptor(6, b"\x02"))


def _descriptor(tag: int, content: bytes) -> bytes:
    """One length byte holds up to 127; ours are bounded by MAX_AUDIO_CONFIGURATION_BYTES."""
    return bytes((tag, len(content))) + content


def _track_header(track_id: int, volume: int, size: bytes) -> bytes:
    times = struct.pack(">IIIII", 0, 0, track_id, 0, 0)
    layer_and_volume = struct.pack(">8xHHHH", 0, 0, volume, 0)
    return _full_box(b"tkhd", _ENABLED_IN_MOVIE, times, layer_and_volume, _UNITY_MATRIX, size)


def _media(time_scale: int, handler: bytes, name: bytes, header: bytes, entry: bytes) -> bytes:
    """`header`: the kind's own media header box; `entry`: its only sample entry."""
    times = struct.pack(">IIIIHH", 0, 0, time_scale, 0, _UNDETERMINED_LANGUAGE, 0)
    location = _full_box(b"dref", 0, (1).to_bytes(4), _full_box(b"url ", 1))
    information = _box(b"minf", header, _box(b"dinf", location), _sample_table(entry))
    handler_box = _full_box(b"hdlr", 0, bytes(4), handler, bytes(12), name)
    return _box(b"mdia", _full_box(b"mdhd", 0, times), handler_box, information)


def _sample_table(entry: bytes) -> bytes:
    """Describes the samples' format; has no samples, since all are in fragments."""
    return _box(
        b"stbl",
        _full_box(b"stsd", 0, (1).to_bytes(4), entry),
        _full_box(b"stts", 0, bytes(4)),
        _full_box(b"stsc", 0, bytes(4)),
        _full_box(b"stsz", 0, bytes(8)),
        _full_box(b"stco", 0, bytes(4)),
    )


def _track_extends(track_id: int, duration: int, flags: int) -> bytes:
    """What a fragment need not say about its samples."""
    return _full_box(b"trex", 0, struct.pack(">IIIII", track_id, 1, duration, 0, flags))


def _full_box(kind: bytes, flags: int, *content: bytes) -> bytes:
    return _box(kind, flags.to_bytes(4), *content)


def _box(kind: bytes, *content: bytes) -> bytes:
    body = b"".join(content)
    return (8 + len(body)).to_bytes(4) + kind + body
