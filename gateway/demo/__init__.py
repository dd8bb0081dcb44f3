"""`custos demo`: a small city on one machine, with simulated cameras and real everything else."""
