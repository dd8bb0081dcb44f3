"""`custos bench`: a node of its own under load, measured from outside as any other server would be."""
