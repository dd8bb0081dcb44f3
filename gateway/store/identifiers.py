"""Ids, names and times as the tables keep them."""

import time
import unicodedata
import uuid


def new_id() -> str:
    """A random (version 4) UUID as 32 hexadecimal digits."""
    return uuid.uuid4().hex


def fold_username(name: str) -> str:
    """The form under which user names are unique: NFKC, case-folded, surrounding space removed.

    Without it `admin`, `Admin` and the full-width `ａｄｍｉｎ` would be three accounts (and three throttles).
    """
    return unicodedata.normalize("NFKC", name).strip().casefold()


def now_us() -> int:
    """The wall clock: microseconds since the epoch, UTC."""
    return time.time_ns() // 1000
