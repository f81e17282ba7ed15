"""The gradients of a layer; a block of rows goes through all products before the next one does."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lottalora.scaffold.fused.arithmetic import add_product
from lottalora.scaffold.fused.arithmetic import factor_of
from lottalora.scaffold.fused.arithmetic import flat
from lottalora.scaffold.fused.arithmetic import in_dtype
from lottalora.scaffold.fused.arithmetic import inner
from lottalora.scaffold.fused.blocks import blocks_of
from lottalora.scaffold.fused.dropout import draw_masks
from lottalora.scaffold.fused.dropout import dropped
from lottalora.scaffold.fused.dropout import joined
from lottalora.scaffold.fused.dropout import zero_some_
from lottalora.scaffold.fused.how import How


def gradients(
    wants: tuple[bool, ...],
    how: How,
    dh: Tensor,
    x: Tensor | None,
    W: Tensor,
    beta: Tensor | None,
    A: Tensor | None,
    B: Tensor | None,
    t: Tensor | None,
    Wx: Tensor | None,
) -> tuple[Tensor | None, ...]:
    """The gradients in the order of Fused.forward's arguments."""
    shape, dtype, twice = dh.shape, dh.dtype, torch.is_grad_enabled()
    dh, x, W = flat(dh), None if x is None else flat(x), in_dtype(W, dtype)  # (n, out), (n, in), (out, in)
    t = None if twice else t  # as a function of x and A, if differentiated again
    tall = None if B is None else in_dtype(B, dtype).T.contiguous()
    layer = Backward(wants, how, W, factor_of(beta, dh), None if A is None else in_dtype(A, dtype), tall)
    like = dh.new_empty(1).expand(len(dh), W.shape[1]) if x is None else x
    blocks = blocks_of(like, len(W))
    masks = draw_masks(like, blocks, how.dropout, how.seed)
    if len(blocks) == 1:
        dx, *sums = layer.of_rows(dh, x, t, Wx, next(masks))
    elif twice:
        dx, *sums = layer.of_rows(dh, x, None, Wx, joined(list(masks), blocks, like))
    else:
        dx = dh.new_empty(len(dh), W.shape[1]) if wants[0] else None
        sums = [None, None, None]
        for rows, mask in zip(blocks, masks, strict=True):
            x_now, t_now, Wx_now, dx_now = (None if part is None else part[rows] for part in (x, t, Wx, dx))
            _, *found = layer.of_rows(dh[rows], x_now, t_now, Wx_now, mask, dx_now)
            sums = [
                new if old is None or new is None else old + new for old, new in zip(sums, found, strict=True)
            ]
    dbeta, dA, dB = (
        None if each is None or part is None else in_dtype(each, part.dtype)
        for each, part in zip(sums, (beta, A, B), strict=True)
    )
    dx = None if dx is None else dx.view(*shape[:-1], W.shape[1])
    return dx, None, dbeta, dA, None if dB is None else dB.T, dh.sum(0) if wants[5] else None, None


class Backward(NamedTuple):
    """The backward pass of a layer over some of its rows.

    Args:
        wants: whether x, W, β, A and B need a gradient.
        how: the form, the scale and the dropout.
        W: W_seed, (out, in).
        factor: β.
        A: (r, in), or None for no adapter.
        tall: Bᵀ, (r, out), or None.
    """

    wants: tuple[bool, ...]
    how: How
    W: Tensor
    factor: float | Tensor
    A: Tensor | None
    tall: Tensor | None

    def of_rows(
        self,
        dh: Tensor,
        x: Tensor | None,
        t: Tensor | None,
        Wx: Tensor | None,
        mask: Tensor | None,
        into: Tensor | None = None,
    ) -> tuple[Tensor | None, ...]:
        """dx, (n, in), and what these rows add to dβ, dA and dBᵀ.

        Args:
            dh: (n, out).
            x: (n, in), or None where it is not needed.
            t: A (m ⊙ x), (n, r), or None to make it again.
            Wx: (n, out), or None where g takes its place.
            mask: of the dropout, for these rows.
            into: memory for dx.
        """
        wants_x, _, wants_beta, wants_A, wants_B, _, _ = self.wants
        g = dx = dbeta = dA = dB = None
        if wants_x:
            g = torch.mm(dh, self.W, out=into)
        if wants_beta:
            first, second = (dh, Wx) if Wx is not None else (g, x)
            assert first is not None and second is not None, "without g, W x was kept"
            dbeta = inner(first, second)
        if self.A is None or self.tall is None:
            return None if g is None else self._finished(g, None, mask), dbeta, None, None
        u = F.linear(dh, self.tall) if wants_x or wants_A else None  # (n, r)
        if x is not None and (wants_A or (wants_B and t is None)):
            x = dropped(x, mask)
        if wants_A and u is not None and x is not None:
            dA = self._scaled(u.T @ x)
        if wants_B:
            t = F.linear(x, self.A) if t is None and x is not None else t
            assert t is not None, "x was kept for it"
            dB = self._scaled(t.T @ dh)
        if g is not None:
            dx = self._finished(g, u, mask)
        return dx, dbeta, dA, dB

    def _finished(self, g: Tensor, u: Tensor | None, mask: Tensor | None) -> Tensor:
        """β g + s m ⊙ u A, in the memory of g unless g is needed as it was."""
        g = g.clone() if torch.is_grad_enabled() else g
        if self.A is None or u is None:
            return g.mul_(self.factor)
        if mask is None:
            return add_product(g, self.factor, u, self.A, self.how.scale)
        return g.mul_(self.factor).add_(zero_some_(u @ self.A, mask), alpha=self.how.scale)

    def _scaled(self, part: Tensor) -> Tensor:
        return part if self.how.scale == 1 else self.how.scale * part
