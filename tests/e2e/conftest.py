"""The demonstration, started once for all end-to-end tests that look at it."""

from collections.abc import Iterator

import pytest
from support.demos import Demo, interrupt, start_demo


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    running = start_demo(tmp_path_factory.mktemp("demo") / "data")
    try:
        yield running
    finally:
        interrupt(running)
