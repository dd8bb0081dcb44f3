"""Everything durable: the tables, their migrations, and one unit of work that writes them with the ledger.

SQL of the other modules of `gateway` uses `schema`'s tables, inside `Store.read` or `Store.run`.
"""
