"""Writing β W_seed + s B A into plain weights, and taking it out again."""
