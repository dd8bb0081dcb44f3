"""The demuxing child: one process per camera that is not RTSP, confined before it sees the first byte.

It reads its `Order` from standard input, gives up every right, and writes `streams.sources.link` messages to
standard output, a `StreamEnd` last. Media come from standard input behind the order, from a file that is
already open, or over RTMP through the parent's tunnel. Nothing is decoded here (libav may decode a picture
while it probes). What libav says about a failure stays here: its messages repeat addresses with their
passwords, so only the kind of error is reported.
"""

import os
import signal
import sys
import time
from collections.abc import Iterator
from typing import IO

import av
import av.error
import av.subtitles.stream  # PyAV loads it when it opens an input: too late in the sandbox
import msgspec

from streams.errors import LimitExceededError, ProtocolError, StreamError, UnsupportedError
from streams.errors import SourceUnreachableError as Unreachable
from streams.media import TIME_BASE_HZ, AccessUnit, AudioCodec, AudioTrack, AudioUnit, Codec, Track
from streams.sources import sandbox
from streams.sources.link import Message, StreamEnd, serialize
from streams.sources.pyav_order import MAX_ORDER_BYTES, FileInput, Order, RtmpInput
from streams.sources.pyav_units import ContainerTimeLine, JoinedTracks, SoundAssembler, UnitAssembler

_CODECS = {"h264": Codec.H264, "hevc": Codec.H265}
_AUDIO_CODECS = {"aac": AudioCodec.AAC, "pcm_alaw": AudioCodec.PCMA, "pcm_mulaw": AudioCodec.PCMU}
_STANDARD_INPUT, _STANDARD_OUTPUT = 0, 1
_CONTAINERS = "flv,live_flv,mpegts,mov,matroska"
_PROBING = {
    "format_whitelist": _CONTAINERS,
    "probesize": "1000000",
    "analyzeduration": "1500000",  # µs: what a camera that announces audio and sends none costs
    "fpsprobesize": "0",
}


_Event = Track | AccessUnit | AudioUnit


class Pacer:
    """Holds access units back until they are at most `lead_seconds` ahead of real time.

    One that is late moves the clock: what was missed is not caught up with.
    """

    def __init__(self, lead_seconds: float) -> None:
        self._lead = lead_seconds
        self._origin: float | None = None

    def delay(self, dts: int, now: float) -> float:
        """Return how many seconds to wait before the access unit with this DTS; `now`: monotonic, in s."""
        media_time = dts / TIME_BASE_HZ
        if self._origin is None or self._origin + media_time < now:
            self._origin = now - media_time
        return max(self._origin + media_time - now - self._lead, 0.0)


