"""The Decision Transformer: actions from returns, states and actions.

Letters: N sequences, K steps of each, T = 3K tokens, d width, H heads.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.models.dropout import Dropout

if TYPE_CHECKING:
    from lottalora.data.batches.batch import Windows

ALL = slice(None)
STATE = 1  # place of the state among the three tokens of a step: return, state, action


class DecisionTransformer(nn.Module):
    r"""A causal transformer over (return-to-go, state, action) of each step, which says the action.

    .. math:: \hat a_t = \tanh(W_{action}\, \mathrm{LN}(h_t) + b), \quad h = \mathrm{blocks}(\mathrm{LN}(e))

    e are the embedded tokens, each plus the embedding of its step; h_t stands at the state of step t, so it
    sees that step's return and state, and earlier steps whole. There are no heads for states and returns: the
    paper's counts leave no room for them.

    Args:
        in_shape: (K, states).
        out_dim: number of actions, each in [−1, 1].
        width: d.
        layers: blocks.
        heads: H.
        dropout: probability, of embeddings, attention and both branches of a block.
        longest: steps of an episode; each has its own embedding.

    Source: Chen et al. 2021, https://arxiv.org/abs/2106.01345; sizes of the paper.
    """

    def __init__(
        self,
        in_shape: Sequence[int],
        out_dim: int,
        *,
        width: int,
        layers: int,
        heads: int,
        dropout: float,
        longest: int = 1000,
    ) -> None:
        super().__init__()
        _, states = in_shape
        self.embed_step = nn.Embedding(longest, width)
        nn.init.normal_(self.embed_step.weight, std=0.02)  # by PyTorch's N(0, 1) the step drowns the state
        self.embed_return = nn.Linear(1, width)
        self.embed_state = nn.Linear(states, width)
        self.embed_action = nn.Linear(out_dim, width)
        self.embed_norm = nn.LayerNorm(width)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(width, heads, dropout, depth=layers) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.action = nn.Linear(width, out_dim)

    def forward(self, x: Windows) -> Tensor:
        step = self.embed_step(x.steps)  # (N, K, d)
        tokens = (self.embed_return(x.returns), self.embed_state(x.states), self.embed_action(x.actions))
        h = torch.stack([token + step for token in tokens], dim=2).flatten(1, 2)  # (N, K, 3, d) → (N, T, d)
        h = self.dropout(self.embed_norm(h))
        seen = visible(x.mask)
        *blocks, last = self.blocks
        for block in blocks:
            h = block(h, seen)
        h = last(h, seen, at=slice(STATE, None, len(tokens)))  # (N, T, d) → (N, K, d)
        return torch.tanh(self.action(self.norm(h)))  # (N, K, actions)


class Block(nn.Module):
    """Attention and a four times wider MLP, each behind a LayerNorm and beside a skip.

    Every matrix is a linear layer of its own, so that each can be put on a scaffold. Starts as GPT-2 does:
    weights N(0, 0.02²), those that write into the skip divided by √(2 depth), biases 0.
    """

    share_input = (("q", "k", "v"),)  # layers that read one tensor, but for `at`

    def __init__(self, width: int, heads: int, dropout: float, *, depth: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.q, self.k, self.v, self.o = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = Dropout(dropout)
        for linear in (self.q, self.k, self.v, self.o, self.fc1, self.fc2):
            into_skip = linear is self.o or linear is self.fc2
            nn.init.normal_(linear.weight, std=0.02 / math.sqrt(2 * depth if into_skip else 1))
            nn.init.zeros_(linear.bias)

    def forward(self, h: Tensor, seen: Tensor, at: slice = ALL) -> Tensor:
        """Return the outputs for positions `at`; all positions serve as keys and values."""
        x = self.norm1(h)
        query = x if at == ALL else x[:, at]
        h = h[:, at] + self.dropout(self.attend(query, x, seen[:, :, at]))
        return h + self.dropout(self.fc2(F.relu(self.fc1(self.norm2(h)))))  # ReLU as in Chen et al.

    def attend(self, query: Tensor, x: Tensor, seen: Tensor) -> Tensor:
        q, k, v = (  # (N, T, d) → (N, H, T, d / H)
            tokens.unflatten(2, (self.heads, -1)).transpose(1, 2)
            for tokens in (self.q(query), self.k(x), self.v(x))
        )
        dropout = self.dropout.probability if self.training else 0.0
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=seen, dropout_p=dropout)
        return self.o(mixed.transpose(1, 2).flatten(2))  # (N, H, T, d / H) → (N, T, d)


def visible(mask: Tensor) -> Tensor:
    """Which token (row) sees which (column), (N, 1, T, T): itself, and real ones before it."""
    tokens = mask.repeat_interleave(3, dim=1)  # (N, K) → (N, T)
    count = tokens.shape[1]
    earlier = torch.ones(count, count, dtype=torch.bool, device=mask.device).tril()
    itself = torch.eye(count, dtype=torch.bool, device=mask.device)  # a row without any would give NaN
    return (earlier & tokens[:, None, None, :]) | itself
