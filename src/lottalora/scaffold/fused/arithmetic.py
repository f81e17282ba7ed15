"""The small steps of the fast path, each with as few calls as it can have."""

import torch
from torch import Tensor


def flat(x: Tensor) -> Tensor:
    """x as rows, (*, k) → (n, k)."""
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])


def in_dtype(part: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a dtype; without the call of `to` where it has that already."""
    return part if part.dtype is dtype else part.to(dtype)


def add_product(into: Tensor, factor: float | Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """factor · into + scale · left · right, in the memory of `into`; a factor on a device is not read."""
    if isinstance(factor, Tensor) or compiles_factors(into.dtype):
        return into.mul_(factor).addmm_(left, right, alpha=scale)
    return into.addmm_(left, right, beta=factor, alpha=scale)


def compiles_factors(dtype: torch.dtype) -> bool:
    """Whether a product is compiled anew for each new factor, as oneDNN's are in half precision.

    That takes 3 ms and half a megabyte, so a factor that is trained is no argument of the product there.
    """
    return dtype.itemsize < 4


def factor_of(beta: Tensor | None, like: Tensor) -> float | Tensor:
    """β as a number where reading it costs nothing and needs no gradient, else as a tensor."""
    if beta is None:
        return 1.0
    if like.device.type == "cpu" and not torch.is_grad_enabled():
        return beta.item()
    return beta.to(like.dtype)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of matrices, summed in float32 at least; torch.dot and vecdot are slower, or lose digits."""
    return (a * b).sum(dtype=torch.float32 if a.dtype.itemsize < 4 else None)