def main() -> None:
    """Run one order. The parent ends this process whenever it wants; there is nothing to clean up."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sandbox.die_with_parent()
    with open(_STANDARD_INPUT, "rb", buffering=0, closefd=False) as stdin:
        order = _read_order(stdin)
        port = order.input.tunnel_port if isinstance(order.input, RtmpInput) else None
        sandbox.confine(memory_bytes=order.memory_bytes, connect_port=port)
        _send(_run(order, stdin))
    # The interpreter's own farewell would load modules, and cannot any more.
    os._exit(0)


def _read_order(stdin: IO[bytes]) -> Order:
    size = int.from_bytes(_read_exactly(stdin, 4), "big")
    if size > MAX_ORDER_BYTES:
        sys.exit("order is too large")
    return msgspec.msgpack.decode(_read_exactly(stdin, size), type=Order)


def _read_exactly(stdin: IO[bytes], size: int) -> bytes:
    data = b""
    while len(data) < size:
        more = stdin.read(size - len(data))
        if not more:
            sys.exit("order ends too early")
        data += more
    return data


def _run(order: Order, stdin: IO[bytes]) -> StreamEnd:
    try:
        _play(order, stdin)
    except StreamError as error:
        return StreamEnd(code=error.code, detail=str(error))
    except MemoryError:
        return StreamEnd(code=LimitExceededError.code, detail="the demuxer ran out of its memory")
    except (av.error.InvalidDataError, av.error.PatchWelcomeError) as error:
        return StreamEnd(
            code=ProtocolError.code, detail=f"the stream is not readable ({type(error).__name__})"
        )
    except av.error.FFmpegError as error:
        return StreamEnd(code=Unreachable.code, detail=f"the stream cannot be read ({type(error).__name__})")
    except Exception as error:  # noqa: BLE001
        # PyAV raises AttributeError, UnicodeDecodeError and others on hostile input, not only its own errors.
        return StreamEnd(code=ProtocolError.code, detail=f"the demuxer failed ({type(error).__name__})")
    return StreamEnd(code=Unreachable.code, detail="the stream ended")


def _play(order: Order, stdin: IO[bytes]) -> None:
    time_line = ContainerTimeLine()
    pacer = None if order.lead_seconds is None else Pacer(order.lead_seconds)
    announced: Track | None = None
    while True:
        published = False
        for event in _demux(order, stdin, time_line, announced.audio if announced else None):
            if isinstance(event, AccessUnit):
                published = True
                if pacer is not None:
                    time.sleep(pacer.delay(event.dts, time.monotonic()))
            elif isinstance(event, Track):
                if event == announced:
                    continue
                announced = event
            _send(event)
        if not isinstance(order.input, FileInput):
            return
        if not published:
            raise ProtocolError("the file holds no complete picture")
        time_line.restart()


def _demux(
    order: Order, stdin: IO[bytes], time_line: ContainerTimeLine, known: AudioTrack | None
) -> Iterator[_Event]:
    with _open(order, stdin) as container:
        if not container.streams.video:
            raise UnsupportedError("the stream has no video track")
        stream = container.streams.video[0]
        context = stream.codec_context
        codec = _CODECS.get(context.name) if context is not None else None
        if codec is None:
            raise UnsupportedError("the video is neither H.264 nor H.265")
        assembler = UnitAssembler(codec, context.extradata or b"", time_line)
        sound_stream, sound = _open_sound(container, time_line, known)
        joined = JoinedTracks(sound)
        wanted = [stream] if sound_stream is None else [stream, sound_stream]
        for packet in container.demux(wanted):
            if not packet.size:
                continue
            pts, dts = packet.pts, packet.dts
            if pts is None or dts is None:
                pts = dts = pts if dts is None else dts
            if pts is None or dts is None or packet.time_base is None:
                raise ProtocolError("a picture has no time stamp")
            scale = packet.time_base * TIME_BASE_HZ
            ticks, now_ns = (round(pts * scale), round(dts * scale)), time.monotonic_ns()
            if packet.stream is stream:
                yield from joined.pictures(assembler.assemble(bytes(packet), *ticks, now_ns))
            else:
                yield from joined.sound(bytes(packet), ticks[0], now_ns)


def _open_sound(
    container: av.container.InputContainer, time_line: ContainerTimeLine, known: AudioTrack | None
) -> tuple[av.AudioStream | None, SoundAssembler | None]:
    """The first sound that we can pass through; a camera's others are left out."""
    for stream in container.streams.audio:
        context = stream.codec_context
        codec = _AUDIO_CODECS.get(context.name)
        if codec is not None:
            configuration = bytes(context.extradata or b"") if codec is AudioCodec.AAC else b""
            try:
                sound = SoundAssembler(
                    codec, configuration, context.sample_rate or 0, context.channels or 0, time_line, known
                )
            except (UnsupportedError, ProtocolError):
                continue
            return stream, sound
    return None, None


def _open(order: Order, stdin: IO[bytes]) -> av.container.InputContainer:
    timeout = (order.open_timeout_seconds, order.read_timeout_seconds)
    options = _PROBING | {"protocol_whitelist": "none"}
    source: str | IO[bytes] = stdin
    if isinstance(order.input, RtmpInput):
        source = order.input.url
        options |= {"protocol_whitelist": "rtmp,tcp"} | order.input.options
    elif isinstance(order.input, FileInput):
        source = open(order.input.descriptor, "rb", buffering=0, closefd=False)  # noqa: SIM115
        source.seek(0)
    return av.open(source, "r", options=options, timeout=timeout)


def _send(message: Message) -> None:
    unsent = memoryview(serialize(message))
    while unsent:
        unsent = unsent[os.write(_STANDARD_OUTPUT, unsent) :]


if __name__ == "__main__":
    main()
