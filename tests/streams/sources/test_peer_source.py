"""A stream taken from another worker: what its socket says, and how it may end."""

import asyncio
import contextlib

import pytest
from support.units import encode_clip

from streams.errors import LimitExceededError, ProtocolError, SourceUnreachableError
from streams.media import AudioUnit, Codec
from streams.sources.link import StreamEnd, Wanted, parse_wanted, serialize
from streams.sources.peer import PeerSource

TRACK, UNITS = encode_clip(Codec.H264, 3)
SOUND = AudioUnit(pts=7, data=b"sound", received_ns=11)


class Recorder:
    def __init__(self, error=None):
        self.published = []
        self._error = error

    def configure(self, track):
        if self._error is not None:
            raise self._error
        self.published.append(track)

    def publish(self, unit):
        self.published.append(unit)

    publish_audio = publish


@contextlib.asynccontextmanager
async def worker(path, *chunks):
    """Another worker that answers whoever comes with these chunks, and then closes; what it was asked for."""
    asked = []

    async def serve(reader, writer):
        data = b""
        while (wanted := parse_wanted(data)) is None:
            data += await reader.read(64)
        asked.append(wanted)
        writer.writelines(chunks)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield asked


async def test_everything_is_published_as_it_was(tmp_path):
    expected = [TRACK, UNITS[0], SOUND, *UNITS[1:]]
    data = b"".join(map(serialize, expected))
    async with worker(tmp_path / "s", data[:1000], data[1000:]) as asked:
        recorder = Recorder()
        with pytest.raises(SourceUnreachableError):
            await PeerSource(tmp_path / "s", "camera/sub").run(recorder)
    assert asked == [Wanted(stream="camera/sub")]
    assert recorder.published == expected


@pytest.mark.parametrize(
    ("chunks", "error"),
    [
        ((), SourceUnreachableError),
        ((serialize(StreamEnd(code="moved", detail="")),), SourceUnreachableError),
        ((serialize(UNITS[0]),), ProtocolError),
        ((serialize(SOUND),), ProtocolError),
        ((b"\xff" * 5,), LimitExceededError),
        ((b"\0\0\0\1\xc1",), ProtocolError),
    ],
)
async def test_whatever_ends_it_is_a_stream_error(tmp_path, chunks, error):
    async with worker(tmp_path / "s", *chunks):
        with pytest.raises(error):
            await PeerSource(tmp_path / "s", "camera").run(Recorder())


async def test_a_worker_that_is_not_there_is_unreachable(tmp_path):
    with pytest.raises(SourceUnreachableError):
        await PeerSource(tmp_path / "nobody", "camera").run(Recorder())


async def test_a_publisher_s_refusal_ends_it(tmp_path):
    async with worker(tmp_path / "s", serialize(TRACK), serialize(UNITS[0])):
        with pytest.raises(ProtocolError, match="no container"):
            await PeerSource(tmp_path / "s", "camera").run(Recorder(ProtocolError("no container")))


async def test_it_can_be_cancelled_while_the_other_waits_for_its_camera(tmp_path):
    come = asyncio.get_running_loop().create_future()

    async def serve(reader, writer):
        await reader.read(64)
        come.set_result(None)
        assert await reader.read() == b""
        writer.close()

    async with await asyncio.start_unix_server(serve, tmp_path / "s"), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(PeerSource(tmp_path / "s", "camera").run(Recorder()))
        await come
        running.cancel()
