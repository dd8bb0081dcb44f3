"""Random mutations of well-formed input; the same seed gives the same inputs."""

import random
import time
from collections.abc import Sequence

from fuzz.targets import Target

MAX_BYTES = 64 * 1024
_INTERESTING = (0, 1, 0x0A, 0x0D, 0x24, 0x7F, 0x80, 0xFF)


def mutate(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """Up to eight changes: bytes replaced, removed, repeated or inserted, or a part of another input."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        start = chance.randint(0, len(changed))
        length = min(chance.choice((1, 1, 2, 4, 16, 256)), len(changed) - start)
        match chance.randrange(5):
            case 0:
                new = bytes(chance.choice(_INTERESTING) for _ in range(length))
            case 1:
                new = chance.randbytes(length)
            case 2:
                new = b""
            case 3:
                new = bytes(changed[start : start + length]) * chance.randint(2, 4)
            case _:
                other = chance.choice(others) if others else b""
                cut = chance.randint(0, len(other))
                new = other[cut : cut + chance.randint(0, 64)]
        changed[start : start + length] = new
    return bytes(changed[:MAX_BYTES])


def first_failure(
    target: Target, seeds: Sequence[bytes], *, seed: int, seconds: float = 0, inputs: int = 0
) -> tuple[int, tuple[bytes, Exception] | None]:
    """Try the seeds, then mutations: so many `inputs`, and at least for `seconds`.

    Returns how many were tried, and the first that failed with its error.
    """
    chance = random.Random(seed)
    pool = [b"", *seeds]
    ends_at = time.monotonic() + seconds
    tried = 0
    while tried < len(pool) or tried < inputs or time.monotonic() < ends_at:
        data = pool[tried] if tried < len(pool) else mutate(chance.choice(pool), pool, chance)
        tried += 1
        try:
            target(data)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is what we look for)
            return tried, (data, error)
    return tried, None
