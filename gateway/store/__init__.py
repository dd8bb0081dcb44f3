"""Everything durable: the tables, their migrations, and one unit of work that writes them with the ledger.

SQL of the other modules of `gateway` uses `schema`'s tables, inside `Store.read` or `Store.run`.
"""

from gateway.store.errors import StoreBusyError, StoreError, StoreUnavailableError, StoreVersionError
from gateway.store.identifiers import fold_username, new_id, now_us
from gateway.store.store import Store, StoreSettings
from gateway.store.unit import Unit, read_revision

__all__ = [
    "Store",
    "StoreBusyError",
    "StoreError",
    "StoreSettings",
    "StoreUnavailableError",
    "StoreVersionError",
    "Unit",
    "fold_username",
    "new_id",
    "now_us",
    "read_revision",
]
