"""Dropout, fast on a CPU: PyTorch's draws a random number for each value, which costs more than the layer it serves."""

import math

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

FEW = 4096  # values; below, the draws are cheap, and PyTorch's own are taken


def dropout(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Each value is 0 with a probability and else divided by what is left of 1."""
    if not training or probability == 0 or x.device.type != "cpu" or x.numel() < FEW:
        return F.dropout(x, probability, training)
    return x * mask_like(x, probability)


def mask_like(x: Tensor, probability: float) -> Tensor:
    """What dropout multiplies with: 0 with a probability, else 1 / (1 − p).

    The places of the zeros are drawn, with replacement, so many that a value stays with (1 − 1/n)^k = 1 − p: n
    values, k draws. Each mask has the same number of draws, so its zeros vary a little less in number than
    independent ones; nothing else differs.
    """
    count = x.numel()
    mask = torch.full((count,), 1 / (1 - probability), dtype=x.dtype, device=x.device)
    draws = round(math.log1p(-probability) / math.log1p(-1 / max(count, 2)))
    mask[torch.randint(count, (draws,), device=x.device)] = 0
    return mask.view(x.shape)


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability, self.training)
