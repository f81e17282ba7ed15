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

    def part(self, nodes: int, count: int) -> "Nodes":
        """Return the first nodes with the entries of Â among them; the first `count` are asked for."""
        begins, columns, weights = self.adjacency
        rows = torch.arange(len(begins) - 1, device=begins.device).repeat_interleave(begins.diff())
        inside = (rows < nodes) & (columns < nodes)
        counts = rows[inside].bincount(minlength=nodes)
        block = Adjacency(F.pad(counts.cumsum(0), (1, 0)), columns[inside], weights[inside])
        return Nodes(self.smoothed[:nodes], block, torch.arange(min(count, nodes)))

    def check(self) -> None:
        """Raise ValueError if an index is outside: sums over Â do not look."""
        begins, columns, weights = self.adjacency
        nodes, entries = len(self.smoothed), len(columns)
        whole = all(index.dtype in (torch.int32, torch.int64) for index in (begins, columns, self.chosen))
        whole = whole and begins.shape == (nodes + 1,) and columns.shape == weights.shape == (entries,)
        whole = whole and begins[0] == 0 and begins[-1] == entries and bool((begins.diff() >= 0).all())
        if not whole or not all(((0 <= index) & (index < nodes)).all() for index in (columns, self.chosen)):
            raise ValueError("An index of the graph is outside it.")


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

    def part(self, count: int) -> "Molecules":
        """Return the first molecules."""
        atoms = int(self.sizes[:count].sum())  # a molecule's atoms stand together
        inside = self.bonds[0] < atoms
        return Molecules(
            self.atoms[:atoms],
            self.bonds[:, inside],
            self.kinds[inside],
            self.molecule[:atoms],
            self.sizes[:count],
        )
