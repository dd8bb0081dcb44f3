"""The parsers of bytes from the network, as fuzz targets: name -> function of bytes.

A target returns, whatever the bytes are: it catches its parser's own error and nothing else. Add yours in a
module beside this one (`fuzz_<what>.py`) with the decorator `@target(name, *seeds)`; `load` finds it.
"""

import importlib
from collections.abc import Callable
from pathlib import Path

Target = Callable[[bytes], None]

TARGETS: dict[str, Target] = {}
SEEDS: dict[str, tuple[bytes, ...]] = {}
"""Some well-formed input for each target: what random mutations start from."""


def target(name: str, *seeds: bytes) -> Callable[[Target], Target]:
    """Register a target under its name."""

    def register(function: Target) -> Target:
        if name in TARGETS:
            raise ValueError(f"two fuzz targets are called {name}")
        TARGETS[name], SEEDS[name] = function, seeds
        return function

    return register


def load() -> dict[str, Target]:
    """Every target of every module beside this one."""
    for path in sorted(Path(__file__).parent.glob("fuzz_*.py")):
        importlib.import_module(f"fuzz.{path.stem}")
    return TARGETS
