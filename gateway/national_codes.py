"""China's codes: administrative divisions (GB/T 2260, GB/T 10114) and devices (GB/T 28181-2022 annex E)."""

import re
from enum import StrEnum

_PROVINCES = frozenset(
    str(number)
    for first, last in ((11, 15), (21, 23), (31, 37), (41, 46), (50, 54), (61, 65), (71, 71), (81, 82))
    for number in range(first, last + 1)
)
"""GB/T 2260-2007 table 1; the two digits that every code begins with."""

_CIVIL_CODE = re.compile(r"[0-9]{2}(?:[0-9]{2}){0,3}|[0-9]{9}|[0-9]{12}", re.ASCII)
_DEVICE_CODE = re.compile(r"[0-9]{20}", re.ASCII)
_CENTRE_DIGITS = 8
_TYPE = slice(10, 13)
_NETWORK_DIGIT = 13
_FIRST_DEVICE_TYPE, _LAST_DEVICE_TYPE = 111, 199
"""Recorders and encoders (111 to 130), cameras (131, 132) and other devices that stand outside; from 200 on
platforms, groups and people."""


class Network(StrEnum):
    """The network in which a camera stands."""

    GOVERNMENT_EXTRANET = "government-extranet"
    VIDEO_PRIVATE_NETWORK = "video-private-network"
    INTERNET_PRIVATE_LINE = "internet-private-line"


_NETWORK_OF_DIGIT = {
    "0": Network.VIDEO_PRIVATE_NETWORK,
    "1": Network.VIDEO_PRIVATE_NETWORK,
    "6": Network.GOVERNMENT_EXTRANET,
    "7": Network.INTERNET_PRIVATE_LINE,
    "8": Network.INTERNET_PRIVATE_LINE,
}
"""GB/T 28181-2022 annex E; the other digits are left to each city."""


class NationalCodeError(ValueError):
    """A code that cannot be; the message says which part."""


def check_civil_code(code: str) -> None:
    """Check a division's code: 2 digits province, 4 city, 6 district, 8 or 9 street, 12 neighbourhood.

    Zeros may fill it up. Raises NationalCodeError.
    """
    if _CIVIL_CODE.fullmatch(code) is None:
        raise NationalCodeError("2, 4, 6, 8, 9 or 12 digits (GB/T 2260)")
    if code[:2] not in _PROVINCES:
        raise NationalCodeError(f"{code[:2]} is no province (GB/T 2260)")
    if code[2:4] == "00" and code[4:].strip("0"):
        raise NationalCodeError("a district without its city: digits 3 and 4 are zero (GB/T 2260)")


def check_device_code(code: str, network: str | None) -> None:
    """Check a device's code (GB/T 28181-2022 annex E), also against the `Network` where it is said to be.

    Of its 20 digits 8 are of the centre (the division's code), 2 of the trade, 3 of the type, 1 of the
    network, 6 a serial number. Raises NationalCodeError.
    """
    if _DEVICE_CODE.fullmatch(code) is None:
        raise NationalCodeError("20 digits (GB/T 28181-2022 annex E)")
    try:
        check_civil_code(code[:_CENTRE_DIGITS])
    except NationalCodeError as error:
        raise NationalCodeError(f"digits 1 to {_CENTRE_DIGITS}: {error}") from None
    if not _FIRST_DEVICE_TYPE <= int(code[_TYPE]) <= _LAST_DEVICE_TYPE:
        raise NationalCodeError(f"digits 11 to 13: {code[_TYPE]} is no type of a device that has pictures")
    of_code = _NETWORK_OF_DIGIT.get(code[_NETWORK_DIGIT])
    if network is not None and of_code is not None and of_code != network:
        raise NationalCodeError(f"digit 14: {code[_NETWORK_DIGIT]} means {of_code}, not {network}")
