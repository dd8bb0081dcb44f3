"""The decision: who may do what with which camera. Knows no HTTP, no SQL and no media."""
