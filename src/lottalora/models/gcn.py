"""A graph convolutional network on one whole graph.

Letters: N nodes, F features, E entries of Â, n nodes that are asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.models.dropout import Dropout

if TYPE_CHECKING:
    from lottalora.data.batches.graph import Nodes


class GCN(nn.Module):
    r"""Graph convolutions with batch normalisation, ReLU and dropout between them.

    .. math:: h_{i+1} = \hat A\, h_i W_i^T + b_i

    The convolutions are PyG's own and hold the weights. Their forward is replaced by one that gives the same
    and reads Â once: the first convolution is W (Â X), and Â X never changes. Their linear layers are called,
    so on a scaffold each takes the form that costs least for N nodes.

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
        h = first.lin(nodes.smoothed) + first.bias  # (N, F) → (N, hidden)
        for norm, conv in zip(self.norms, others, strict=True):
            h = self.dropout(F.relu(norm(h), inplace=True))
            h = conv.lin(h)  # first the product, which for the last one is the narrower
            h = nodes.adjacency.smooth(h).add_(conv.bias)
        return h[nodes.chosen]  # (N, classes) → (n, classes)
