"""Every error that leaves the store.

StoreError
├── StoreBusyError         the queue of writes or the pool of readers is full        (retry: soon)
├── StoreUnavailableError  the database failed; nothing was acknowledged             (retry: later)
└── StoreVersionError      a newer version of Custos wrote this database             (retry: no)
"""


class StoreError(Exception):
    """Base of all. `code` is stable and safe to show; no message carries an address or a credential."""

    code = "store_error"


class StoreBusyError(StoreError):
    """More work is waiting than the store's bounds allow."""

    code = "store_busy"


class StoreUnavailableError(StoreError):
    """The database cannot be read or written: whatever needed it is refused (fail closed)."""

    code = "store_unavailable"


class StoreVersionError(StoreError):
    """The database's schema is unknown to this version of Custos."""

    code = "store_version"


def unavailable(error: Exception) -> StoreUnavailableError:
    """The cause without its text: a driver's message may carry the statement's values or the address."""
    cause = getattr(error, "orig", None) or error
    return StoreUnavailableError(f"the database failed: {type(cause).__name__}")
