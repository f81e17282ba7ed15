r"""The fast path of a linear layer: the same map as `layers.py`, by fewer and cheaper operations.

.. math:: h = \beta W x + s\, B A (m \odot x) + b, \qquad g = W^\top dh, \quad u = s\, B^\top dh

.. math:: dx = \beta g + m \odot A^\top u, \quad dA = u\, (m \odot x)^\top,
          \quad dB = s\, dh\, (A (m \odot x))^\top,

.. math:: d\beta = \langle g, x \rangle

No gradient of the dense weight is computed, dβ needs no division and nothing extra is saved. m is the mask
of the adapter's dropout: it is not kept but drawn again, from its seed, in the backward pass.

A product with one side of r is written so that r comes first, (r, n) and not (n, r): on a CPU the other way
round takes up to six times as long.

Letters: n rows of x, r rank; m as above.
"""

from dataclasses import dataclass
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from lottalora.scaffold.cost import Form
from lottalora.scaffold.dropout import zero_some_

Maybe = Tensor | None
Saved = tuple[Maybe, Tensor, Maybe, Maybe, Maybe, Maybe, Maybe]
PAIR = "A and B come together"


@dataclass(frozen=True)
class How:
    """What of a layer is no tensor.

    Args:
        form: ACCUMULATE or COMPOSE.
        scale: s, with the 1 / (1 − p) of dropout.
        dropout: p of the adapter path; 0 for none.
        seed: of the mask.
    """

    form: Form
    scale: float
    dropout: float = 0.0
    seed: int = 0


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
        dropout: the probability of zeroing an input of the adapter path; COMPOSE and MERGE need 0.
    """
    kind = x.device.type
    if torch.is_autocast_enabled(kind) and x.dtype is not torch.float64:
        x = x.to(torch.get_autocast_dtype(kind))
    if form is Form.MERGE:
        own = compose(W, beta, A, B, scale).to(x.dtype)
        return F.linear(x, own, None if bias is None else bias.to(x.dtype))
    how = How(form, scale)
    if A is not None and dropout:
        seed = int(torch.randint(2**62, ()))
        how = replace(how, scale=scale / (1 - dropout), dropout=dropout, seed=seed)
    if A is None and beta is None:  # PyTorch's own saves W alone, and only for dx
        return F.linear(x, W.to(x.dtype), None if bias is None else bias.to(x.dtype))
    h: Tensor = Fused.apply(x, W, beta, A, B, bias, how)  # type: ignore[no-untyped-call]  # torch's
    return h


def compose(W: Tensor, beta: Tensor | None, A: Tensor | None, B: Tensor | None, scale: float) -> Tensor:
    """β W + s B A, (out, in), in the dtype of W; its gradient is autograd's."""
    W = W if beta is None else beta * W
    if A is None:
        return W
    assert B is not None, PAIR
    return torch.addmm(W, B.to(W.dtype), A.to(W.dtype), alpha=scale)


class Context(FunctionCtx):
    """What the forward pass of `Fused` leaves for the backward pass: x, W, β, A, B, t and W x, and `how`."""

    how: How
    needs_input_grad: tuple[bool, ...]
    saved_tensors: Saved


