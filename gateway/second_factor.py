"""Second factors: the codes of an authenticator app (RFC 6238), and recovery codes for when it is lost.

The secret is kept encrypted; recovery codes have 80 random bits, so that their plain hash is safe to keep.
"""

import hashlib
import re
import secrets
from datetime import datetime
from enum import StrEnum

import pyotp
import segno
import sqlalchemy as sa
from pyotp.exceptions import OTPVerificationError

from gateway.keys import InstallationKeys
from gateway.store.schema import recovery_codes, users
from gateway.store.unit import Unit

RECOVERY_CODES = 10
MAX_CODE_LENGTH = 64
DRIFT_STEPS = 1
"""How many steps of 30 s a device's clock may be off (RFC 6238 §6)."""
_ISSUER = "Custos"
_TOTP = re.compile(r"[0-9]{6}")
_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32: five bits a character, none of which is read as another."""
_READ_AS = str.maketrans({"o": "0", "i": "1", "l": "1", "-": "", " ": ""})
_GROUPS, _GROUP_CHARS = 4, 4


class Factor(StrEnum):
    """What was proven beside the password."""

    NONE = "none"
    TOTP = "totp"
    RECOVERY_CODE = "recovery_code"


def new_secret() -> str:
    """160 random bits in base 32 (RFC 4226 §4, R6)."""
    return pyotp.random_base32()


def provisioning_uri(secret: str, username: str) -> str:
    """What an authenticator app reads: `otpauth://totp/...` (Key Uri Format)."""
    return pyotp.TOTP(secret).provisioning_uri(name=username, issuer_name=_ISSUER)


def qr_code(uri: str) -> str:
    """A data URI of an SVG: the secret goes to no other server to be drawn."""
    return segno.make_qr(uri).svg_data_uri(scale=4)


def step_of(secret: str, code: str, at: datetime, later_than: int | None) -> int | None:
    """The time step that a code belongs to; None if it is wrong, or not later than the last one used."""
    given = code.replace(" ", "")
    if not _TOTP.fullmatch(given):
        return None
    try:
        step = pyotp.TOTP(secret).verify_and_get_timecode(given, for_time=at, valid_window=DRIFT_STEPS)
    except OTPVerificationError:
        return None
    return step if later_than is None or step > later_than else None


def new_recovery_codes() -> list[str]:
    return [
        "-".join("".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS))
        for _ in range(RECOVERY_CODES)
    ]


def recovery_code_hash(code: str) -> bytes:
    """However it was typed: in capitals, without hyphens, with an O for a zero."""
    return hashlib.sha256(code.lower().translate(_READ_AS).encode()).digest()


async def use_code(
    work: Unit, keys: InstallationKeys, user_id: str, code: str, at: datetime
) -> Factor | None:
    """Take a code of the user's confirmed second factor: once, never again. None if it is wrong.

    Raises KeyFileError if the secret was sealed with another installation's key.
    """
    query = sa.select(users.c.totp_secret, users.c.totp_last_step).where(
        users.c.id == user_id, users.c.totp_enabled_at.is_not(None)
    )
    row = (await work.conn.execute(query)).one_or_none()
    if row is None or row.totp_secret is None:
        return None
    step = step_of(keys.unseal_second_factor(user_id, row.totp_secret), code, at, row.totp_last_step)
    if step is not None:
        await work.conn.execute(sa.update(users).where(users.c.id == user_id).values(totp_last_step=step))
        return Factor.TOTP
    used = await work.conn.execute(
        sa.delete(recovery_codes).where(
            recovery_codes.c.user_id == user_id, recovery_codes.c.code_hash == recovery_code_hash(code)
        )
    )
    return Factor.RECOVERY_CODE if used.rowcount == 1 else None


async def forget(work: Unit, user_id: str) -> None:
    """Remove a second factor, if there is one, confirmed or not."""
    await work.conn.execute(
        sa.update(users)
        .where(users.c.id == user_id)
        .values(totp_secret=None, totp_last_step=None, totp_enabled_at=None)
    )
    await work.conn.execute(sa.delete(recovery_codes).where(recovery_codes.c.user_id == user_id))
