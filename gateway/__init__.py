"""The edge: all that a principal can reach, and the composition root."""
