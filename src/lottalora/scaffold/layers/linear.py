"""A linear layer on a scaffold.  r rank, * any further axes."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.fused import linear as fused
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.path import choose
from lottalora.scaffold.layers.scope import scope


class LottaLinear(LottaLayer):
    r"""A linear layer whose dense weight is random and never trained.

    .. math:: h = \beta W_{seed}\, x + s\, B A x + b

    Args:
        W_seed: the frozen weight, (out, in).
        adapter: rank, α and the options; see `Adapter`.
        bias: b, (out,): an `nn.Parameter` is trained, any other tensor is frozen; None for no bias.
        source: the source that W_seed was drawn from; None for a W_seed that was given.
        transposed: whether the weight that it replaces is (in, out), as Hugging Face's Conv1D has it; so is
            the property `weight` then.

    Raises:
        ValueError: residual=True and in ≠ out.

    Source: the paper, Eq. 1; the A, B update is LoRA, Hu et al. 2021, https://arxiv.org/abs/2106.09685
    """

    transposed: bool = False

    def __init__(
        self,
        W_seed: Tensor,
        adapter: Adapter,
        *,
        bias: Tensor | None = None,
        source: Source | None = None,
        transposed: bool = False,
    ) -> None:
        out, columns = W_seed.shape[0], W_seed.shape[-1]
        if adapter.residual and out != columns:
            raise ValueError(f"residual=True needs as many outputs as inputs, got {columns} → {out}.")
        norm = nn.LayerNorm(out, device=W_seed.device, dtype=W_seed.dtype) if adapter.layer_norm else None
        super().__init__(W_seed, adapter, bias, source, norm)
        self.transposed = transposed

    def _as_replaced(self, W: Tensor) -> Tensor:
        return W.T if self.transposed else W

    @property
    def in_features(self) -> int:
        """The size of the last axis of the input."""
        return self.W_seed.shape[1]

    @property
    def out_features(self) -> int:
        """The size of the last axis of the output."""
        return self.W_seed.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        """h of the equation, (*, in) → (*, out)."""
        self.check(x)
        shared = None if torch.compiler.is_compiling() else scope.get()
        if shared is not None and (h := shared.output_of(self, x)) is not None:
            return h
        form = choose(self, x)
        if form is not Form.REFERENCE:
            return self._fused(x, form)
        frozen = F.linear(x, self.W_seed)  # (*, in) → (*, out)
        update = None
        if self.A is not None and self.B is not None:
            dropped = F.dropout(x, self.adapter.dropout, self.training)
            A, B = self.A.to(x.dtype), self.B.to(x.dtype)
            update = F.linear(F.linear(dropped, A), B)  # (*, in) → (*, r) → (*, out)
        return self.combine(x, frozen, update, (-1,))

    def _fused(self, x: Tensor, form: Form) -> Tensor:
        """The same by the fast path."""
        dora = self.magnitude is not None  # b comes after it
        parts = (self.W_seed, self.beta, self.A, self.B, None if dora else self.bias)
        dropout = self.adapter.dropout if self.training else 0.0
        h = fused.linear(x, *parts, scale=self.adapter.scale, form=form, dropout=dropout)
        if dora:
            with torch.no_grad():
                W = self._matrix()
            h = h * self._renormalisation(W).to(h.dtype)
        return self.finish(x, h, (-1,), biased=not dora)
