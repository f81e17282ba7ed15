"""The mask of adapter dropout on the fused path: drawn again from its seed, never kept."""

import math
from collections.abc import Iterator
from collections.abc import Sequence

import torch
from torch import Tensor

FEW = 4096  # values; below, a number for each value is as fast


def draw_masks(
    like: Tensor, blocks: Sequence[slice], probability: float, seed: int
) -> Iterator[Tensor | None]:
    """The masks of the blocks of a tensor, decided by the seed alone; None for each without dropout.

    On a CPU a mask is the places of its zeros, drawn with replacement, so many that a value stays with
    probability (1 − 1/n)^k = 1 − p: n values, k draws. Every mask has the same k, so the number of zeros
    varies a bit less than with independent draws; nothing else differs. Elsewhere, and for few values, it is
    a 0 or a 1 for each.

    Args:
        like: (rows, in); its values do not matter.
        blocks: of its rows.
        probability: p, of a zero.
        seed: of all masks.
    """
    if not probability:
        yield from (None for _ in blocks)
        return
    generator = torch.Generator(like.device).manual_seed(seed)
    for rows in blocks:
        yield _draw(like[rows], probability, generator)


def _draw(like: Tensor, probability: float, generator: torch.Generator) -> Tensor:
    count = like.numel()
    if like.device.type != "cpu" or count < FEW:
        kept = torch.empty(like.shape, device=like.device).bernoulli_(1 - probability, generator=generator)
        return kept.to(like.dtype)
    draws = round(math.log1p(-probability) / math.log1p(-1 / count))
    return torch.randint(count, (draws,), generator=generator, device=like.device)


def joined(masks: Sequence[Tensor | None], blocks: Sequence[slice], like: Tensor) -> Tensor | None:
    """One mask for all rows of `like`, (n, in), that zeroes what the masks of its blocks do."""
    if len(masks) == 1:
        return masks[0]
    given = [mask for mask in masks if mask is not None]
    if not given:
        return None
    whole = like.new_ones(like.shape)
    for rows, mask in zip(blocks, given, strict=True):
        zero_some_(whole[rows], mask)
    return whole


def dropped(x: Tensor, mask: Tensor | None) -> Tensor:
    """m ⊙ x as a contiguous tensor of its own, whatever way x lies in memory; x itself without a mask."""
    return x if mask is None else zero_some_(x.clone(memory_format=torch.contiguous_format), mask)


def zero_some_(x: Tensor, mask: Tensor) -> Tensor:
    """Zero the values of x, contiguous, that its mask leaves out, in place.

    Filling by index is four times as fast as assigning to x[mask].
    """
    if mask.dtype is torch.int64:
        x.view(-1).index_fill_(0, mask, 0)
        return x
    return x.mul_(mask)
