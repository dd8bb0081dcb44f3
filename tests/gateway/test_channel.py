import asyncio
import contextlib
import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import channel as channel_module
from gateway.channel import Channel, ChannelError, serialize
from gateway.messages import (
    MAX_MESSAGE_BYTES,
    Claimed,
    End,
    Hello,
    Lease,
    Redeem,
    RunningSession,
    ToControl,
    ToWorker,
)
from streams.sources.source import CameraAddress

TO_CONTROL = msgspec.msgpack.Decoder(ToControl)
TO_WORKER = msgspec.msgpack.Decoder(ToWorker)


def channel_over(reader, decoder=TO_CONTROL, writer=None):
    return Channel(reader, writer, decoder)


async def receive_all(data: bytes, chunk: int):
    reader = asyncio.StreamReader()
    for start in range(0, len(data), chunk):
        reader.feed_data(data[start : start + chunk])
    reader.feed_eof()
    return [message async for message in channel_over(reader)]


MESSAGES = [
    Hello(
        worker=1, pid=2, sessions=[RunningSession(session="s", camera="c", bytes_sent=3)], streams={"c": 1}
    ),
    Redeem(request=1, session="s", ticket="t", protocol="flv", remote="127.0.0.1"),
]


@pytest.mark.parametrize("chunk", [1, 3, 1 << 20])
async def test_messages_survive_any_chunking(chunk):
    assert await receive_all(b"".join(map(serialize, MESSAGES)), chunk) == MESSAGES


@given(st.binary(max_size=200))
async def test_only_our_error_escapes_garbage(data):
    with contextlib.suppress(ChannelError):
        await receive_all(data, 7)


@pytest.mark.parametrize("cut", [2, 4, 9])
async def test_an_end_within_a_message_is_an_error(cut):
    with pytest.raises(ChannelError, match="within"):
        await receive_all(serialize(MESSAGES[1])[:cut], 100)


async def test_length_limit():
    reader = asyncio.StreamReader()
    reader.feed_data(struct.pack(">I", MAX_MESSAGE_BYTES + 1))
    with pytest.raises(ChannelError, match="over the limit"):
        await channel_over(reader).receive()


async def test_message_at_the_limit_and_one_beyond():
    overhead = len(serialize(End(session="", reason="", detail=""))) - 4
    # a long MessagePack string has a 5-byte head where the empty one has 1 byte
    longest = MAX_MESSAGE_BYTES - overhead - 4
    assert len(serialize(End(session="", reason="", detail="x" * longest))) == MAX_MESSAGE_BYTES + 4
    with pytest.raises(ChannelError, match="over the limit"):
        serialize(End(session="", reason="", detail="x" * (longest + 1)))


async def test_a_camera_password_crosses_but_is_not_shown():
    claimed = Claimed(
        request=1,
        stream="c",
        epoch=1,
        address=CameraAddress(url="rtsp://h/", username="u", password="canary"),
    )
    reader = asyncio.StreamReader()
    reader.feed_data(serialize(claimed))
    received = await channel_over(reader, TO_WORKER).receive()
    assert received.address.password == "canary"
    assert "canary" not in repr(received)


async def test_both_ways_over_a_unix_socket(tmp_path):
    accepted = asyncio.get_running_loop().create_future()

    async def accept(reader, writer):
        accepted.set_result(Channel(reader, writer, TO_CONTROL))

    server = await asyncio.start_unix_server(accept, tmp_path / "s")
    worker = Channel(*await asyncio.open_unix_connection(tmp_path / "s"), TO_WORKER)
    control = await accepted
    worker.send(MESSAGES[0])
    await worker.flush()
    assert await control.receive() == MESSAGES[0]
    control.send(Lease(sequence=7))
    assert await worker.receive() == Lease(sequence=7)
    await control.aclose()
    assert await worker.receive() is None
    await worker.aclose()
    with pytest.raises(ChannelError, match="closed"):
        worker.send(MESSAGES[0])
    server.close()
    await server.wait_closed()


async def test_a_peer_that_does_not_read_loses_the_channel(tmp_path, monkeypatch):
    monkeypatch.setattr(channel_module, "MAX_BACKLOG_BYTES", 1 << 20)
    accepted = asyncio.get_running_loop().create_future()

    async def accept(reader, writer):
        writer.transport.pause_reading()
        accepted.set_result(writer)

    server = await asyncio.start_unix_server(accept, tmp_path / "s")
    worker = Channel(*await asyncio.open_unix_connection(tmp_path / "s"), TO_WORKER)
    peer = await accepted
    big = End(session="s", reason="r", detail="x" * 100_000)

    def flood():
        for _ in range(1000):
            worker.send(big)

    with pytest.raises(ChannelError, match="does not read"):
        flood()
    with pytest.raises(ChannelError, match="closed"):
        worker.send(big)
    await worker.aclose()
    peer.close()
    server.close()
