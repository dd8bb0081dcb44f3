"""A camera that declares sound and sends none: players show no picture without what a container declares."""

import msgspec
import pytest
from support.units import NeverDue, RecordingReader, encode_clip, encode_sound

from streams.hub import Hub, HubSettings
from streams.hub.sound_presence import BACK_TICKS, GONE_TICKS, SoundPresence
from streams.media import TIME_BASE_HZ, AudioCodec, AudioUnit, Codec

SECONDS = 20
GOP = TIME_BASE_HZ
SOUND = "mp4a.40.2"


@pytest.fixture
def presence():
    sound = SoundPresence()
    assert not sound.judge(0, 0)
    return sound


def gops(presence, first, count, *, heard, ticks=GOP, pictures=25):
    """The changes of mind, by the number of the random access point."""
    changes = []
    for number in range(first, first + count):
        if heard:
            presence.hear()
        if presence.judge((number + 1) * ticks, pictures):
            changes.append(number)
    return changes


def test_declared_sound_is_believed_in_until_it_has_not_come_for_a_while(presence):
    assert gops(presence, 0, 50, heard=True) == []
    assert presence.is_there
    assert gops(presence, 50, 50, heard=False) == [50 + -(-GONE_TICKS // GOP) - 1]
    assert not presence.is_there


def test_sound_must_come_for_longer_to_be_believed_in_again(presence):
    gops(presence, 0, 5, heard=False)
    assert gops(presence, 5, 9, heard=True) == []
    assert gops(presence, 14, 1, heard=False) == []
    assert gops(presence, 15, 20, heard=True) == [15 + BACK_TICKS // GOP - 1]
    assert presence.is_there


def test_a_camera_that_stands_still_is_not_silent(presence):
    """All its pictures random access points; one comes minutes after the other."""
    gops(presence, 0, 50, heard=True, ticks=GOP // 25, pictures=1)
    assert not presence.judge(100 * GOP, 1)
    gops(presence, 100, 1, heard=True)
    assert presence.is_there


def test_an_interruption_is_not_silence(presence):
    presence.interrupt()
    assert not presence.judge(100 * GOP, 25)
    assert presence.is_there


class Watched:
    """A camera with sound in its description, and a reader of each container."""

    def __init__(self, *containers, codec=AudioCodec.AAC):
        audio, self.sounds = encode_sound(codec, float(SECONDS))
        track, self.units = encode_clip(Codec.H264, 25 * SECONDS, width=160, height=128)
        self.track = msgspec.structs.replace(track, audio=audio)
        self.stream = Hub(HubSettings(merge_seconds=0), schedule=lambda _seconds, _call: NeverDue()).open(
            "cam"
        )
        self.stream.configure(self.track)
        self.readers = [self.watch(container) for container in containers]

    def watch(self, container):
        reader = RecordingReader()
        self.stream.subscribe(reader, container, "unframed")
        return reader

    def run(self, start, end, *, has_sound):
        """The seconds from `start` to `end`."""
        media = [unit for unit in (*self.units, *self.sounds) if has_sound or not isinstance(unit, AudioUnit)]
        for unit in sorted(media, key=lambda unit: unit.pts):
            if start * TIME_BASE_HZ <= unit.pts < end * TIME_BASE_HZ:
                publish = self.stream.publish_audio if isinstance(unit, AudioUnit) else self.stream.publish
                publish(unit)


def begun(reader):
    """Of fragmented MP4: each beginning's first picture in seconds, and whether it declares sound."""
    beginnings, waiting = [], []
    for name, value in reader.calls:
        if name == "write":
            beginnings += [(value / TIME_BASE_HZ, has_sound) for has_sound in waiting]
            waiting = []
        elif name != "end":
            waiting.append(SOUND in value[1])
    return beginnings


def test_sound_that_never_comes_is_not_declared_any_more():
    watched = Watched("fmp4", "flv", "rtp")
    watched.run(0, 5, has_sound=False)
    fmp4, flv, rtp = watched.readers
    assert begun(fmp4) == [(0, True), (2, False)]
    assert flv.names.count("restart") == 1
    assert flv.calls[-1][0] == "write"
    assert [name for name in rtp.names if name != "write"] == ["start"]
    assert {len(reader.units) for reader in watched.readers} == {125}
    late = watched.watch("fmp4")
    assert begun(late) == [(4, False)]
    flags = watched.watch("flv").calls[0][1][0][4]
    assert flags == 1  # video only (FLV 10.1 §E.2)
    assert watched.stream.track.audio is not None


def test_no_picture_is_lost_where_sound_ends_and_comes_back():
    watched = Watched("fmp4")
    watched.run(0, 3, has_sound=True)
    watched.run(3, 6, has_sound=False)
    watched.run(6, SECONDS, has_sound=True)
    (reader,) = watched.readers
    assert begun(reader) == [(0, True), (5, False), (16, True)]
    pictures = [unit.dts for unit in reader.units if unit.access_units]
    assert pictures == [unit.dts for unit in watched.units]
    restarts = [index for index, name in enumerate(reader.names) if name == "restart"]
    for index in restarts:
        written = sum(name == "write" for name in reader.names[:index])
        assert reader.units[written].is_random_access


def test_a_new_picture_size_does_not_bring_back_the_belief():
    watched = Watched("fmp4")
    watched.run(0, 5, has_sound=False)
    smaller = encode_clip(Codec.H264, 1)[0]
    watched.stream.configure(msgspec.structs.replace(smaller, audio=watched.track.audio))
    (reader,) = watched.readers
    assert SOUND not in reader.calls[-1][1][1]
    louder = encode_sound(AudioCodec.AAC, 1.0, channels=2)[0]
    watched.stream.configure(msgspec.structs.replace(smaller, audio=louder))
    assert SOUND in reader.calls[-1][1][1]


def test_a_container_that_declares_no_sound_does_not_begin_anew():
    """G.711 has no place in fragmented MP4."""
    watched = Watched("fmp4", "flv", codec=AudioCodec.PCMA)
    watched.run(0, 5, has_sound=False)
    assert [reader.names.count("restart") for reader in watched.readers] == [0, 1]
