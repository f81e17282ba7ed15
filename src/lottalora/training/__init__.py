"""Fit a task, keep its checkpoints, redraw its scaffold between epochs."""
