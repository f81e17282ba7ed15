"""Batches of examples held in memory: order, windows, tokens, graphs, augmentation."""
