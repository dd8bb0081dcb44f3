"""RTSP's interleaved packets (RFC 2326 §10.12), taken apart strictly."""

from collections.abc import Iterator

_HEADER_BYTES = 4


def split_interleaved(data: bytes) -> Iterator[tuple[int, bytes]]:
    """The channel and the RTP packet of each. Raises AssertionError unless `data` is whole packets."""
    while data:
        assert data[:1] == b"$"
        end = _HEADER_BYTES + int.from_bytes(data[2:_HEADER_BYTES])
        assert end <= len(data)
        yield data[1], data[_HEADER_BYTES:end]
        data = data[end:]
