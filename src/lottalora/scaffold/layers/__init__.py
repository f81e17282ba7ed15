"""The modules that stand on a W_seed: layers, composed weights, stacks, and the record of their scaffold."""
