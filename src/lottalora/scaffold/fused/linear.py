r"""The fast path of a linear layer: the same map as `layers.layer`, by fewer and cheaper operations.

.. math:: h = \beta W x + s\, B A (m \odot x) + b, \qquad g = W^\top dh, \quad u = s\, B^\top dh

.. math:: dx = \beta g + m \odot A^\top u, \quad dA = u\, (m \odot x)^\top,
          \quad dB = s\, dh\, (A (m \odot x))^\top,

.. math:: d\beta = \langle g, x \rangle

No gradient of the dense weight is computed, dβ needs no division and nothing extra is saved. m is the mask
of the adapter's dropout: it is not kept but drawn again, from its seed, in the backward pass.

On a CPU three things count besides the number of operations; all were measured:

- A low-rank product moves as much memory as it computes. So rows are taken in blocks that stay in the cache,
  and a block goes through all products before the next one does.
- Low-rank products are written as (n, r), the long side first, and B is copied into its transpose before dh
  meets it: other ways to write them take up to twice as long.
- A small layer costs as much by its number of calls as by its arithmetic, so no call is made in vain: few
  rows of a layer that is trained as usual go through `straight`.

Letters: n rows of x or of a block of it, r rank; m as above.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from lottalora.scaffold.fused.arithmetic import flat
from lottalora.scaffold.fused.arithmetic import in_dtype
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.fused.function import Fused
from lottalora.scaffold.fused.how import How


def linear(
    x: Tensor,
    W: Tensor,
    beta: Tensor | None,
    A: Tensor | None,
    B: Tensor | None,
    bias: Tensor | None,
    *,
    scale: float,
    form: Form,
    dropout: float = 0.0,
) -> Tensor:
    """h for x of shape (*, in), by the form asked for.

    Under autocast all is computed in its dtype, h included, and no copy of W in it is kept. With dropout, the
    seed of the mask comes from PyTorch's CPU generator, so activation checkpointing draws the same again.

    Args:
        x: (*, in); with the dtype of W, unless autocast is on.
        W: the frozen weight, (out, in).
        beta: β, or None for 1.
        A: (r, in), or None for no adapter.
        B: (out, r), or None.
        bias: b, (out,), or None.
        scale: s.
        form: how h is computed.
        dropout: the probability of zeroing an input of the adapter path; only ACCUMULATE has one.
    """
    x = cast_as_autocast_does(x)
    if form is Form.ADD:
        return added(x, W, beta, A, B, bias, scale)
    if form is Form.MERGE:
        own = compose(W, beta, A, B, scale).to(x.dtype)
        return F.linear(x, own, None if bias is None else bias.to(x.dtype))
    if A is not None and dropout:
        how = How(form, scale / (1 - dropout), dropout, int(torch.randint(2**62, (), device="cpu")))
    else:
        how = How(form, scale)
    if A is None and beta is None:  # PyTorch's own saves W alone, and only for dx
        return F.linear(x, W.to(x.dtype), None if bias is None else bias.to(x.dtype))
    if beta is not None and beta.dim():  # see `prepare_for_fsdp`
        beta = beta.view(())
    h: Tensor = Fused.apply(x, W, beta, A, B, bias, how)  # type: ignore[no-untyped-call]  # torch's
    return h


def cast_as_autocast_does(x: Tensor) -> Tensor:
    """x as PyTorch's products read it: in the dtype of autocast where that is on, unless x is float64."""
    kind = x.device.type
    if not torch.is_autocast_enabled(kind) or not x.is_floating_point() or x.dtype is torch.float64:
        return x
    return x.to(torch.get_autocast_dtype(kind))


def added(
    x: Tensor,
    W: Tensor,
    beta: Tensor | None,
    A: Tensor | None,
    B: Tensor | None,
    bias: Tensor | None,
    scale: float,
) -> Tensor:
    """(b + s B A x) + β W x in four calls; the gradient is autograd's."""
    Wx = F.linear(x, in_dtype(W, x.dtype))  # (*, out)
    bias = None if bias is None else in_dtype(bias, x.dtype)
    if A is None or B is None:
        h = Wx if beta is None else in_dtype(beta, x.dtype) * Wx
        return h if bias is None else h + bias
    t, tall = F.linear(flat(x), in_dtype(A, x.dtype)), in_dtype(B, x.dtype).T  # (n, r), (r, out)
    low = scale * (t @ tall) if bias is None else torch.addmm(bias, t, tall, alpha=scale)
    low = low.view(Wx.shape)
    return low + Wx if beta is None else torch.addcmul(low, Wx, in_dtype(beta, x.dtype))


def compose(W: Tensor, beta: Tensor | None, A: Tensor | None, B: Tensor | None, scale: float) -> Tensor:
    """β W + s B A, (out, in), in the dtype of W; its gradient is autograd's."""
    W = W if beta is None else beta * W
    if A is None:
        return W
    assert B is not None, "A and B come together"
    return torch.addmm(W, B.to(W.dtype), A.to(W.dtype), alpha=scale)
