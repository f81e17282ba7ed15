"""What is done with a model on its scaffold: another seed, other adapters, other ranks, several processes."""
