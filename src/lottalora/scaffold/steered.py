r"""The linear layer with adapter dropout as one function, for training on a CPU.

.. math:: h = \beta W x + s\, B A (m \odot x) + b

Written out, since every pass over a large tensor counts there. Four things are saved by it: β W x accumulates
onto the low-rank product inside one matrix product; nothing but x, the mask m and A (m ⊙ x) is kept for the
backward pass; the gradient of β is ⟨g W, x⟩, whose first factor the gradient of x needs anyway; and W has
none.

Letters: n tokens, r rank.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx


class Steered(Function):
    """`Steered.apply(x, mask, W, A, B, beta, bias, scale)`, (n, in) → (n, out); W is frozen."""

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        mask: Tensor,
        W: Tensor,
        A: Tensor,
        B: Tensor,
        beta: Tensor | None,
        bias: Tensor | None,
        scale: float,
    ) -> Tensor:
        low = scale * ((mask * x) @ A.T)  # (n, in) → (n, r)
        h = low @ B.T if bias is None else torch.addmm(bias, low, B.T)  # (n, r) → (n, out)
        ctx.save_for_backward(x, mask, W, A, B, beta, low)
        ctx.scale = scale
        return h.addmm_(x, W.T, alpha=1.0 if beta is None else beta.item())

    @staticmethod
    def backward(ctx: FunctionCtx, g: Tensor) -> tuple[Tensor | None, ...]:
        x, mask, W, A, B, beta, low = ctx.saved_tensors
        back = g @ W  # (n, out) → (n, in)
        narrow = ctx.scale * (g @ B)  # (n, out) → (n, r)
        d_beta = None if beta is None else (back * x).sum()
        d_x = (narrow @ A).mul_(mask).add_(back, alpha=1.0 if beta is None else beta.item())
        d_bias = g.sum(0) if ctx.needs_input_grad[6] else None
        return d_x, None, None, narrow.T @ (mask * x), g.T @ low, d_beta, d_bias, None
