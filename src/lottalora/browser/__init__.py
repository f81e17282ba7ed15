"""A trained network as one HTML page: JavaScript draws its weights from the seed, checks and runs them."""
