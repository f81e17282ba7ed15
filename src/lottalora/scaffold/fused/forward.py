"""h of a layer, by the form asked for; the arguments are those of `linear`. n rows of x, r rank."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lottalora.scaffold.fused.arithmetic import add_product
from lottalora.scaffold.fused.arithmetic import compiles_factors
from lottalora.scaffold.fused.arithmetic import factor_of
from lottalora.scaffold.fused.arithmetic import flat
from lottalora.scaffold.fused.arithmetic import in_dtype
from lottalora.scaffold.fused.blocks import blocks_of
from lottalora.scaffold.fused.blocks import with_axes_of
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.fused.dropout import draw_masks
from lottalora.scaffold.fused.dropout import dropped
from lottalora.scaffold.fused.dropout import joined
from lottalora.scaffold.fused.how import How


def output(
    x: Tensor,
    W: Tensor,
    beta: Tensor | None,
    A: Tensor | None,
    B: Tensor | None,
    bias: Tensor | None,
    how: How,
    *,
    keep_Wx: bool,
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """h; and t = A (m ⊙ x) and W x where they were made and the backward pass can use them."""
    given, dtype = x, x.dtype
    x, W = flat(x), in_dtype(W, dtype)  # (n, in), (out, in)
    A, B, bias = (None if part is None else in_dtype(part, dtype) for part in (A, B, bias))
    factor = factor_of(beta, x)
    t = Wx = None
    if A is None or B is None:
        Wx = F.linear(x, W)
        h = factor * Wx if bias is None else torch.add(bias, factor * Wx)
    elif how.form is Form.COMPOSE and not keep_Wx:
        h = F.linear(x, (factor * W).addmm_(B, A, alpha=how.scale), bias)
    elif keep_Wx or isinstance(factor, Tensor):
        Wx = F.linear(x, W)
        t = F.linear(_masked(x, len(W), how), A)  # (n, r)
        h = (factor * Wx).addmm_(t, B.T, alpha=how.scale)  # (n, out)
        h = h if bias is None else h.add_(bias)
    else:
        h, t = _accumulated(x, W, factor, A, B, bias, how)
    return with_axes_of(given, h), t, Wx if keep_Wx else None


def _accumulated(
    x: Tensor, W: Tensor, factor: float, A: Tensor, B: Tensor, bias: Tensor | None, how: How
) -> tuple[Tensor, Tensor]:
    """h, (n, out), and t, (n, r): W x is added onto the low-rank product."""
    parts = W.T, factor, A.T, B.T, bias, how
    blocks = blocks_of(x, len(W))
    masks = draw_masks(x, blocks, how.dropout, how.seed)
    if len(blocks) == 1:
        return _accumulated_rows(x, *parts, next(masks), None, None)
    h, t = x.new_empty(len(x), len(W)), x.new_empty(len(x), len(A))
    for rows, mask in zip(blocks, masks, strict=True):
        _accumulated_rows(x[rows], *parts, mask, h[rows], t[rows])
    return h, t


def _accumulated_rows(
    x: Tensor,
    W: Tensor,
    factor: float,
    A: Tensor,
    B: Tensor,
    bias: Tensor | None,
    how: How,
    mask: Tensor | None,
    h: Tensor | None,
    t: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """The same of some rows, in the memory of h and t if that is given; W, A and B come transposed."""
    t = torch.mm(dropped(x, mask), A, out=t)
    if compiles_factors(x.dtype):
        h = add_product(torch.mm(x, W, out=h), factor, t, B, how.scale)
        return (h if bias is None else h.add_(bias)), t
    if bias is None:
        return torch.mm(t, B, out=h).addmm_(x, W, beta=how.scale, alpha=factor), t
    return torch.addmm(bias, t, B, alpha=how.scale, out=h).addmm_(x, W, alpha=factor), t


def _masked(x: Tensor, out: int, how: How) -> Tensor:
    """m ⊙ x; the factor 1 / (1 − p) is in the scale."""
    if not how.dropout:
        return x
    blocks = blocks_of(x, out)
    mask = joined(list(draw_masks(x, blocks, how.dropout, how.seed)), blocks, x)
    return dropped(x, mask)
