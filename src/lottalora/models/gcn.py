"""A graph convolutional network on one whole graph.

Letters: N nodes, F features, E entries of Â, n nodes that are asked for.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch import nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from lottalora.models.dropout import Dropout


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


def smooth(x: Tensor, adjacency: Adjacency) -> Tensor:
    """Â x, (N, *) → (N, *)."""
    return Smoothing.apply(x, *adjacency)


class GCN(nn.Module):
    r"""Graph convolutions with batch normalisation, ReLU and dropout between them.

    .. math:: h_{i+1} = \hat A\, h_i W_i^T + b_i

    The convolutions are PyG's own and hold the weights. Their forward is replaced by one that gives the same
    and reads Â once: the first convolution is W (Â X), and Â X never changes. On a scaffold W is composed,
    once for all N nodes, which costs less than its two paths apart.

    Args:
        in_shape: (F,).
        out_dim: number of classes.
        hidden: width of the inner layers.
        layers: number of convolutions, 2 or more.
        dropout: probability, behind each inner layer.

    Source: Kipf & Welling 2017, https://arxiv.org/abs/1609.02907; OGB's recipe,
    https://github.com/snap-stanford/ogb, examples/nodeproppred/arxiv/gnn.py
    """

    def __init__(
        self, in_shape: Sequence[int], out_dim: int, *, hidden: int, layers: int, dropout: float
    ) -> None:
        from torch_geometric.nn import GCNConv

        super().__init__()
        widths = [*in_shape, *[hidden] * (layers - 1), out_dim]
        self.convs = nn.ModuleList(
            GCNConv(width_in, width) for width_in, width in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers - 1))
        self.dropout = Dropout(dropout)

    def forward(self, nodes: Nodes) -> Tensor:
        first, *others = self.convs
        h = F.linear(nodes.smoothed, first.lin.weight, first.bias)  # (N, F) → (N, hidden)
        for norm, conv in zip(self.norms, others, strict=True):
            h = self.dropout(F.relu(norm(h), inplace=True))
            h = F.linear(h, conv.lin.weight)  # first the product, which for the last one is the narrower
            h = smooth(h, nodes.adjacency).add_(conv.bias)
        return h[nodes.chosen]  # (N, classes) → (n, classes)
