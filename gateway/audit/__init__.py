"""The ledger's values and proofs: records, Merkle tree, signed heads, export and offline verification.

Only the store appends to it (`Unit.record`); nothing edits it.
"""

from gateway.audit.records import AuditEvent, AuditKind, Outcome

__all__ = ["AuditEvent", "AuditKind", "Outcome"]
