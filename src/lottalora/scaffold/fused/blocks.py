"""Rows in blocks that stay in a processor's cache while several products read them."""

import torch
from torch import Tensor

ALL = slice(None)
VALUES = 2**18  # of x and h in one block; measured on an AMD EPYC core with 512 KiB of cache of its own
HALF_VALUES = 2**20  # in half precision, whose products are so fast that calls weigh more; measured there
FEWEST = 256  # rows, below which a wide product slows down


def blocks_of(x: Tensor, out: int) -> list[slice]:
    """The blocks of the rows of x, (n, in), on a CPU; elsewhere, and for few rows, [ALL].

    They follow from shapes and dtype alone, since masks are drawn block by block.

    Args:
        x: (n, in).
        out: the number of outputs.
    """
    n, columns = x.shape
    rows = rows_of_a_block(out, columns, half=x.dtype.itemsize < 4)
    if n < 2 * rows or x.device.type != "cpu":
        return [ALL]
    return [slice(first, first + rows) for first in range(0, n, rows)]


def rows_of_a_block(out: int, columns: int, *, half: bool = False) -> int:
    """How many rows a block has, in half precision if asked; fewer than twice as many are one block."""
    return max(FEWEST, (HALF_VALUES if half else VALUES) // max(columns + out, 1))


def with_axes_of(x: Tensor, h: Tensor) -> Tensor:
    """h, (n, out), with the leading axes of x, (*, in) → (*, out).

    No view of h to autograd, which refuses to write into views that a Function returns: an activation with
    `inplace=True` may write into h, as into that of nn.Linear.
    """
    if x.dim() == 2:
        return h
    made: Tensor = torch.ops.aten._unsafe_view.default(h, (*x.shape[:-1], h.shape[1]))
    return made
