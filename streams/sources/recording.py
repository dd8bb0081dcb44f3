"""Reads a recording that somebody hands in: its coded pictures, without decoding one."""

from collections.abc import Iterator
from pathlib import Path

import av
import av.error

from streams.errors import ProtocolError, SourceUnreachableError, UnsupportedError
from streams.media import AccessUnit, Codec
from streams.sources.pyav_units import ContainerTimeLine, UnitAssembler

_CODECS = {"h264": Codec.H264, "hevc": Codec.H265}
# The file is hostile: no format that opens other files or addresses, and no protocol at all.
_OPTIONS = {
    "format_whitelist": "flv,mpegts,mov,matroska,h264,hevc,avi",
    "protocol_whitelist": "none",
}


def read_recording(path: Path) -> Iterator[tuple[Codec, AccessUnit]]:
    """Yield the access units of the first video track; blocking.

    Raises SourceUnreachableError if the file cannot be read, UnsupportedError if it holds no H.264 or H.265,
    ProtocolError if it is broken.
    """
    try:
        with path.open("rb") as file, av.open(file, "r", options=_OPTIONS) as container:
            yield from _units(container)
    except OSError as error:
        if isinstance(error, av.error.FFmpegError):
            raise ProtocolError("the recording cannot be read") from None
        raise SourceUnreachableError(f"the file cannot be opened ({error.strerror})") from None
    except av.error.FFmpegError:
        raise ProtocolError("the recording cannot be read") from None


def _units(container: av.container.InputContainer) -> Iterator[tuple[Codec, AccessUnit]]:
    if not container.streams.video:
        raise UnsupportedError("the recording has no video track")
    stream = container.streams.video[0]
    context = stream.codec_context
    codec = _CODECS.get(context.name) if context is not None else None
    if codec is None:
        raise UnsupportedError("the recording is neither H.264 nor H.265")
    assembler = UnitAssembler(codec, context.extradata or b"", ContainerTimeLine())
    for number, packet in enumerate(container.demux(stream)):
        if packet.size:
            for item in assembler.assemble(bytes(packet), number, number, 0):
                if isinstance(item, AccessUnit):
                    yield codec, item
