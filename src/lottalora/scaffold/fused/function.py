"""One layer as one node of the graph of autograd: what is saved, and which way it goes forward and back."""

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from lottalora.scaffold.fused import straight
from lottalora.scaffold.fused.arithmetic import flat
from lottalora.scaffold.fused.backward import gradients
from lottalora.scaffold.fused.blocks import rows_of_a_block
from lottalora.scaffold.fused.blocks import with_axes_of
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.fused.forward import output
from lottalora.scaffold.fused.how import How

Maybe = Tensor | None
Saved = tuple[Maybe, Tensor, Maybe, Maybe, Maybe, Maybe, Maybe]
TRAINED = (False, True, True, True)  # which of W, β, A and B need a gradient, nearly always


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
        h, t, Wx = output(x, W, beta, A, B, bias, how, keep_Wx=first)
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
    return gradients(ctx.needs_input_grad, ctx.how, dh, *ctx.saved_tensors)


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
    rows, how = flat(x), ctx.how
    ctx.factor = beta.item()
    mask = straight.mask_of(rows, how.dropout, how.seed)
    h, t, Wx = straight.output(rows, W, ctx.factor, A, B, bias, how.scale, mask, keep_Wx=keep_Wx)
    ctx.save_for_backward(x, W, beta, A, B, t, Wx)  # type: ignore[arg-type]  # None is allowed
    return with_axes_of(x, h)


def _straight_gradients(ctx: Context, factor: float, dh: Tensor) -> tuple[Tensor | None, ...]:
    """The gradients of a layer that went through `straight`, in the order of Fused.forward's arguments."""
    x, W, _, A, B, t, Wx = ctx.saved_tensors
    assert x is not None and A is not None and B is not None and t is not None, "all are trained"
    rows, dh = flat(x), flat(dh)
    mask = straight.mask_of(rows, ctx.how.dropout, ctx.how.seed)
    dx, dbeta, dA, dB = straight.gradients(dh, rows, W, factor, A, B, t, Wx, ctx.how.scale, mask)
    dx = None if dx is None else dx.view(x.shape)
    return dx, None, dbeta, dA, dB, dh.sum(0) if ctx.needs_input_grad[5] else None, None
