"""Loggers and progress bars. Results are read from rows, never from a logger."""
