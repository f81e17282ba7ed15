"""How a model gets on a scaffold: its matrices are found, each is given a place, and all are converted."""
