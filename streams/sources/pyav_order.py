"""What the parent tells its demuxing child: apart from the child, so that no relay worker loads PyAV."""

import msgspec

MAX_ORDER_BYTES = 64 * 1024


class RtmpInput(msgspec.Struct, frozen=True, kw_only=True, tag="rtmp"):
    """`url` points into the parent's tunnel and may hold the credential; `options` are for libav's rtmp."""

    url: str
    options: dict[str, str]
    tunnel_port: int

    def __repr__(self) -> str:
        return f"RtmpInput(tunnel_port={self.tunnel_port})"


class FileInput(msgspec.Struct, frozen=True, kw_only=True, tag="file"):
    """`descriptor`: open for reading, inherited. The file is played in a loop."""

    descriptor: int


class PipeInput(msgspec.Struct, frozen=True, kw_only=True, tag="pipe"):
    """The container's bytes follow the order on standard input."""


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What one child is to do.

    `lead_seconds`: how far access units may run ahead of real time; None: as they come. The time-outs bound
    every blocking call of libav; the parent watches the rest.
    """

    input: RtmpInput | FileInput | PipeInput
    memory_bytes: int
    open_timeout_seconds: float
    read_timeout_seconds: float
    lead_seconds: float | None = None
