"""A causal language model of the Llama kind.

Letters: N blocks, T tokens of each, D width, V entries of the vocabulary.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.models.linear_cross_entropy import linear_cross_entropy


class GPT(nn.Module):
    """RMSNorm, rotary positions, SiLU, no biases; the head is the embedding.

    It is built on the meta device whatever device is asked for: 900M weights are then made once, where they
    are needed, by `lottalora.scaffold.materialize`, which asks `start` for those that no scaffold gives.

    Args:
        in_shape: (T,).
        out_dim: V.
        width: D.
        layers: blocks.
        heads: of the attention.
        mlp: width of the hidden layer of each block.
        recompute: whether the backward pass computes what lies inside a block anew, for less memory.
        kv_heads: of keys and values, each shared by heads / kv_heads queries; None: as many as heads.
        gated: whether a block's MLP is Llama's with three matrices, or two with a squared ReLU.

    Source: Touvron et al. 2023, https://arxiv.org/abs/2302.13971; the module is transformers'
    LlamaForCausalLM, the sizes are the paper's.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_dim: int,
        *,
        width: int,
        layers: int,
        heads: int,
        mlp: int,
        recompute: bool,
        kv_heads: int | None = None,
        gated: bool = True,
    ) -> None:
        super().__init__()
        from transformers import LlamaConfig  # takes seconds to import
        from transformers import LlamaForCausalLM

        (context,) = in_shape
        config = LlamaConfig(
            vocab_size=out_dim,
            hidden_size=width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=kv_heads,
            intermediate_size=mlp,
            max_position_embeddings=context,
            initializer_range=0.02,
            tie_word_embeddings=True,
            use_cache=False,
        )
        with torch.device("meta"):
            self.lm = LlamaForCausalLM(config)
            for block in self.lm.model.layers if not gated else ():
                block.mlp = SquaredReLU(width, mlp)
        if recompute:
            self.lm.gradient_checkpointing_enable({"use_reentrant": False})

    def start(self, module: nn.Module) -> None:
        """Give one module its values at the start: weights N(0, 0.02²), gains 1, the rotary frequencies."""
        self.lm._init_weights(module)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.lm.lm_head(self.features(tokens))  # (N, T) → (N, T, V)

    def loss(self, tokens: Tensor, target: Tensor) -> Tensor:
        """The mean cross-entropy of `forward`'s logits in nats; tokens and target (N, T)."""
        h = self.features(tokens).flatten(0, 1)  # (N · T, D)
        return linear_cross_entropy(h, self.lm.lm_head.weight, target.flatten())

    def features(self, tokens: Tensor) -> Tensor:
        return self.lm.model(tokens).last_hidden_state  # (N, T) → (N, T, D)


class SquaredReLU(nn.Module):
    r"""Two matrices without biases.

    .. math:: W_{down}\, \mathrm{relu}(W_{up}\, x)^2

    Source: So et al. 2021, https://arxiv.org/abs/2109.08668
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(F.relu(self.up_proj(x)).square())
