"""Graphs as batches: a normalised adjacency matrix, one whole graph, molecules.

Letters: N nodes, F features, E entries of Â, n nodes that are scored; M bonds, both ways, G molecules.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.autograd.function import once_differentiable
from torch.nn import functional as F


class Adjacency(NamedTuple):
    r"""Â by rows: row i has the columns and weights from `begins[i]` to `begins[i + 1]`.

    .. math:: \hat A = D^{-1/2} (A + I) D^{-1/2}

    A has a 1 for each edge, in both directions; D are the row sums of A + I. Â is symmetric.
    """

    begins: Tensor  # (N + 1,)
    columns: Tensor  # (E,)
    weights: Tensor  # (E,)

    @classmethod
    def of(cls, edges: Tensor, count: int) -> "Adjacency":
        """Of `count` nodes with edges (2, any); an edge named twice, or both ways, counts once."""
        loops = torch.arange(count).expand(2, -1)
        rows, columns = torch.cat([edges, edges.flip(0), loops], dim=1)
        entries = (rows * count + columns).unique()  # sorted
        rows, columns = entries // count, entries % count
        degrees = rows.bincount(minlength=count)
        weights = (degrees[rows] * degrees[columns]).double().rsqrt().float()
        return cls(F.pad(degrees.cumsum(0), (1, 0)), columns, weights)

    def smooth(self, x: Tensor) -> Tensor:
        """Â x, (N, *) → (N, *)."""
        return Smoothing.apply(x, *self)


class Nodes(NamedTuple):
    """A whole graph and which of its nodes are asked for."""

    smoothed: Tensor  # Â X, (N, F)
    adjacency: Adjacency
    chosen: Tensor  # (n,)


class Smoothing(Function):
    """Â x. Since Â is symmetric, the gradient is Â dy."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, begins: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
        ctx.save_for_backward(begins, columns, weights)
        return summed(x, begins, columns, weights)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, dy: Tensor) -> tuple[Tensor | None, ...]:
        return summed(dy.contiguous(), *ctx.saved_tensors), None, None, None


def summed(x: Tensor, begins: Tensor, columns: Tensor, weights: Tensor) -> Tensor:
    """The product with a sparse matrix, as a weighted bag of rows: on a CPU twice as fast as torch.sparse."""
    return F.embedding_bag(
        columns, x, begins, per_sample_weights=weights.to(x.dtype), mode="sum", include_last_offset=True
    )


class Molecules(NamedTuple):
    """G molecules as one graph of N atoms."""

    atoms: Tensor  # features of the atoms, (N, 9)
    bonds: Tensor  # from atom to atom, each bond both ways, (2, M)
    kinds: Tensor  # features of the bonds, (M, 3)
    molecule: Tensor  # of each atom, (N,)
    sizes: Tensor  # atoms of each molecule, (G,)
