"""Sweeps: from a command line to unique cells, who runs which, what failed, what is left and what it will cost."""
