"""RFC 6238: which codes are right, and that each is right once."""

from datetime import UTC, datetime, timedelta

import pyotp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.second_factor import (
    RECOVERY_CODES,
    new_recovery_codes,
    new_secret,
    provisioning_uri,
    qr_code,
    recovery_code_hash,
    step_of,
)

RFC_SECRET = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ"
"""RFC 6238 appendix B: the ASCII bytes 12345678901234567890, in base 32."""


@pytest.mark.parametrize(
    ("seconds", "code", "step"),
    [
        (59, "287082", 0x1),
        (1111111109, "081804", 0x23523EC),
        (1111111111, "050471", 0x23523ED),
        (1234567890, "005924", 0x273EF07),
        (2000000000, "279037", 0x3F940AA),
        (20000000000, "353130", 0x27BC86AA),
    ],
)
def test_the_vectors_of_rfc_6238(seconds, code, step):
    """Appendix B, SHA-1, the last six of the eight digits."""
    assert step_of(RFC_SECRET, code, datetime.fromtimestamp(seconds, UTC), None) == step


def test_a_step_early_and_a_step_late_but_not_two():
    secret, now = new_secret(), datetime(2026, 1, 5, 8, 0, 10, tzinfo=UTC)
    right = [
        steps
        for steps in range(-3, 4)
        if step_of(secret, pyotp.TOTP(secret).at(now + timedelta(seconds=30 * steps)), now, None) is not None
    ]
    assert right == [-1, 0, 1]


def test_a_code_that_is_not_later_than_the_last_one_is_wrong():
    now = datetime(2026, 1, 5, 8, tzinfo=UTC)
    code = pyotp.TOTP(RFC_SECRET).at(now)
    step = step_of(RFC_SECRET, code, now, None)
    assert step_of(RFC_SECRET, code, now, step - 1) == step
    assert step_of(RFC_SECRET, code, now, step) is None
    assert step_of(RFC_SECRET, f" {code[:3]} {code[3:]}", now, None) == step


@given(st.text(max_size=64))
def test_no_other_text_is_a_code(text):
    now = datetime(2026, 1, 5, 8, tzinfo=UTC)
    right = {pyotp.TOTP(RFC_SECRET).at(now + timedelta(seconds=30 * steps)) for steps in (-1, 0, 1)}
    assert (step_of(RFC_SECRET, text, now, None) is not None) == (text.replace(" ", "") in right)


@given(st.text(max_size=64))
def test_whatever_is_given_as_a_recovery_code_has_a_hash(text):
    assert len(recovery_code_hash(text)) == 32


def test_recovery_codes_are_many_different_and_forgiving_to_type():
    codes = new_recovery_codes() + new_recovery_codes()
    assert len({recovery_code_hash(code) for code in codes}) == 2 * RECOVERY_CODES
    assert {len(code) for code in codes} == {19}
    assert recovery_code_hash("0123-4567-89AB-CDEF") == recovery_code_hash("oI23 4567 89ab cdef")


def test_the_uri_and_its_picture():
    uri = provisioning_uri("A" * 32, "张 伟@police")
    assert uri.startswith("otpauth://totp/Custos:%E5%BC%A0%20%E4%BC%9F%40police?secret=AAAA")
    assert "issuer=Custos" in uri
    assert pyotp.parse_uri(uri).secret == "A" * 32
    assert qr_code(uri).startswith("data:image/svg+xml")
