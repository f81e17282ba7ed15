r"""A layer for the common case of few rows, by nothing but its products.

A small layer costs as much by the number of calls as by its arithmetic. Where all parts are trained and have
one dtype, on a CPU and in one block, none of what `forward` asks about each part need be asked again.

Letters: n rows of x, r rank, s scale; m, g and u as in `linear`.
"""

from torch import Tensor

from lottalora.scaffold.fused.blocks import ALL
from lottalora.scaffold.fused.dropout import draw_masks
from lottalora.scaffold.fused.dropout import dropped
from lottalora.scaffold.fused.dropout import zero_some_


def mask_of(x: Tensor, probability: float, seed: int) -> Tensor | None:
    """The mask of the adapter's dropout for all rows of x; None without dropout."""
    return next(draw_masks(x, [ALL], probability, seed)) if probability else None


def output(
    x: Tensor,
    W: Tensor,
    factor: float,
    A: Tensor,
    B: Tensor,
    bias: Tensor | None,
    scale: float,
    mask: Tensor | None,
    *,
    keep_Wx: bool,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """h, (n, out); t = A (m ⊙ x), (n, r); and W x if it is to be kept, else W x is added onto B t.

    Args:
        x: (n, in).
        W, A, B: (out, in), (r, in) and (out, r).
        factor: β.
        bias: (out,), or None.
        scale: s, with the 1 / (1 − p) of dropout.
        mask: m, or None.
        keep_Wx: whether x needs no gradient, so that dβ comes from W x.
    """
    t = dropped(x, mask) @ A.T
    if keep_Wx:
        Wx = x @ W.T
        if bias is None:
            return Wx.addmm(t, B.T, beta=factor, alpha=scale), t, Wx
        return bias.addmm(t, B.T, alpha=scale).add_(Wx, alpha=factor), t, Wx
    if bias is None:
        return (t @ B.T).addmm_(x, W.T, beta=scale, alpha=factor), t, None
    return bias.addmm(t, B.T, alpha=scale).addmm_(x, W.T, alpha=factor), t, None


def gradients(
    dh: Tensor,
    x: Tensor,
    W: Tensor,
    factor: float,
    A: Tensor,
    B: Tensor,
    t: Tensor,
    Wx: Tensor | None,
    scale: float,
    mask: Tensor | None,
) -> tuple[Tensor | None, Tensor, Tensor, Tensor]:
    """dx, (n, in), dβ, dA and dB, from dh, (n, out), and what `output` was given and returned.

    With W x there is no dx.
    """
    g = None
    if Wx is None:
        g = dh @ W
        dbeta = (g * x).sum()
    else:
        dbeta = (dh * Wx).sum()
    u = dh @ B.T.contiguous().T  # as it lies, B takes up to twice as long
    dA, dB = u.T @ dropped(x, mask), (t.T @ dh).T
    if scale != 1:
        dA.mul_(scale)
        dB.mul_(scale)
    if g is None:
        return None, dbeta, dA, dB
    if mask is None:
        return g.addmm_(u, A, beta=factor, alpha=scale), dbeta, dA, dB
    return g.mul_(factor).add_(zero_some_(u @ A, mask), alpha=scale), dbeta, dA, dB
