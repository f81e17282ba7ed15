"""Which form of a layer is cheapest: counted from its shapes, never timed, so that it is the same everywhere.

Letters: n rows of x, r rank.
"""

from enum import StrEnum
from functools import cache

import torch

from lottalora.scaffold.blocks import rows_of_a_block

SKINNY = 3.0  # a product with a side of r runs at a third of the rate of a wide one: measured, AVX2, float32
PASS = 24.0  # wide operations in the time in which one number is read or written
CALLS = 2e7  # wide operations in the time that a function in Python takes over a graph of PyTorch's: measured
STRAIGHT = 2e6  # the same for `straight`, which has no more calls than the graph has


class Form(StrEnum):
    """How h = β W x + s B A x + b is computed."""

    REFERENCE = "reference"  # as the equation is written, in `layers.py`
    ADD = "add"  # the wide product is added to the low-rank one, by PyTorch's own graph: for small layers
    ACCUMULATE = "accumulate"  # the wide product is accumulated onto the low-rank one, block by block
    COMPOSE = "compose"  # β W + s B A, then one product; backward as for ACCUMULATE
    MERGE = "merge"  # β W + s B A, and the gradient of that matrix


@cache
def cheapest(
    out: int, columns: int, rank: int, rows: int, *, dtype: torch.dtype, dropout: bool, first: bool
) -> Form:
    """The form with the lowest count for a step, forward and backward.

    In half precision nothing is composed: a matrix rounded to 8 bits loses a small B A.

    Args:
        out, columns: the shape of W_seed.
        rank: r; 0 for a layer without A and B.
        rows: n.
        dtype: in which the products are computed.
        dropout: whether the adapter path has another input than W_seed.
        first: whether x needs no gradient, and W x is kept for dβ.
    """
    if dropout or rank == 0 or dtype.itemsize < 4:
        return Form.ACCUMULATE
    update = 2 * SKINNY * rank * out + PASS * out  # an output row of B t; a column of B A costs the same
    skinny = 2 * SKINNY * rank * (2 * columns + 2 * out) + 2 * PASS * (out if first else columns)
    whole = columns * update
    straight = rows < 2 * rows_of_a_block(out, columns)
    costs = {
        Form.MERGE: whole + 2 * rows * out * columns + columns * 2 * update,
        Form.ADD: rows * (update + skinny) + rows * PASS * (6 * out + (2 if first else 4) * columns),
        Form.ACCUMULATE: rows * (update + skinny) + (STRAIGHT if straight else CALLS),
    }
    if not first:
        costs[Form.COMPOSE] = whole + rows * skinny + CALLS
    return min(costs, key=lambda form: costs[form])
