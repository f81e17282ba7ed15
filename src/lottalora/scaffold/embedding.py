"""Embeddings that are random and frozen."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.draw import Source
from lottalora.scaffold.own_rows import clear_row
from lottalora.scaffold.own_rows import fill


class FrozenEmbedding(nn.Module):
    """An embedding whose rows are random and never trained: h = W_seed[i].

    Args:
        W_seed: one row for each entry, (entries, features).
        source: where it comes from; None for rows of one's own.
        like: the embedding that this one replaces; its padding_idx stays 0.
    """

    W_seed: Tensor

    def __init__(self, W_seed: Tensor, source: Source | None, like: nn.Embedding) -> None:
        super().__init__()
        self.register_buffer("W_seed", W_seed, persistent=False)
        self.source, self.padding_idx = source, like.padding_idx
        self.num_embeddings, self.embedding_dim = like.num_embeddings, like.embedding_dim
        self._clear_padding()

    @property
    def weight(self) -> Tensor:
        """The frozen rows, (entries, features)."""
        return self.W_seed

    @torch.no_grad()
    def redraw(self, source: Source) -> None:
        """Set W_seed, in place, to what `source` gives."""
        self.source = source
        if not self.W_seed.is_meta:
            fill(self.W_seed, source)
        self._clear_padding()

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.W_seed)  # (*) → (*, features)

    def _clear_padding(self) -> None:
        if self.padding_idx is not None and not self.W_seed.is_meta:
            clear_row(self.W_seed, self.padding_idx)
