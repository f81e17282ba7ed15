r"""One layer of all members of an ensemble, as one node of the graph.

.. math:: h_k = \beta_k W_k x_k + s_k B_k A_k x_k + b_k

Letters: K members, n rows of x, r rank.
"""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from lottalora.scaffold.layers.linear import LottaLinear


class EnsembleLinear(LottaLinear):
    """The layer of a net whose parameters are those of all members, under `torch.vmap`.

    `factor` is s, a tensor, since members may differ in α.
    """

    factor: Tensor

    def forward(self, x: Tensor) -> Tensor:
        B = None if self.B is None else self.factor * self.B
        h = OfMembers.apply(x, self.W_seed, self.beta, self.A, B, self.bias)
        return self.finish(x, h, (-1,), biased=True)


class OfMembers(Function):
    """Hands the tensors of all members, (K, …) each, from vmap to `Stacked`."""

    @staticmethod
    def forward(*_: Tensor | None) -> Tensor:
        raise AssertionError("called under vmap alone")

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple, output: Tensor) -> None:
        """Nothing is kept: `Stacked` has the gradients."""

    @staticmethod
    def vmap(info, in_dims: tuple, *tensors: Tensor | None) -> tuple[Tensor, int]:  # noqa: ANN001  torch's
        """h, (K, *, out), and the place of K."""
        count = info.batch_size
        x, *parts = (
            None if tensor is None else with_members_first(tensor, place, count)
            for tensor, place in zip(tensors, in_dims, strict=True)
        )
        h = Stacked.apply(x.reshape(count, -1, x.shape[-1]), *parts)
        return h.view(*x.shape[:-1], h.shape[-1]), 0


def with_members_first(tensor: Tensor, place: int | None, count: int) -> Tensor:
    """(K, …), from a tensor with K at `place`, or from one that all members share."""
    return tensor.expand(count, *tensor.shape) if place is None else tensor.movedim(place, 0)


class Stacked(Function):
    """The layers' one function: as in `scaffold.fused`, with a batch of matrices in place of each.

    dβ of a layer whose x needs no gradient comes from W x; elsewhere it is ⟨g, x⟩ with g = Wᵀ dh.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx,
        x: Tensor,
        W: Tensor,
        beta: Tensor | None,
        A: Tensor | None,
        B: Tensor | None,
        bias: Tensor | None,
    ) -> Tensor:
        """h, (K, n, out).

        Args:
            ctx: for the backward pass.
            x: (K, n, in).
            W: (K, out, in).
            beta: (K,), or None for 1.
            A: (K, r, in), or None for no adapter.
            B: (K, out, r), with s in it; or None.
            bias: (K, out), or None.
        """
        Wx = torch.bmm(x, W.mT)
        h = Wx if beta is None else beta[:, None, None] * Wx
        t = None
        if A is not None:
            t = torch.bmm(A, x.mT)  # (K, r, n)
            h = h.baddbmm_(t.mT, B.mT.contiguous())
        if bias is not None:
            h = h.add_(bias[:, None])
        wants_x, _, wants_beta, *_ = ctx.needs_input_grad
        keeps_Wx = wants_beta and not wants_x
        ctx.save_for_backward(x, W, beta, A, B, t, Wx if keeps_Wx else None)
        return h

    @staticmethod
    def backward(ctx: FunctionCtx, dh: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, W, β, A, B and b."""
        x, W, beta, A, B, t, Wx = ctx.saved_tensors
        wants_x, _, wants_beta, _, _, wants_bias = ctx.needs_input_grad
        dx = dbeta = dA = dB = None
        if wants_x:
            dx = torch.bmm(dh, W)  # g, (K, n, in)
        if wants_beta:
            dbeta = inner(dh, Wx) if dx is None else inner(dx, x)
        if dx is not None and beta is not None:
            dx = dx.mul_(beta[:, None, None])
        if A is not None:
            u = torch.bmm(B.mT.contiguous(), dh.mT)  # (K, r, n)
            dA = torch.bmm(u, x)
            dB = torch.bmm(t, dh).mT
            dx = None if dx is None else dx.baddbmm_(u.mT, A)
        return dx, None, dbeta, dA, dB, dh.sum(1) if wants_bias else None


def inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a_k, b_k⟩, (K,)."""
    return torch.linalg.vecdot(a, b).sum(1)
