"""A graph isomorphism network on molecules.

Letters: N atoms of all molecules of a batch, M bonds in both directions, G molecules.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.models.dropout import Dropout

if TYPE_CHECKING:
    from lottalora.data.batches.graph import Molecules


class GIN(nn.Module):
    r"""Five convolutions that see the bonds, batch normalisation, and a linear head on the mean atom.

    .. math:: h_i \leftarrow h_i + \mathrm{dropout}(\mathrm{relu}(\mathrm{norm}(\mathrm{MLP}(
              (1 + \epsilon)\, h_i + \sum_{j \to i} \mathrm{relu}(h_j + e_{ji})))))

    The convolutions are PyG's `GINEConv` and hold the weights; their sum over bonds is replaced by one that
    gives the same in fewer passes. Atoms and bonds are embedded by OGB's encoders, bonds once for all layers.
    What the paper leaves open is taken as in OGB's own example, and layers are counted from 0: all but the
    first have the skip, the last has no ReLU, ε starts at 0.

    Args:
        in_shape: (9,), features of an atom; their values are OGB's.
        out_dim: logits of a molecule.
        hidden: width of an atom's state; that of the MLPs is twice it.
        layers: number of convolutions.
        dropout: probability, behind each layer.

    Source: Hu et al. 2020, https://arxiv.org/abs/1905.12265; OGB's examples/graphproppred/mol.
    """

    def __init__(
        self, in_shape: Sequence[int], out_dim: int, *, hidden: int, layers: int, dropout: float
    ) -> None:
        from torch_geometric.nn import GINEConv

        with without_update_check():
            from ogb.graphproppred.mol_encoder import AtomEncoder
            from ogb.graphproppred.mol_encoder import BondEncoder

        super().__init__()
        self.atoms, self.bonds = AtomEncoder(hidden), BondEncoder(hidden)
        self.convs = nn.ModuleList(
            GINEConv(
                nn.Sequential(nn.Linear(hidden, 2 * hidden), nn.ReLU(), nn.Linear(2 * hidden, hidden)),
                train_eps=True,
            )
            for _ in range(layers)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(hidden) for _ in range(layers))
        self.dropout = Dropout(dropout)
        self.head = nn.Linear(hidden, out_dim)

    def forward(self, x: Molecules) -> Tensor:
        h, e = narrowed(self.atoms(x.atoms)), narrowed(self.bonds(x.kinds))  # (N, hidden), (M, hidden)
        for layer, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            passed = norm(conv.nn(gathered(h, e, x.bonds, conv.eps)))
            if layer < len(self.convs) - 1:
                passed = F.relu(passed, inplace=True)
            passed = self.dropout(passed)
            h = passed if layer == 0 else h + passed
        h = h.to(torch.promote_types(h.dtype, torch.float32))  # a sum of 200 atoms is too long for 8 bits
        pooled = h.new_zeros(len(x.sizes), h.shape[1]).index_add(0, x.molecule, h)
        return self.head(pooled / x.sizes[:, None])  # (G, hidden) → (G, out_dim)


def gathered(h: Tensor, e: Tensor, bonds: Tensor, eps: Tensor) -> Tensor:
    """(1 + ε) h and what the neighbours send, (N, hidden): the input of a convolution's MLP."""
    sent = F.relu(h.index_select(0, bonds[0]).add_(e), inplace=True)  # (M, hidden)
    return torch.index_add((1 + eps).to(h.dtype) * h, 0, bonds[1], sent)


def narrowed(x: Tensor) -> Tensor:
    """x in the type of autocast, where that is on: embeddings are not among what it casts by itself."""
    device = x.device.type
    return x.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else x


@contextlib.contextmanager
def without_update_check() -> Iterator[None]:
    """Inside the block OGB can be imported without a look on the network for a newer version."""
    before = sys.modules.get("outdated")
    sys.modules["outdated"] = None  # as if the package that looks were not installed
    try:
        yield
    finally:
        del sys.modules["outdated"]
        if before is not None:
            sys.modules["outdated"] = before
