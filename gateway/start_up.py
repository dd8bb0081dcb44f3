"""Control's start: pictures go on before the policy is in memory, and nothing is decided.

A million cameras take longer to read than the workers' lease lasts. Each lease says under which revision of
the policy every session of the worker was decided. As long as the database still has that revision, what was
decided then stands: the lease of such a worker is renewed while the facts are read. Any other worker waits.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.problems import Problem

RETRY_AFTER_SECONDS = 1


class StartUp:
    """Whether control decides yet, and whose pictures may go on until it does."""

    def __init__(self, stored_revision: int) -> None:
        """`stored_revision`: the database's, when this control opened it."""
        self._stored_revision = stored_revision
        self._is_over = False

    @property
    def is_over(self) -> bool:
        return self._is_over

    def finish(self) -> None:
        """Every fact is in memory: decisions begin."""
        self._is_over = True

    def require_over(self) -> None:
        """Raises Problem `starting`: what needs a decision has to come again."""
        if not self._is_over:
            raise Problem("starting", headers={"Retry-After": str(RETRY_AFTER_SECONDS)})

    def may_renew(self, heard_revision: int | None) -> bool:
        """Whether to renew the lease of a worker that was last told this revision; None: none yet."""
        return self._is_over or heard_revision == self._stored_revision


@contextmanager
def collector_resting() -> Iterator[None]:
    """Let the cyclic garbage collector sleep in the block, and never again visit what is there at its end.

    Each full collection would visit all facts loaded so far; over a million cameras one stops the loop
    for 0.2 s. For a whole process, since the collector is one.
    """
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()
