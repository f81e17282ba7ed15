"""Data sets: one module per kind, each of which owns its split, its metric and its sizes."""
