"""Dropout that a CPU can afford: PyTorch's draws a number for each value, which takes twice as long as a
product with a 128 × 128 matrix.
"""

import math

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

FEW = 4096  # values; below, PyTorch's own is as fast


def dropout(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Each value is 0 with a probability and else divided by what is left of 1."""
    if not training or probability == 0 or x.device.type != "cpu" or x.numel() < FEW:
        return F.dropout(x, probability, training)
    return x * mask_like(x, probability)


def mask_like(x: Tensor, probability: float) -> Tensor:
    """What dropout multiplies with: 0 with a probability, else 1 / (1 − p).

    Of many values the places of the zeros are drawn, with replacement, so many that a value stays with
    (1 − 1/n)^k = 1 − p: n values, k draws. Every mask has the same k, so the zeros of one tensor vary a bit
    less in number than independent ones; nothing else differs.
    """
    count = x.numel()
    if count < FEW:
        return F.dropout(torch.ones_like(x), probability)
    draws = round(math.log1p(-probability) / math.log1p(-1 / count))
    mask = torch.full((count,), 1 / (1 - probability), dtype=x.dtype)
    mask[torch.randint(count, (draws,))] = 0
    return mask.view(x.shape)


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability, self.training)
