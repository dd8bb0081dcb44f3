"""The relay worker carries every picture: nothing in it may block its event loop."""

from collections.abc import Iterator

import pytest
from blockbuster import blockbuster_ctx


@pytest.fixture(autouse=True)
def no_blocking_calls() -> Iterator[None]:
    """A blocking call from the worker or the media plane fails its test."""
    with blockbuster_ctx(["gateway.relay", "streams"]):
        yield
