"""Transfer framings: what HTTP/1.1 or WebSocket puts around each piece of a container.

Applied once per access unit and shared by all viewers; possible for WebSocket because a server's messages
are not masked (RFC 6455 §5.1).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from streams.mux.muxed_unit import MuxedUnit, Sample


@dataclass(frozen=True, slots=True)
class Framing:
    """`prefix(n)` goes before n bytes of content, `suffix` after them; no suffix without a prefix."""

    prefix: Callable[[int], bytes]
    suffix: bytes = b""

    def frame(self, content: bytes) -> bytes:
        return self.prefix(len(content)) + content + self.suffix

    def frame_unit(self, unit: Sample) -> MuxedUnit:
        """One frame over head, mark and tail together: the outermost layer, and the only copy."""
        prefix = self.prefix(unit.size_bytes)
        if unit.mark:
            head, tail = prefix + unit.head, b"".join((*unit.pieces, self.suffix))
        else:
            head, tail = b"", b"".join((prefix, *unit.pieces, self.suffix))
        return MuxedUnit(
            head,
            unit.mark,
            tail,
            unit.is_random_access,
            unit.pts,
            unit.dts,
            unit.received_ns,
            unit.slices_hash,
            unit.access_units,
        )


def chunk_header(size: int) -> bytes:
    """RFC 9112 §7.1, without extensions."""
    return b"%x\r\n" % size


def websocket_header(size: int) -> bytes:
    """RFC 6455 §5.2: an unfragmented, unmasked, uncompressed binary message."""
    if size < 126:  # noqa: PLR2004 - the literal of the RFC's 7-bit length
        return bytes((0x82, size))
    if size < 1 << 16:
        return b"\x82\x7e" + size.to_bytes(2)
    return b"\x82\x7f" + size.to_bytes(8)


UNFRAMED = Framing(lambda _size: b"")
CHUNKED = Framing(chunk_header, b"\r\n")
WEBSOCKET = Framing(websocket_header)

FRAMINGS: Mapping[str, Framing] = MappingProxyType(
    {"unframed": UNFRAMED, "chunked": CHUNKED, "websocket": WEBSOCKET}
)
