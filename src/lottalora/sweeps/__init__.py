"""Sweeps: unique cells of a command line, who runs which, what failed, what is left and what it costs."""
