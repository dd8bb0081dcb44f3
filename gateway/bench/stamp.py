"""The moment at which a simulated camera sent an access unit, inside the coded stream.

An SEI NAL unit, user_data_unregistered (ITU-T H.264 §D.1.7), with a UUID and the machine's monotonic clock in
ns as 16 hexadecimal digits. All ends of a benchmark run on one machine, hence on one clock.
"""

from typing import Final

STAMP_UUID: Final = bytes.fromhex("b7c15e2f9d484a63a61c73d9f5e80b42")
DIGITS: Final = 16

_SEI: Final = 6
_USER_DATA_UNREGISTERED: Final = 5
_TRAILING_BITS: Final = b"\x80"


def stamp_nal_unit() -> bytes:
    """With a place for the clock, to be overwritten at `find_stamp`."""
    size = len(STAMP_UUID) + DIGITS
    return bytes((_SEI, _USER_DATA_UNREGISTERED, size)) + STAMP_UUID + b"0" * DIGITS + _TRAILING_BITS


def find_stamp(data: bytes | bytearray, start: int = 0, end: int | None = None) -> int:
    """Where the digits of the next stamp begin, -1 if there is none."""
    found = data.find(STAMP_UUID, start, len(data) if end is None else end)
    return found + len(STAMP_UUID) if found >= 0 else -1


def serialize_stamp(sent_ns: int) -> bytes:
    return b"%016x" % sent_ns


def read_stamps(data: bytes | bytearray, size: int) -> list[int]:
    """The moments in ns of all stamps that are whole within the first `size` bytes."""
    moments = []
    position = find_stamp(data, 0, size)
    while 0 <= position <= size - DIGITS:
        moments.append(int(data[position : position + DIGITS], 16))
        position = find_stamp(data, position + DIGITS, size)
    return moments
