"""Embeddings that are random and frozen."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.draw import Source
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.own_rows import own_part
from lottalora.scaffold.own_rows import rows_of


class FrozenEmbedding(Frozen):
    """An embedding whose rows are random and never trained: h = W_seed[i].

    Args:
        W_seed: one row for each entry, (entries, features).
        source: where it comes from; None for rows of one's own.
        like: the embedding that this one replaces; its padding_idx stays 0.
    """

    def __init__(self, W_seed: Tensor, source: Source | None, like: nn.Embedding) -> None:
        super().__init__(W_seed, source)
        self.padding_idx = like.padding_idx
        self.num_embeddings, self.embedding_dim = like.num_embeddings, like.embedding_dim
        self._clear_padding()
        self._write_record()

    @property
    def weight(self) -> Tensor:
        """The frozen rows, (entries, features)."""
        return self.W_seed

    @torch.no_grad()
    def redraw(self, source: Source) -> None:
        """Set W_seed, in place, to what `source` gives."""
        super().redraw(source)
        self._clear_padding()

    def forward(self, index: Tensor) -> Tensor:
        self.check(index)
        return F.embedding(index, self.W_seed)  # (*) → (*, features)

    def _is_the_draw(self) -> bool:
        return self.padding_idx is None and super()._is_the_draw()

    def _finished(self, W: Tensor) -> Tensor:
        first, last = rows_of(self.W_seed)
        if self.padding_idx is not None and first <= self.padding_idx < last:
            W[self.padding_idx - first] = 0
        return W

    @torch.no_grad()
    def _clear_padding(self) -> None:
        if self.padding_idx is None or self.W_seed.is_meta:
            return
        self._finished(own_part(self.W_seed))
