"""From a seed to W_seed: the generator, the draw, the rows of one process, and the mark of a drawn tensor."""
