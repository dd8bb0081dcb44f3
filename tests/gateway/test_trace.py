"""`custos trace` on what is not a recording of ours. That it names a session is proven end to end."""

import random

import pytest
from support.http_media import make_clip

from gateway.keys import InstallationKeys
from gateway.store.store import Store, StoreSettings
from gateway.trace import TraceError, trace_recording
from streams.errors import ProtocolError, SourceUnreachableError, StreamError


@pytest.fixture
async def data(tmp_path):
    async with Store.open(StoreSettings(tmp_path)):
        InstallationKeys.open(tmp_path)
    return tmp_path


async def test_a_clip_without_marks_is_nobodys(data):
    clip = data / "clip.ts"
    clip.write_bytes(make_clip("mpegts"))
    assert trace_recording(clip, data) == []


async def test_garbage_is_an_error_of_ours(data):
    clip = data / "clip.mp4"
    clip.write_bytes(random.Random(1).randbytes(100_000))
    with pytest.raises(ProtocolError):
        trace_recording(clip, data)
    clip.write_bytes(b"")
    with pytest.raises(StreamError):
        trace_recording(clip, data)
    with pytest.raises(SourceUnreachableError):
        trace_recording(data / "nowhere.mp4", data)


async def test_a_playlist_opens_nothing_else(data):
    clip = data / "clip.m3u8"
    clip.write_text(f"#EXTM3U\n#EXTINF:2,\n{data / 'custos.db'}\n")
    with pytest.raises(StreamError):
        trace_recording(clip, data)


def test_without_a_data_folder_there_is_nothing_to_look_up(tmp_path):
    clip = tmp_path / "clip.ts"
    clip.write_bytes(b"x")
    with pytest.raises(TraceError):
        trace_recording(clip, tmp_path)
