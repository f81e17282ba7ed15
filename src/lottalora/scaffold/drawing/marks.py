"""The mark of a drawn W_seed: an attribute of the tensor that says what was drawn, and into which memory.

Whatever replaces the tensor loses the mark; whatever replaces its memory (the setter of `data`) makes the
mark untrue. What is written through `W_seed.data` alone is not counted by PyTorch, and `verify` finds it.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from lottalora.scaffold.drawing.draw import Source


class Mark(NamedTuple):
    """The mark of a drawn W_seed.

    Args:
        source: the source it was drawn from.
        dtype: its dtype.
        address: that of its memory; 0 for a tensor without memory of its own.
        writes: how often it had been written to when it was marked; None if it was written to since the draw.
    """

    source: Source
    dtype: torch.dtype
    address: int
    writes: int | None


def mark(W_seed: Tensor, source: Source, *, untouched: bool = True) -> Tensor:
    """Mark a tensor as drawn, and return it.

    Args:
        W_seed: the tensor, (out, in) or some of its rows.
        source: the source it was drawn from.
        untouched: whether nothing was written to it since it was drawn.
    """
    made = Mark(source, W_seed.dtype, address(W_seed), writes(W_seed) if untouched else None)
    W_seed.drawn = made  # type: ignore[attr-defined]  # the mark is an attribute of the tensor
    return W_seed


def mark_of(W_seed: Tensor) -> Mark | None:
    """The mark of a drawn W_seed, (out, in); None without one, or if it has other memory or another dtype."""
    found: Mark | None = getattr(W_seed, "drawn", None)
    if found is None or found.dtype is not W_seed.dtype or found.address != address(W_seed):
        return None
    return found


def is_untouched(W_seed: Tensor) -> bool:
    """Whether a W_seed, (out, in), is marked as drawn and nothing was written to it since."""
    drawn = mark_of(W_seed)
    return drawn is not None and drawn.writes is not None and drawn.writes == writes(W_seed)


def address(W: Tensor) -> int:
    """Where the memory of a tensor is; 0 for a subclass, which may have none."""
    return W.data_ptr() if type(W) is Tensor else 0


def writes(W: Tensor) -> int | None:
    """How often a tensor was written to; None in inference mode, where PyTorch does not count."""
    return None if W.is_inference() else W._version
