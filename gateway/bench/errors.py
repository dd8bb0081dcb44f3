"""Why a benchmark came to no result."""


class BenchError(Exception):
    """The message is for the person who started it."""

    code = "bench_failed"
