"""The mask of adapter dropout on the fused path: drawn again from its seed, never kept."""

import math

import torch
from torch import Tensor

FEW = 4096  # values; below, a number for each value is as fast


def zero_some_(x: Tensor, probability: float, seed: int) -> Tensor:
    """Zero values of x in place, at places that the seed alone decides: the backward pass draws them again.

    On a CPU the places of the zeros are drawn, with replacement, so many that a value stays with probability
    (1 − 1/n)^k = 1 − p: n values, k draws. Every mask has the same k, so the number of zeros varies a bit
    less than with independent draws; nothing else differs.

    Args:
        x: contiguous, of any shape.
        probability: p, of a zero.
        seed: of the places.
    """
    generator = torch.Generator(x.device).manual_seed(seed)
    if x.device.type != "cpu" or x.numel() < FEW:
        kept = torch.empty(x.shape, device=x.device).bernoulli_(1 - probability, generator=generator)
        return x.mul_(kept.to(x.dtype))
    count = x.numel()
    draws = round(math.log1p(-probability) / math.log1p(-1 / count))
    x.view(-1)[torch.randint(count, (draws,), generator=generator)] = 0
    return x
