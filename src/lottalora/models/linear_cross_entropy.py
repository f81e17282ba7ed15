"""The head of a language model and its loss in one: no more than a few rows of logits exist at a time.

Letters: M tokens, D width, V entries of the vocabulary.
"""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

LOGITS_AT_ONCE = {"cpu": 2**22, "cuda": 2**26}  # numbers; on a CPU a block of rows that stays in the cache


def linear_cross_entropy(h: Tensor, W: Tensor, target: Tensor) -> Tensor:
    r"""The mean cross-entropy of the logits h Wᵀ.

    .. math:: \frac1M \sum_i \log \sum_j \exp(h_i \cdot W_j) - h_i \cdot W_{t_i}

    Equal to `F.cross_entropy(h @ W.T, target)`, without M × V logits in memory. Both gradients are computed
    in the forward pass, where the logits of a few rows are at hand: three products with W in all, as without.
    Under autocast the products are of its type and all else is float32.

    Args:
        h: features, (M, D).
        W: the weight of the head, (V, D).
        target: entries, (M,).
    """
    gradients = torch.is_grad_enabled() and (h.requires_grad, W.requires_grad)
    return _LinearCrossEntropy.apply(h, W, target, gradients or (False, False))


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, h: Tensor, W: Tensor, target: Tensor, wanted: tuple[bool, bool]) -> Tensor:
        device = h.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else h.dtype
        with torch.autocast(device, enabled=False):
            loss, dh, dW = _in_blocks(h.to(dtype), W.to(dtype), target, wanted)
        ctx.save_for_backward(dh, dW)
        ctx.dtypes = h.dtype, W.dtype
        return loss

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: FunctionCtx, of_loss: Tensor) -> tuple[Tensor | None, ...]:
        pairs = zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        dh, dW = (None if value is None else (value * of_loss).to(dtype) for value, dtype in pairs)
        return dh, dW, None, None


def _in_blocks(
    h: Tensor, W: Tensor, target: Tensor, wanted: tuple[bool, bool]
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Loss, dh and dW, the last two where they are wanted."""
    exact = torch.promote_types(h.dtype, torch.float32)
    count, total = len(h), torch.zeros((), dtype=exact, device=h.device)
    dh = torch.empty_like(h, dtype=exact) if wanted[0] else None
    dW = torch.zeros_like(W, dtype=exact) if wanted[1] else None
    rows = min(count, max(1, LOGITS_AT_ONCE.get(h.device.type, 2**22) // len(W)))
    held = h.new_empty(rows, len(W))
    for first in range(0, count, rows):
        x, t = h[first : first + rows], target[first : first + rows]  # (m, D), (m,)
        p = torch.mm(x, W.T, out=held[: len(x)]).to(exact)  # logits (m, V); in place below where it is `held`
        at_target, highest = p.gather(1, t[:, None]).squeeze(1), p.amax(1)
        torch.softmax(p, 1, out=p)
        total += (highest - p.amax(1).log() - at_target).sum()  # softmax at the highest logit is 1 / Σ
        p = p.to(h.dtype)
        if dh is not None:
            dh[first : first + rows] = torch.mm(p, W).sub_(W[t])
        if dW is not None:
            _add_product(dW, p, x)
            dW.index_add_(0, t, x.to(exact), alpha=-1)
    return total / count, *(None if each is None else each.div_(count) for each in (dh, dW))


def _add_product(dW: Tensor, p: Tensor, x: Tensor) -> None:
    """dW += pᵀ x, in place where the types allow it."""
    if p.dtype == dW.dtype:
        dW.addmm_(p.T, x)
    else:
        dW += torch.mm(p.T, x)
