"""Which form of a layer is cheapest: counted from its shapes, never timed, so that it is the same everywhere.

Letters: n rows of x, r rank.
"""

from enum import StrEnum
from functools import cache

import torch

from lottalora.scaffold.fused.blocks import rows_of_a_block

SKINNY = 3.0  # a product with a side of r runs at a third of the rate of a wide one: measured, AVX2, float32
PASS = 24.0  # wide operations in the time in which one number is read or written
CALLS = 2e7  # wide operations in the time that a function in Python takes over a graph of PyTorch's: measured
STRAIGHT = 2e6  # the same for `straight`, which has no more calls than the graph has


class Form(StrEnum):
    """How h = β W x + s B A x + b is computed."""

    REFERENCE = "reference"  # as the equation is written, in `layers.layer`
    ADD = "add"  # the wide product is added to the low-rank one, by PyTorch's own graph: for small layers
    ACCUMULATE = "accumulate"  # the wide product is accumulated onto the low-rank one, block by block
    COMPOSE = "compose"  # β W + s B A, then one product; backward as for ACCUMULATE
    MERGE = "merge"  # β W + s B A, and the gradient of that matrix
    STACK = "stack"  # with other layers that read the same x; see `layers.stack`


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
    costs = _costs(out, columns, rank, rows, first=first, straight=True)
    return min(costs, key=lambda form: costs[form])


@cache
def cheapest_stack(
    outs: tuple[int, ...], columns: int, rank: int, rows: int, *, dropout: bool
) -> Form | None:
    """ACCUMULATE or MERGE for layers that read the same x, or None where each is cheaper by itself.

    ACCUMULATE reads x once for all low-rank products, in the time of one layer; MERGE makes fewer calls.

    Args:
        outs: the rows of each W_seed.
        columns, rank, rows, dropout: as above.
    """
    if dropout:  # one mask takes the place of several; but few rows are faster through `straight`
        few = all(rows < 2 * rows_of_a_block(out, columns) for out in outs)
        return None if few else Form.ACCUMULATE
    alone, together = (
        [_costs(out, columns, rank, rows, first=False, straight=straight) for out in outs]
        for straight in (True, False)
    )
    shared = 2 * SKINNY * rank * 2 * columns * rows  # of x with A, and of u with x
    costs = {
        Form.MERGE: sum(each[Form.MERGE] for each in together),
        Form.ACCUMULATE: sum(each[Form.ACCUMULATE] for each in together) - (len(outs) - 1) * shared,
    }
    best = min(costs, key=lambda form: costs[form])
    return best if costs[best] <= sum(min(each.values()) for each in alone) else None


def _costs(out: int, columns: int, rank: int, rows: int, *, first: bool, straight: bool) -> dict[Form, float]:
    """What each form of one layer costs beside what all of them do; few rows may go through `straight`."""
    update = 2 * SKINNY * rank * out + PASS * out  # an output row of B t; a column of B A costs the same
    skinny = 2 * SKINNY * rank * (2 * columns + 2 * out) + 2 * PASS * (out if first else columns)
    whole = columns * update
    straight = straight and rows < 2 * rows_of_a_block(out, columns)
    costs = {
        Form.MERGE: whole + 2 * rows * out * columns + columns * 2 * update,
        Form.ADD: rows * (update + skinny) + rows * PASS * (6 * out + (2 if first else 4) * columns),
        Form.ACCUMULATE: rows * (update + skinny) + (STRAIGHT if straight else CALLS),
    }
    if not first:
        costs[Form.COMPOSE] = whole + rows * skinny + CALLS
    return costs
