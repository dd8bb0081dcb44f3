"""Fuzz for as long as you like: every target in turn, with random mutations of its seeds.

    PYTHONPATH=.:tests .venv/bin/python -m fuzz [SECONDS_PER_TARGET [TARGET ...]]

Stops at the first input that a target does not survive, and prints it as Python bytes.
"""

import secrets
import sys

from fuzz.mutation import first_failure
from fuzz.targets import SEEDS, load


def main(seconds: float, names: list[str]) -> int:
    targets = load()
    for name in names or sorted(targets):
        seed = secrets.randbits(32)
        tried, failure = first_failure(targets[name], SEEDS[name], seed=seed, seconds=seconds)
        print(f"{name}: {tried} inputs, seed {seed}")  # noqa: T201
        if failure is not None:
            data, error = failure
            print(f"failed with {error!r} on {data!r}")  # noqa: T201
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 60.0, sys.argv[2:]))
