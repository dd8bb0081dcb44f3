"""China's codes: what can be, and what cannot, with the part that is wrong."""

import pytest

from gateway.national_codes import NationalCodeError, Network, check_civil_code, check_device_code

EXTRANET, PRIVATE, INTERNET = Network


@pytest.mark.parametrize(
    "code", ["44", "4401", "440106", "44010601", "440106001", "440106001002", "440000", "441900003", "810000"]
)
def test_divisions(code):
    check_civil_code(code)


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("", "digits"),
        ("4", "digits"),
        ("440", "digits"),
        ("4401060", "digits"),
        ("44010600100", "digits"),
        ("4401060010020", "digits"),
        ("４４", "digits"),
        ("44\n", "digits"),
        ("99", "99 is no province"),
        ("000000", "00 is no province"),
        ("440006", "without its city"),
    ],
)
def test_what_is_no_division(code, why):
    with pytest.raises(NationalCodeError, match=why):
        check_civil_code(code)


@pytest.mark.parametrize(
    ("code", "network"),
    [
        ("44010600001310000001", None),
        ("44010600001320000001", PRIVATE),
        ("44010600081321000001", PRIVATE),
        ("44010600001326000001", EXTRANET),
        ("44010600001327000001", INTERNET),
        ("44010600001328000001", INTERNET),
        ("44010600001325000001", EXTRANET),  # the city's own meaning
        ("44000000001180000001", PRIVATE),  # a recorder of the province
    ],
)
def test_devices(code, network):
    check_device_code(code, network)


@pytest.mark.parametrize(
    ("code", "network", "why"),
    [
        ("4401060000132000000", None, "20 digits"),
        ("440106000013200000012", None, "20 digits"),
        ("4401060000132000000a", None, "20 digits"),
        ("99010600001320000001", None, "digits 1 to 8: 99"),
        ("44000600001320000001", None, "digits 1 to 8: .* city"),
        ("44010600002000000001", None, "digits 11 to 13: 200"),
        ("44010600002150000001", None, "digits 11 to 13: 215"),
        ("44010600001100000001", None, "digits 11 to 13: 110"),
        ("44010600001326000001", PRIVATE, "digit 14: 6 means government-extranet"),
        ("44010600001320000001", EXTRANET, "digit 14: 0 means video-private-network"),
    ],
)
def test_what_is_no_device(code, network, why):
    with pytest.raises(NationalCodeError, match=why):
        check_device_code(code, network)
