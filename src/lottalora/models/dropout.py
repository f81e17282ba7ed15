"""Dropout that is cheap on a CPU: PyTorch's draws one number per value, which takes twice as long as a
product with a 128 × 128 matrix.
"""

import math

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

FEW = 4096  # values; below, PyTorch's own is as fast


def dropout(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Set each value to 0 with probability p, and divide the others by 1 − p.

    On a CPU a byte is drawn for each value where p is a whole number of 256ths, such as 1/2. Elsewhere the
    places of the zeros are drawn instead, with replacement, so many that a value stays with (1 − 1/n)^k =
    1 − p: n values, k draws. Every mask has the same k, so the zeros of one tensor vary a bit less in number
    than independent ones; nothing else differs.
    """
    if not training or probability == 0 or x.device.type != "cpu" or x.numel() < FEW:
        return F.dropout(x, probability, training)
    if (256 * probability).is_integer():
        kept = kept_by_bytes(x, round(256 * probability))
        return x * kept.to(x.dtype).mul_(1 / (1 - probability))
    count = x.numel()
    draws = round(math.log1p(-probability) / math.log1p(-1 / count))
    mask = torch.full((count,), 1 / (1 - probability), dtype=x.dtype)
    mask[torch.randint(count, (draws,))] = 0
    return x * mask.view(x.shape)


def kept_by_bytes(x: Tensor, zeros: int) -> Tensor:
    """True, in the shape of x, with a probability of 1 − zeros / 256: eight bytes a draw."""
    words = torch.empty(-(-x.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
    return words.view(torch.uint8)[: x.numel()].view(x.shape) >= zeros


class Dropout(nn.Module):
    """`dropout` as a module."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.probability, self.training)
