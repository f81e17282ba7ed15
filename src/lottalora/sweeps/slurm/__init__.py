"""Sweeps on a Slurm cluster: one array of jobs, one run each."""
