"""The beginning of an HTTP-FLV answer, up to the first complete keyframe: bytes in, one answer out.

Any server's: chunked or not, H.264 and H.265, in the old form and in that of Enhanced RTMP 1.
After that a viewer only counts bytes, which is why a benchmark can afford thousands.
"""

from typing import Final

from streams.errors import LimitExceededError, ProtocolError

MAX_HEAD_BYTES: Final = 16 * 1024
MAX_CHUNK_LINE_BYTES: Final = 256
MAX_START_BYTES: Final = 32 * 1024 * 1024
"""All that may come before the first keyframe is complete, it included."""

_END_OF_HEAD: Final = b"\r\n\r\n"
_LINE_END: Final = b"\r\n"
_STATUS: Final = slice(9, 12)
_FLV_HEADER_BYTES: Final = 9
_TAG_HEADER_BYTES: Final = 11
_PREVIOUS_TAG_SIZE_BYTES: Final = 4
_VIDEO: Final = 9
_KEYFRAME: Final = 1
_CODED: Final = 1
_CODED_WITHOUT_COMPOSITION: Final = 3


class FlvStart:
    """One viewer's answer. After an error, or once it has said True, it is used up."""

    def __init__(self) -> None:
        self._raw = bytearray()
        self._content = bytearray()
        self._received = 0
        self._is_chunked: bool | None = None
        self._chunk_left: int | None = None
        self._has_header = False

    def receive_data(self, data: bytes) -> bool:
        """Whether the first keyframe is complete. Raises ProtocolError for what is no HTTP-FLV."""
        self._received += len(data)
        if self._received > MAX_START_BYTES:
            raise LimitExceededError("no keyframe")
        self._raw += data
        if self._is_chunked is None and not self._read_head():
            return False
        if self._is_chunked:
            self._read_chunks()
        else:
            self._content += self._raw
            self._raw.clear()
        return self._read_header() and self._read_tags()

    def _read_head(self) -> bool:
        end = self._raw.find(_END_OF_HEAD, 0, MAX_HEAD_BYTES)
        if end < 0:
            if len(self._raw) >= MAX_HEAD_BYTES:
                raise LimitExceededError("HTTP headers are too large")
            return False
        head = bytes(self._raw[:end]).lower()
        status = head[_STATUS]
        if not head.startswith(b"http/1.") or not status.isdigit():
            raise ProtocolError("not an HTTP answer")
        if status != b"200":
            raise ProtocolError(f"HTTP status {status.decode('ascii')}")
        self._is_chunked = any(
            line.startswith(b"transfer-encoding:") and line.endswith(b"chunked")
            for line in head.split(_LINE_END)
        )
        del self._raw[: end + len(_END_OF_HEAD)]
        return True

    def _read_chunks(self) -> None:
        """Move what is content from `_raw` to `_content` (RFC 9112 §7.1)."""
        while True:
            if self._chunk_left is None:
                end = self._raw.find(_LINE_END, 0, MAX_CHUNK_LINE_BYTES)
                if end < 0:
                    if len(self._raw) >= MAX_CHUNK_LINE_BYTES:
                        raise LimitExceededError("a chunk's size line is too long")
                    return
                self._chunk_left = _chunk_size(bytes(self._raw[:end]))
                del self._raw[: end + len(_LINE_END)]
            taken = self._raw[: self._chunk_left]
            self._content += taken
            del self._raw[: len(taken)]
            self._chunk_left -= len(taken)
            if self._chunk_left or len(self._raw) < len(_LINE_END):
                return
            if not self._raw.startswith(_LINE_END):
                raise ProtocolError("a chunk does not end where it should")
            del self._raw[: len(_LINE_END)]
            self._chunk_left = None

    def _read_header(self) -> bool:
        if not self._has_header:
            if len(self._content) < _FLV_HEADER_BYTES:
                return False
            if not self._content.startswith(b"FLV\x01"):
                raise ProtocolError("not FLV")
            header_bytes = int.from_bytes(self._content[5:_FLV_HEADER_BYTES], "big")
            if header_bytes != _FLV_HEADER_BYTES:
                raise ProtocolError("an FLV header of another size")
            if len(self._content) < _FLV_HEADER_BYTES + _PREVIOUS_TAG_SIZE_BYTES:
                return False
            del self._content[: _FLV_HEADER_BYTES + _PREVIOUS_TAG_SIZE_BYTES]
            self._has_header = True
        return True

    def _read_tags(self) -> bool:
        content, position = self._content, 0
        while position + _TAG_HEADER_BYTES <= len(content):
            size = int.from_bytes(content[position + 1 : position + 4], "big")
            body = position + _TAG_HEADER_BYTES
            end = body + size + _PREVIOUS_TAG_SIZE_BYTES
            if end > len(content):
                break
            if content[position] & 0x1F == _VIDEO and _is_keyframe(content[body : body + min(size, 2)]):
                return True
            position = end
        del content[:position]
        return False


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):  # noqa: PLR2004 - 32 bits
        raise ProtocolError("malformed chunk size")
    size = int(digits, 16)
    if not size:
        raise ProtocolError("the answer ended before a keyframe")
    return size


def _is_keyframe(body: bytes | bytearray) -> bool:
    """Whether a video tag's first two bytes say: a coded keyframe, not its decoder's configuration."""
    if len(body) < 2:  # noqa: PLR2004
        return False
    if body[0] & 0x80:
        is_coded = body[0] & 0x0F in {_CODED, _CODED_WITHOUT_COMPOSITION}
        return is_coded and body[0] >> 4 & 0x07 == _KEYFRAME
    return body[0] >> 4 == _KEYFRAME and body[1] == _CODED
