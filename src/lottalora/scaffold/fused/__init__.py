"""The products of a layer and their gradients, by fewer and cheaper operations; tensors in, tensors out."""