class Fused(Function):
    """One layer as one node of the graph. Its backward pass can be differentiated again."""

    @staticmethod
    def forward(
        ctx: Context,
        x: Tensor,
        W: Tensor,
        beta: Tensor | None,
        A: Tensor | None,
        B: Tensor | None,
        bias: Tensor | None,
        how: How,
    ) -> Tensor:
        """h, (*, in) → (*, out); the arguments are those of `linear`."""
        wants_x, _, wants_beta, wants_A, wants_B, _, _ = ctx.needs_input_grad
        first = wants_beta and not wants_x  # no g is made for dx, so dβ comes from W x
        h, t, Wx = _output(x, W, beta, A, B, bias, how, keep_Wx=first)
        ctx.how = how
        needs_x = wants_A or wants_B or (wants_beta and not first)
        saved: Saved = (x if needs_x else None, W, beta, A, B, t if wants_B else None, Wx)
        ctx.save_for_backward(*saved)  # type: ignore[arg-type]  # None is allowed, its docstring says
        return h

    @staticmethod
    def backward(ctx: Context, dh: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, W, β, A, B and b, from dh, (*, out)."""
        with torch.autocast(dh.device.type, enabled=False):
            return _gradients(ctx.needs_input_grad, ctx.how, dh, *ctx.saved_tensors)


def _output(
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
    """h; and t = s A (m ⊙ x) and W x where they were made and the backward pass can use them."""
    shape, x = x.shape[:-1], x.reshape(-1, x.shape[-1])  # (n, in)
    W = W.to(x.dtype)
    A, B, bias = (None if part is None else part.to(x.dtype) for part in (A, B, bias))
    factor = _factor(beta, x)
    t = Wx = None
    if how.form is Form.COMPOSE and A is not None and not keep_Wx:
        assert B is not None, PAIR
        h = F.linear(x, _add_product(factor * W, 1.0, _scaled(B, how), A), bias)
        return h.view(*shape, len(W)), None, None
    start = x.new_zeros(()) if bias is None else bias  # broadcasts over (n, out)
    if A is not None:
        assert B is not None, PAIR
        t = _scaled(A, how) @ _masked(x, how).T  # (r, n)
        tall = B.T.contiguous()  # (r, out)
        start = t.T @ tall if bias is None else torch.addmm(bias, t.T, tall)  # (n, out)
    if keep_Wx or isinstance(factor, Tensor):
        Wx = x @ W.T
        h = torch.addcmul(start, Wx, factor if isinstance(factor, Tensor) else Wx.new_tensor(factor))
    elif A is not None:
        h = start.addmm_(x, W.T, alpha=factor)
    else:
        h = torch.addmm(start, x, W.T, beta=int(bias is not None), alpha=factor)
    return h.view(*shape, len(W)), t, Wx if keep_Wx else None


def _gradients(
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
    wants_x, _, wants_beta, wants_A, wants_B, wants_bias, _ = wants
    shape, dtype = dh.shape[:-1], dh.dtype
    dh = dh.reshape(-1, dh.shape[-1])  # (n, out)
    x = None if x is None else x.reshape(-1, x.shape[-1])  # (n, in)
    t = None if torch.is_grad_enabled() else t  # as a function of x and A, if differentiated again
    dx = dbeta = dA = dB = None
    if wants_x:
        dx = dh @ W.to(dtype)  # g, (n, in)
    if wants_beta:
        assert beta is not None
        if Wx is None:
            assert dx is not None and x is not None, "without dx, W x was kept"
            dbeta = _inner(dx, x).to(beta.dtype)
        else:
            dbeta = _inner(dh, Wx).to(beta.dtype)
    if A is not None and (wants_x or wants_A):
        assert B is not None, PAIR
        u = _scaled(B.T, how).to(dtype).contiguous() @ dh.T  # (r, n)
    if wants_A or (wants_B and t is None):
        assert x is not None, "saved for dA and dB"
        masked = _masked(x, how)
    if wants_A:
        assert A is not None
        dA = (u @ masked).to(A.dtype)  # (r, in)
    if wants_B:
        assert A is not None and B is not None, PAIR
        t = _scaled(A, how).to(dtype) @ masked.T if t is None else t
        dB = (t @ dh).T.to(B.dtype)  # (out, r)
    if dx is not None:
        dx = dx.clone() if torch.is_grad_enabled() else dx  # g is then needed as it was
        dx = _finish_dx(dx, _factor(beta, dx), None if A is None else u, A, how).view(*shape, W.shape[1])
    return dx, None, dbeta, dA, dB, dh.sum(0) if wants_bias else None, None


def _finish_dx(g: Tensor, factor: float | Tensor, u: Tensor | None, A: Tensor | None, how: How) -> Tensor:
    """β g + m ⊙ uᵀ A, in the memory of g."""
    if u is None:
        return g.mul_(factor)
    assert A is not None, "u was made from it"
    if how.dropout:
        return g.mul_(factor).add_(zero_some_(u.T @ A.to(g.dtype), how.dropout, how.seed))
    return _add_product(g, factor, u.T, A.to(g.dtype))


def _add_product(into: Tensor, factor: float | Tensor, left: Tensor, right: Tensor) -> Tensor:
    """factor · into + left · right, in the memory of `into`; a factor on a device is not read."""
    if isinstance(factor, Tensor):
        return into.mul_(factor).addmm_(left, right)
    return into.addmm_(left, right, beta=factor)


def _factor(beta: Tensor | None, like: Tensor) -> float | Tensor:
    """β as a number where reading it costs nothing and needs no gradient, else as a tensor."""
    if beta is None:
        return 1.0
    if like.device.type == "cpu" and not torch.is_grad_enabled():
        return beta.item()
    return beta.to(like.dtype)


def _scaled(part: Tensor, how: How) -> Tensor:
    return part if how.scale == 1 else how.scale * part


def _masked(x: Tensor, how: How) -> Tensor:
    """m ⊙ x; the factor 1 / (1 − p) is in the scale."""
    return zero_some_(x.clone(), how.dropout, how.seed) if how.dropout else x


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩, (n, …) each; by torch.dot it is slow in half precision and loses digits in float32."""
    if a.dtype.itemsize < 4:
        return (a * b).sum(dtype=torch.float32)
    products: Tensor = torch.linalg.vecdot(a, b)
    return products.sum()
