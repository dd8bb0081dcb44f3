"""What RTMP messages hold: pictures and sound become units, and of the rest comes our own error only."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.units import encode_clip

from streams.errors import LimitExceededError, ProtocolError, StreamError, UnsupportedError
from streams.media import MAX_AUDIO_UNIT_BYTES, AudioCodec, Codec
from streams.mux.codec_configuration import codec_configuration
from streams.sources.rtmp_media import MAX_CONFIGURATIONS_PER_SECOND, RtmpMedia
from streams.wire.parameter_sets import MAX_PARSED_SETS_PER_SECOND

SECOND_NS = 1_000_000_000
MONO, STEREO = b"\x72", b"\x73"
"""G.711 A-law."""


class Kept:
    def __init__(self):
        self.tracks, self.units, self.sound = [], [], []

    def configure(self, track):
        self.tracks.append(track)

    def publish(self, unit):
        self.units.append(unit)

    def publish_audio(self, unit):
        self.sound.append(unit)


def lengths(*nal_units):
    return b"".join(len(nal_unit).to_bytes(4) + nal_unit for nal_unit in nal_units)


def configured(received_ns=0):
    """Media that know their pictures, what they gave, and the access units of a clip."""
    track, units = encode_clip(Codec.H264, 5)
    kept = Kept()
    media = RtmpMedia(kept)
    media.video(b"\x17\0\0\0\0" + codec_configuration(track).record, 0, received_ns)
    return media, kept, track, units


def picture(unit):
    return (b"\x17" if unit.is_random_access else b"\x27") + b"\1\0\0\0" + lengths(*unit.nal_units)


def test_pictures_and_sound_become_units():
    media, kept, track, units = configured()
    for number, unit in enumerate(units):
        media.video(picture(unit), 40 * number, number)
        media.audio(MONO + b"sound", 40 * number, number)
    assert [unit.nal_units for unit in kept.units] == [unit.nal_units for unit in units]
    assert [unit.dts for unit in kept.units] == [3600 * number for number in range(5)]
    assert kept.tracks[0] == track
    assert kept.tracks[-1].audio.codec is AudioCodec.PCMA
    assert [unit.data for unit in kept.sound] == [b"sound"] * 5
    assert media.last_unit_ns == 4


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=120), st.integers(0, 2**32 - 1)), max_size=8))
def test_only_our_own_error_escapes(messages):
    media, _, _, units = configured()
    media.video(picture(units[0]), 0, 0)
    for is_video, body, timestamp in messages:
        with contextlib.suppress(StreamError):
            (media.video if is_video else media.audio)(body, timestamp, 1)


@given(st.data())
def test_a_damaged_picture_is_our_own_error_or_a_picture(data):
    media, kept, _, units = configured()
    body = bytearray(picture(units[0]))
    for _ in range(data.draw(st.integers(1, 4))):
        body[data.draw(st.integers(0, min(len(body), 60) - 1))] = data.draw(st.integers(0, 255))
    with contextlib.suppress(StreamError):
        media.video(bytes(body), 0, 1)
    assert len(kept.units) <= 1


def test_configurations_are_bounded_within_a_second():
    media, *_ = configured()
    for number in range(MAX_CONFIGURATIONS_PER_SECOND - 1):
        media.audio((STEREO if number % 2 else MONO) + b"sound", 0, SECOND_NS - 1)
    with pytest.raises(LimitExceededError):
        media.audio((STEREO if MAX_CONFIGURATIONS_PER_SECOND % 2 == 0 else MONO) + b"x", 0, SECOND_NS - 1)
    media, *_ = configured()
    for number in range(2 * MAX_CONFIGURATIONS_PER_SECOND - 1):
        received_ns = 0 if number < MAX_CONFIGURATIONS_PER_SECOND - 1 else SECOND_NS
        media.audio((STEREO if number % 2 else MONO) + b"sound", 0, received_ns)


def test_parameter_sets_between_the_pictures_are_bounded_within_a_second():
    media, _, track, units = configured()
    sets = [
        track.parameter_sets[1] + bytes((n // 250 + 1, n % 250 + 1))
        for n in range(MAX_PARSED_SETS_PER_SECOND)
    ]
    for nal_unit in sets:
        media.video(b"\x27\1\0\0\0" + lengths(nal_unit), 0, SECOND_NS)
    with pytest.raises(LimitExceededError):
        media.video(b"\x27\1\0\0\0" + lengths(b"\x68\xff"), 0, SECOND_NS)
    del units


def test_sound_has_a_largest_size():
    media, kept, _, units = configured()
    media.video(picture(units[0]), 0, 0)
    media.audio(MONO + bytes(MAX_AUDIO_UNIT_BYTES), 0, 0)
    assert len(kept.sound[0].data) == MAX_AUDIO_UNIT_BYTES
    with pytest.raises(LimitExceededError):
        media.audio(MONO + bytes(MAX_AUDIO_UNIT_BYTES + 1), 40, 0)


@pytest.mark.parametrize(
    ("body", "error"), [(b"\x12\1\0\0\0x", UnsupportedError), (b"\x17\1\0\0\0x", ProtocolError)]
)
def test_what_cannot_be_relayed_is_named(body, error):
    with pytest.raises(error):
        RtmpMedia(Kept()).video(body, 0, 0)
