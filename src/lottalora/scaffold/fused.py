r"""The fast path of a linear layer: the same map as `layer.py`, by fewer and cheaper operations.

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

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from lottalora.scaffold import straight
from lottalora.scaffold.blocks import blocks_of
from lottalora.scaffold.blocks import rows_of_a_block
from lottalora.scaffold.blocks import with_axes_of
from lottalora.scaffold.cost import Form
from lottalora.scaffold.dropout import draw_masks
from lottalora.scaffold.dropout import dropped
from lottalora.scaffold.dropout import joined
from lottalora.scaffold.dropout import zero_some_

Maybe = Tensor | None
Saved = tuple[Maybe, Tensor, Maybe, Maybe, Maybe, Maybe, Maybe]
PAIR = "A and B come together"
TRAINED = (False, True, True, True)  # which of W, β, A and B need a gradient, nearly always


class How(NamedTuple):
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
        dropout: the probability of zeroing an input of the adapter path; only ACCUMULATE has one.
    """
    x = cast_as_autocast_does(x)
    if form is Form.ADD:
        return added(x, W, beta, A, B, bias, scale)
    if form is Form.MERGE:
        own = compose(W, beta, A, B, scale).to(x.dtype)
        return F.linear(x, own, None if bias is None else bias.to(x.dtype))
    if A is not None and dropout:
        how = How(form, scale / (1 - dropout), dropout, int(torch.randint(2**62, ())))
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
    Wx = F.linear(x, _as(W, x.dtype))  # (*, out)
    bias = None if bias is None else _as(bias, x.dtype)
    if A is None or B is None:
        h = Wx if beta is None else _as(beta, x.dtype) * Wx
        return h if bias is None else h + bias
    t, tall = F.linear(_flat(x), _as(A, x.dtype)), _as(B, x.dtype).T  # (n, r), (r, out)
    low = scale * (t @ tall) if bias is None else torch.addmm(bias, t, tall, alpha=scale)
    low = low.view(Wx.shape)
    return low + Wx if beta is None else torch.addcmul(low, Wx, _as(beta, x.dtype))


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
    factor: float | None  # β, where the layer went through `straight`
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
        ctx.how, ctx.factor = how, None
        first = wants_beta and not wants_x  # no g is made for dx, so dβ comes from W x
        if ctx.needs_input_grad[1:5] == TRAINED and _is_straight(x, W, beta, A, B, bias, how):
            return _straight_output(ctx, x, W, beta, A, B, bias, keep_Wx=first)
        h, t, Wx = _output(x, W, beta, A, B, bias, how, keep_Wx=first)
        needs_x = wants_A or wants_B or (wants_beta and not first)
        saved: Saved = (x if needs_x else None, W, beta, A, B, t if wants_B else None, Wx)
        ctx.save_for_backward(*saved)  # type: ignore[arg-type]  # None is allowed, its docstring says
        return h

    @staticmethod
    def backward(ctx: Context, dh: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of x, W, β, A, B and b, from dh, (*, out)."""
        if not torch.is_autocast_enabled(dh.device.type):
            return _backward(ctx, dh)
        with torch.autocast(dh.device.type, enabled=False):
            return _backward(ctx, dh)


def _backward(ctx: Context, dh: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients as the forward pass went; those that are differentiated again go the general way."""
    if ctx.factor is not None and not torch.is_grad_enabled():
        return _straight_gradients(ctx, ctx.factor, dh)
    return _gradients(ctx.needs_input_grad, ctx.how, dh, *ctx.saved_tensors)


def _is_straight(
    x: Tensor,
    W: Tensor,
    beta: Tensor | None,
    A: Tensor | None,
    B: Tensor | None,
    bias: Tensor | None,
    how: How,
) -> bool:
    """Whether a layer of which all is trained, and in one dtype, has its rows in one block on a CPU."""
    if beta is None or A is None or B is None or how.form is not Form.ACCUMULATE or x.device.type != "cpu":
        return False
    dtype, (out, columns) = x.dtype, W.shape
    alike = W.dtype is dtype and beta.dtype is dtype and A.dtype is dtype and B.dtype is dtype
    one_block = x.numel() < 2 * columns * rows_of_a_block(out, columns)
    return alike and one_block and dtype.itemsize >= 4 and (bias is None or bias.dtype is dtype)


def _straight_output(
    ctx: Context,
    x: Tensor,
    W: Tensor,
    beta: Tensor | None,
    A: Tensor | None,
    B: Tensor | None,
    bias: Tensor | None,
    *,
    keep_Wx: bool,
) -> Tensor:
    """h, (*, out), by `straight`; what the backward pass needs is saved."""
    assert beta is not None and A is not None and B is not None, "all are trained"
    rows, how = _flat(x), ctx.how
    ctx.factor = beta.item()
    mask = straight.mask_of(rows, how.dropout, how.seed)
    h, t, Wx = straight.output(rows, W, ctx.factor, A, B, bias, how.scale, mask, keep_Wx=keep_Wx)
    ctx.save_for_backward(x, W, beta, A, B, t, Wx)  # type: ignore[arg-type]  # None is allowed
    return with_axes_of(x, h)


def _straight_gradients(ctx: Context, factor: float, dh: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of a layer that went through `straight`, in the order of Fused.forward's arguments."""
    x, W, _, A, B, t, Wx = ctx.saved_tensors
    assert x is not None and A is not None and B is not None and t is not None, "all are trained"
    rows, dh = _flat(x), _flat(dh)
    mask = straight.mask_of(rows, ctx.how.dropout, ctx.how.seed)
    dx, dbeta, dA, dB = straight.gradients(dh, rows, W, factor, A, B, t, Wx, ctx.how.scale, mask)
    dx = None if dx is None else dx.view(x.shape)
    return dx, None, dbeta, dA, dB, dh.sum(0) if ctx.needs_input_grad[5] else None, None


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
    """h; and t = A (m ⊙ x) and W x where they were made and the backward pass can use them."""
    given, dtype = x, x.dtype
    x, W = _flat(x), _as(W, dtype)  # (n, in), (out, in)
    A, B, bias = (None if part is None else _as(part, dtype) for part in (A, B, bias))
    factor = _factor(beta, x)
    t = Wx = None
    if A is None or B is None:
        Wx = F.linear(x, W)
        h = factor * Wx if bias is None else torch.add(bias, factor * Wx)
    elif how.form is Form.COMPOSE and not keep_Wx:
        h = F.linear(x, _add_product(factor * W, 1.0, B, A, how.scale), bias)
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
    if bias is None:
        return torch.mm(t, B, out=h).addmm_(x, W, beta=how.scale, alpha=factor), t
    return torch.addmm(bias, t, B, alpha=how.scale, out=h).addmm_(x, W, alpha=factor), t


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
    shape, dtype, twice = dh.shape, dh.dtype, torch.is_grad_enabled()
    dh, x, W = _flat(dh), None if x is None else _flat(x), _as(W, dtype)  # (n, out), (n, in), (out, in)
    t = None if twice else t  # as a function of x and A, if differentiated again
    tall = None if B is None else _as(B, dtype).T.contiguous()
    layer = Backward(wants, how, W, _factor(beta, dh), None if A is None else _as(A, dtype), tall)
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
        None if each is None or part is None else _as(each, part.dtype)
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
            dbeta = _inner(first, second)
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
            return _add_product(g, self.factor, u, self.A, self.how.scale)
        return g.mul_(self.factor).add_(zero_some_(u @ self.A, mask), alpha=self.how.scale)

    def _scaled(self, part: Tensor) -> Tensor:
        return part if self.how.scale == 1 else self.how.scale * part


def _masked(x: Tensor, out: int, how: How) -> Tensor:
    """m ⊙ x; the factor 1 / (1 − p) is in the scale."""
    if not how.dropout:
        return x
    blocks = blocks_of(x, out)
    mask = joined(list(draw_masks(x, blocks, how.dropout, how.seed)), blocks, x)
    return dropped(x, mask)


def _flat(x: Tensor) -> Tensor:
    """x as rows, (*, k) → (n, k)."""
    return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])


def _as(part: Tensor, dtype: torch.dtype) -> Tensor:
    """The tensor in a dtype; without the call of `to` where it has that already."""
    return part if part.dtype is dtype else part.to(dtype)


def _add_product(into: Tensor, factor: float | Tensor, left: Tensor, right: Tensor, scale: float) -> Tensor:
    """factor · into + scale · left · right, in the memory of `into`; a factor on a device is not read."""
    if isinstance(factor, Tensor):
        return into.mul_(factor).addmm_(left, right, alpha=scale)
    return into.addmm_(left, right, beta=factor, alpha=scale)


def _factor(beta: Tensor | None, like: Tensor) -> float | Tensor:
    """β as a number where reading it costs nothing and needs no gradient, else as a tensor."""
    if beta is None:
        return 1.0
    if like.device.type == "cpu" and not torch.is_grad_enabled():
        return beta.item()
    return beta.to(like.dtype)


def _inner(a: Tensor, b: Tensor) -> Tensor:
    """⟨a, b⟩ of matrices, summed in float32 at least; torch.dot and vecdot are slower, or lose digits."""
    return (a * b).sum(dtype=torch.float32 if a.dtype.itemsize < 4 else None)
