"""How examples in memory become batches: order, windows, tokens, graphs, augmentation."""
