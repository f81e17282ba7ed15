"""Embeddings that are random and frozen."""

import sys

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.local_rows import refuse_shared_out
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.lazy_weight import lazy_weight
from lottalora.scaffold.layers.reparametrization import refuse_reparametrization


class FrozenEmbedding(Frozen):
    """An embedding whose rows are random and never trained: h = W_seed[i].

    Args:
        W_seed: one row for each entry, (entries, features).
        source: the source that W_seed was drawn from; None for a W_seed that was given.
        like: the embedding to replace; its row padding_idx stays 0.
    """

    def __init__(self, W_seed: Tensor, source: Source | None, like: nn.Embedding) -> None:
        super().__init__(W_seed, source)
        self.padding_idx = like.padding_idx
        self.num_embeddings, self.embedding_dim = like.num_embeddings, like.embedding_dim
        self._clear_padding()
        self._write_record()

    @property
    def weight(self) -> Tensor:
        """The frozen rows, (entries, features); writing into them is refused.

        Raises:
            ValueError: pruning or another parametrization reads it; or, when its values are asked for, its
                rows are shared out among processes.
        """
        if torch.compiler.is_compiling():
            return self.W_seed
        refuse_reparametrization(sys._getframe(1))
        like = torch.empty_like(self.W_seed, device="meta")
        return lazy_weight(like, self.device_of_W_seed, self._rows, [])

    def _rows(self) -> Tensor:
        refuse_shared_out(self.W_seed)
        self.check(torch.empty(0, device=self.device_of_W_seed))
        return self.W_seed

    def reset_parameters(self) -> None:
        """Do nothing, as nothing is trained; `nn.Embedding` has this method."""

    def forward(self, index: Tensor) -> Tensor:
        """W_seed[index], (*) → (*, features)."""
        self.check(index)
        return F.embedding(index, self.W_seed)
