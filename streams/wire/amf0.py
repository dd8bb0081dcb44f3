"""AMF0, the notation of RTMP commands (Adobe, Action Message Format 0, 2007): bytes in, plain values out.

Only what commands are made of: numbers, booleans, strings, objects and arrays of these, null. References,
XML and typed objects have no place in them and are refused.
"""

import struct
from collections.abc import Mapping
from typing import Final

from streams.errors import LimitExceededError, ProtocolError

MAX_DEPTH: Final = 8
MAX_VALUES: Final = 512
"""Values in one message, nested ones included; an encoder's metadata has about forty."""
MAX_STRING_BYTES: Final = 4096

Value = float | bool | str | None | dict[str, "Value"] | list["Value"]

_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL = 0, 1, 2, 3, 5
_ECMA_ARRAY, _END, _STRICT_ARRAY = 8, 9, 10
_DOUBLE: Final = struct.Struct(">d")
_NUMBER_BYTES: Final = 8
_TIME_ZONE_BYTES: Final = 2


def parse_amf0(data: bytes) -> list[Value]:
    """Every value of a message, in order. Raises ProtocolError and nothing else."""
    reader = _Reader(data)
    values: list[Value] = []
    while not reader.is_empty:
        values.append(reader.value(0))
    return values


def serialize_amf0(*values: Value) -> bytes:
    """The values one after the other. Strings are cut at 65,535 bytes by nobody: keep them short."""
    return b"".join(map(_serialize, values))


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0
        self._values = 0

    @property
    def is_empty(self) -> bool:
        return self._position == len(self._data)

    def value(self, depth: int) -> Value:
        self._values += 1
        if depth > MAX_DEPTH or self._values > MAX_VALUES:
            raise LimitExceededError("an AMF0 message nests too deep or holds too much")
        marker = self._byte()
        if marker in {_OBJECT, _ECMA_ARRAY}:
            self._take(4 if marker == _ECMA_ARRAY else 0)
            return self._members(depth)
        if marker == _STRICT_ARRAY:
            return [self.value(depth + 1) for _ in range(self._count())]
        return self._simple(marker)

    def _simple(self, marker: int) -> Value:
        match marker:
            case 0:
                return self._number()
            case 1:
                return self._byte() != 0
            case 2 | 12:
                return self._string(2 if marker == _STRING else 4)
            case 11:
                milliseconds = self._number()
                self._take(_TIME_ZONE_BYTES)
                return milliseconds
            case 5 | 6:
                return None
            case _:
                raise ProtocolError(f"AMF0 marker {marker} in a command")

    def _count(self) -> int:
        count = int.from_bytes(self._take(4))
        if count > MAX_VALUES:
            raise LimitExceededError("an AMF0 array is too long")
        return count

    def _members(self, depth: int) -> dict[str, Value]:
        members: dict[str, Value] = {}
        while True:
            name = self._string(2)
            if not name and self._data[self._position : self._position + 1] == bytes((_END,)):
                self._position += 1
                return members
            members[name] = self.value(depth + 1)

    def _string(self, length_bytes: int) -> str:
        length = int.from_bytes(self._take(length_bytes))
        if length > MAX_STRING_BYTES:
            raise LimitExceededError("an AMF0 string is too long")
        return self._take(length).decode("utf-8", "replace")

    def _number(self) -> float:
        (number,) = _DOUBLE.unpack(self._take(_NUMBER_BYTES))
        return float(number)

    def _byte(self) -> int:
        return self._take(1)[0]

    def _take(self, size: int) -> bytes:
        end = self._position + size
        if end > len(self._data):
            raise ProtocolError("an AMF0 message ends too early")
        taken = self._data[self._position : end]
        self._position = end
        return taken


def _serialize(value: Value) -> bytes:
    if value is None:
        return bytes((_NULL,))
    if isinstance(value, bool):
        return bytes((_BOOLEAN, value))
    if isinstance(value, str):
        return bytes((_STRING,)) + _sized(value)
    if isinstance(value, dict):
        return bytes((_OBJECT,)) + _members(value) + bytes((0, 0, _END))
    if isinstance(value, list):
        return bytes((_STRICT_ARRAY,)) + len(value).to_bytes(4) + b"".join(map(_serialize, value))
    return bytes((_NUMBER,)) + _DOUBLE.pack(value)


def _members(members: Mapping[str, Value]) -> bytes:
    return b"".join(_sized(name) + _serialize(value) for name, value in members.items())


def _sized(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2) + encoded
