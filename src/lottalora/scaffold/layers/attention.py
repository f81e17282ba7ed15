"""nn.MultiheadAttention with four separate projections, so that each can be adapted."""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.layers.stack import stacked
from lottalora.scaffold.layers.tracing import refuse_symbolic
from lottalora.scaffold.layers.tracing import refuse_unusual


class SplitAttention(nn.Module):
    r"""An `nn.MultiheadAttention` whose projections q, k, v and out are four `nn.Linear`.

    .. math:: \mathrm{softmax}(Q K^\top / \sqrt{d} + M)\, V \quad\text{in each head, then the projection}

    `forward` takes the arguments of the original and returns the same, and the packed weights can still be
    read. The fused inference path of nn.TransformerEncoderLayer, which bypasses the projections, is switched
    off.

    Args:
        original: the attention to split; its projections are copied, except the bias of out.

    Source: Vaswani et al. 2017, https://arxiv.org/abs/1706.03762
    """

    PROJECTIONS = ("q_proj", "k_proj", "v_proj", "out_proj")
    q_proj: nn.Linear  # becomes a LottaLinear in place
    k_proj: nn.Linear
    v_proj: nn.Linear
    out_proj: nn.Linear
    _qkv_same_embed_dim = False  # switches torch's fused path off

    def __init__(self, original: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = original.embed_dim, original.num_heads
        self.kdim, self.vdim, self.head_dim = original.kdim, original.vdim, original.head_dim
        self.batch_first, self.dropout = original.batch_first, original.dropout
        self.add_zero_attn = original.add_zero_attn
        for name, weight, bias in zip(self.PROJECTIONS, *_projections(original), strict=True):
            self.add_module(name, _linear(weight, bias))
        self.bias_k, self.bias_v = original.bias_k, original.bias_v  # one added key and value, (1, 1, E)

    @property
    def in_proj_weight(self) -> Tensor | None:
        """The weights of q, k and v stacked along the rows, (3 E, E); None if their widths differ."""
        same = self.kdim == self.vdim == self.embed_dim
        return torch.cat([f.weight for f in self._inputs()]) if same else None

    @property
    def in_proj_bias(self) -> Tensor | None:
        """The biases of q, k and v, (3 E,); None without biases."""
        biases: list[Tensor | None] = [f.bias for f in self._inputs()]
        given = [bias for bias in biases if bias is not None]
        return torch.cat(given) if given else None

    def _inputs(self) -> list[nn.Linear]:
        return [self.q_proj, self.k_proj, self.v_proj]

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, as `nn.MultiheadAttention` does.

        N examples, T queries, S keys. With batch_first=False, N is the second axis; without a batch, there is
        no N.

        Args:
            query: (N, T, E).
            key: (N, S, kdim).
            value: (N, S, vdim).
            key_padding_mask: (N, S); True, or −∞, hides a key.
            need_weights: whether to return the attention weights.
            attn_mask: (T, S) or (N · heads, T, S); True, or −∞, hides a key from a query.
            average_attn_weights: whether the returned weights are the mean over the heads.
            is_causal: says that attn_mask is causal; it changes nothing.

        Returns:
            The output, (N, T, E), and the weights, (N, T, S) or (N, heads, T, S), or None.

        Raises:
            ValueError: is_causal=True without attn_mask, or a mask of another dtype or shape.
        """
        refuse_symbolic(query, "an attention on a scaffold")
        refuse_unusual(query)
        if is_causal and attn_mask is None:
            raise ValueError("is_causal=True is a hint about attn_mask, so attn_mask must be given too.")
        single = query.dim() == 2  # (T, E): no batch axis
        q, k, v = self._project(query, key, value)
        if single:
            q, k, v = (x.unsqueeze(0) for x in (q, k, v))
        elif not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        seen = k.shape[1]  # S, without the keys of add_bias_kv and add_zero_attn
        if key_padding_mask is not None:
            expected = (seen,) if single else (len(k), seen)
            _check_mask("key_padding_mask", key_padding_mask, [expected])
        if attn_mask is not None:
            per_query = (q.shape[1], seen)
            _check_mask("attn_mask", attn_mask, [per_query, (len(q) * self.num_heads, *per_query)])
        q, k, v = (self._heads(x) for x in (q, self._longer(k, self.bias_k), self._longer(v, self.bias_v)))
        mask = self._mask(q, key_padding_mask, attn_mask)  # added to the scores
        if mask is not None:  # (N or 1, heads or 1, T, S)
            mask = F.pad(mask, (0, k.shape[2] - seen))
        weights = None
        if need_weights:
            scores = q @ k.mT / q.shape[-1] ** 0.5  # (N, heads, T, S)
            weights = F.softmax(scores if mask is None else scores + mask, dim=-1)
            weights = F.dropout(weights, self.dropout, self.training)
            attended = weights @ v
        else:
            dropout = self.dropout if self.training else 0.0
            attended = F.scaled_dot_product_attention(q, k, v, mask, dropout)
        h: Tensor = self.out_proj(attended.transpose(1, 2).flatten(2))  # (N, T, E)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if single:
            return h.squeeze(0), None if weights is None else weights.squeeze(0)
        return (h if self.batch_first else h.transpose(0, 1)), weights

    def _project(self, query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, ...]:
        """q, k and v, of which those that read one tensor are computed together."""
        projections = self._inputs()
        if key is value:
            if query is key and (h := stacked(projections, key)) is not None:
                return h
            if (h := stacked(projections[1:], key)) is not None:
                return projections[0](query), *h
        return tuple(f(x) for f, x in zip(projections, (query, key, value), strict=True))

    def _longer(self, x: Tensor, one_more: Tensor | None) -> Tensor:
        """Append the keys or values of add_bias_kv and add_zero_attn to those of the input, (N, S, E)."""
        if one_more is not None:
            x = torch.cat([x, one_more.to(x.dtype).expand(len(x), 1, -1)], dim=1)
        return F.pad(x, (0, 0, 0, 1)) if self.add_zero_attn else x

    def _heads(self, x: Tensor) -> Tensor:
        heads: Tensor = x.unflatten(-1, (self.num_heads, -1))  # (N, T, E) → (N, T, heads, E / heads)
        return heads.transpose(1, 2)

    def _mask(self, q: Tensor, padding: Tensor | None, attention: Tensor | None) -> Tensor | None:
        mask = None
        if attention is not None:
            mask = _additive(attention, q.dtype)
            if mask.dim() == 3:  # (N · heads, T, S)
                mask = mask.unflatten(0, (-1, self.num_heads))
        if padding is not None:
            hidden = _additive(padding, q.dtype).view(-1, 1, 1, padding.shape[-1])  # (N, 1, 1, S)
            mask = hidden if mask is None else mask + hidden
        return mask


def _check_mask(name: str, mask: Tensor, shapes: list[tuple[int, ...]]) -> None:
    if mask.dtype != torch.bool and not mask.is_floating_point():
        raise ValueError(f"{name} must be of booleans or floating-point numbers, got {mask.dtype}.")
    if tuple(mask.shape) not in shapes:
        raise ValueError(
            f"{name} must have the shape {' or '.join(map(str, shapes))}, got {tuple(mask.shape)}."
        )


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to the scores: −∞ where a boolean mask is True, and 0 elsewhere."""
    if mask.dtype != torch.bool:
        return mask.to(dtype)
    return torch.zeros(mask.shape, dtype=dtype, device=mask.device).masked_fill(mask, float("-inf"))


def _projections(original: nn.MultiheadAttention) -> tuple[list[nn.Parameter], list[nn.Parameter | None]]:
    """The weights and the biases of q, k, v and out, new ones except for the bias of out."""
    if original.in_proj_weight is not None:
        weights = _copies(original.in_proj_weight, 3)
    else:
        separate = (original.q_proj_weight, original.k_proj_weight, original.v_proj_weight)
        weights = [copy for weight in separate for copy in _copies(weight, 1)]
    biases = [None] * 3 if original.in_proj_bias is None else _copies(original.in_proj_bias, 3)
    out = original.out_proj
    out_weight, out_bias = cast(nn.Parameter, out.weight), cast(nn.Parameter | None, out.bias)
    return [*weights, *_copies(out_weight, 1)], [*biases, out_bias]


def _copies(packed: nn.Parameter, parts: int) -> list[nn.Parameter]:
    pieces = (piece.clone() for piece in packed.detach().chunk(parts))
    return [nn.Parameter(piece, requires_grad=packed.requires_grad) for piece in pieces]


def _linear(weight: nn.Parameter, bias: nn.Parameter | None) -> nn.Linear:
    out, columns = weight.shape
    linear = nn.Linear(columns, out, bias=False, device="meta")
    linear.weight = weight
    linear.register_parameter("bias", bias)
    return linear
