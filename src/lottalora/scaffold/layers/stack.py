r"""Layers that read the same x, computed together: q, k and v of an attention, gate and up of an MLP.

.. math:: h_i = \beta_i W_i\, x + s\, B_i A_i (m \odot x) + b_i

Each layer keeps its parameters and its W_seed; nothing is stacked in memory that outlives a step. There are
two forms. In the one, the rows of all A are one matrix, so that x is read once for all low-rank products, and
what they add to dx is one product too. In the other, all β_i W_i + s B_i A_i are one matrix, and its gradient
is PyTorch's. dβ_i = ⟨W_iᵀ dh_i, x⟩ as in `fused.linear`.

With adapter dropout, layers that are stacked share their mask m, as q, k and v do in loralib's MergedLinear;
each is zeroed with probability p as before, but no longer independently of the others. Drawing masks was most
of the time of such layers.

Letters: k layers, n rows of x, r rank.
"""

from collections.abc import Iterator
from collections.abc import Sequence
from typing import NamedTuple
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn
from torch.autograd import Function
from torch.autograd.function import FunctionCtx

from lottalora.scaffold.fused.blocks import with_axes_of
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.fused.cost import cheapest_stack
from lottalora.scaffold.fused.dropout import draw_masks
from lottalora.scaffold.fused.dropout import dropped
from lottalora.scaffold.fused.dropout import joined
from lottalora.scaffold.fused.dropout import zero_some_
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.layers.path import find_obstacle
from lottalora.scaffold.layers.path import mode_of
from lottalora.scaffold.layers.path import take

VALUES = 2**20  # of x and all h in one block of rows: measured, at 3 × 128 and 3 × 384
FEWEST = 256  # rows of a block
HOOKS = ("_forward_pre_hooks", "_forward_hooks", "_backward_pre_hooks", "_backward_hooks")


class Parts(NamedTuple):
    """The tensors of one layer that its gradients need."""

    W: Tensor
    beta: Tensor
    A: Tensor
    B: Tensor


class How(NamedTuple):
    """What of a stack is no tensor: s with the 1 / (1 − p) of dropout, p, and the seed of the mask."""

    scale: float
    dropout: float
    seed: int


def stacked(layers: Sequence[nn.Module], x: Tensor) -> tuple[Tensor, ...] | None:
    """h of each layer for the same x, (*, in), or None where they are to be called one by one."""
    if not are_alike(layers, x):
        return None
    ours = cast(Sequence[LottaLinear], layers)
    first = ours[0]
    dropout = first.adapter.dropout if first.training else 0.0
    if not dropout and not torch.is_grad_enabled():  # a step is what is counted
        return None
    form = cheapest_stack(
        tuple(len(layer.W_seed) for layer in ours),
        *(first.W_seed.shape[1], first.adapter.rank, x.numel() // max(x.shape[-1], 1)),
        dropout=dropout > 0,
    )
    if form is None:
        return None
    for layer in ours:
        layer.check(x)
        take(layer, Form.STACK)
    if form is Form.MERGE:
        return merged(ours, x)
    seed = int(torch.randint(2**62, (), device="cpu")) if dropout else 0
    how = How(first.adapter.scale / (1 - dropout), dropout, seed)
    parts, biases = [part for layer in ours for part in _parts_of(layer)], [layer.bias for layer in ours]
    h: tuple[Tensor, ...] = Stacked.apply(x, how, *parts, *biases)  # type: ignore[no-untyped-call]  # torch's
    return h


def are_alike(layers: Sequence[nn.Module], x: Tensor) -> bool:
    """Whether the layers are on the fast path, by cost, on a CPU, and have the same options and no hooks."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or torch.is_autocast_enabled("cpu"):
        return False
    if not all(type(layer) is LottaLinear and _is_plain(layer, x) for layer in layers):
        return False
    options = {_options(cast(LottaLinear, layer)) for layer in layers}
    return len(options) == 1 and len({id(layer) for layer in layers}) == len(layers) > 1


def _options(layer: LottaLinear) -> tuple[object, ...]:
    """What has to be the same in all layers."""
    adapter = layer.adapter
    return adapter.rank, adapter.scale, adapter.dropout, layer.training, layer.bias is None


def _is_plain(layer: LottaLinear, x: Tensor) -> bool:
    """Whether nothing of one layer stands in the way of computing it with others."""
    adapter, state = layer.adapter, vars(layer)
    if "forward" in state or any(state.get(hooks) for hooks in HOOKS):
        return False
    if layer.magnitude is not None or layer.norm is not None or adapter.residual or mode_of(layer) != "auto":
        return False
    given = (layer.beta, layer.A, layer.B)
    if any(part is None for part in given) or x.dtype.itemsize < 4:
        return False
    parts = given if layer.bias is None else (*given, layer.bias)
    alike = all(type(p) in (Tensor, nn.Parameter) and cast(Tensor, p).dtype is x.dtype for p in parts)
    return alike and x.shape[-1] == layer.W_seed.shape[1] and find_obstacle(layer, x) is None


def _parts_of(layer: LottaLinear) -> Parts:
    assert layer.beta is not None and layer.A is not None and layer.B is not None, "`_is_plain` has seen them"
    return Parts(layer.W_seed, layer.beta, layer.A, layer.B)


def merged(layers: Sequence[LottaLinear], x: Tensor) -> tuple[Tensor, ...]:
    """h of each layer by one product with all their weights; the gradient is autograd's."""
    W = torch.cat([layer._matrix() for layer in layers])
    biases = [layer.bias for layer in layers if layer.bias is not None]
    h = F.linear(x, W, torch.cat(biases) if biases else None)
    # The sizes are cut without views, so that an activation with `inplace=True` may write into its part.
    return torch.unsafe_split_with_sizes(h, [len(layer.W_seed) for layer in layers], dim=-1)


class Context(FunctionCtx):
    """What the forward pass of `Stacked` leaves for the backward pass: x, all t, and the layers' tensors."""

    how: How
    needs_input_grad: tuple[bool, ...]
    saved_tensors: tuple[Tensor, ...]


class Stacked(Function):
    """k layers as one node of the graph. Its backward pass can be differentiated again."""

    @staticmethod
    def forward(ctx: Context, x: Tensor, how: How, *tensors: Tensor) -> tuple[Tensor, ...]:
        """h_i, (*, in) → (*, out_i); the tensors are the Parts of each layer, then the biases or Nones."""
        layers = _layers(tensors)
        biases: Sequence[Tensor | None] = tensors[-len(layers) :]
        rows, A = x.reshape(-1, x.shape[-1]), torch.cat([layer.A for layer in layers])  # (n, in), (k r, in)
        t = rows.new_empty(len(rows), len(A))
        h = [rows.new_empty(len(rows), len(layer.W)) for layer in layers]
        factors = [layer.beta.item() for layer in layers]
        blocks = _blocks(rows, layers)
        for block, mask in zip(blocks, draw_masks(rows, blocks, how.dropout, how.seed), strict=True):
            x_now, t_now = rows[block], t[block]
            torch.mm(dropped(x_now, mask), A.T, out=t_now)
            for layer, bias, factor, h_all, part in zip(
                layers, biases, factors, h, _columns(t_now, layers), strict=True
            ):
                if bias is None:
                    h_now = torch.mm(part, layer.B.T, out=h_all[block])
                    h_now.addmm_(x_now, layer.W.T, beta=how.scale, alpha=factor)
                else:
                    h_now = torch.addmm(bias, part, layer.B.T, alpha=how.scale, out=h_all[block])
                    h_now.addmm_(x_now, layer.W.T, alpha=factor)
        ctx.how = how
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, t, *tensors[: -len(layers)])
        return tuple(with_axes_of(x, each) for each in h)

    @staticmethod
    def backward(ctx: Context, *dh: Tensor | None) -> tuple[Tensor | None, ...]:
        """The gradients of x, of each layer's parts and of the biases, from dh_i, (*, out_i).

        dh_i is None where h_i was not used.
        """
        x, t, *tensors = ctx.saved_tensors
        layers, how = _layers(tensors, len(dh)), ctx.how
        given = [
            layer.W.new_zeros(len(t), len(layer.W)) if each is None else each.reshape(len(t), -1)
            for each, layer in zip(dh, layers, strict=True)
        ]
        wants = ctx.needs_input_grad
        biases = [
            each.sum(0) if wanted else None for each, wanted in zip(given, wants[-len(layers) :], strict=True)
        ]
        if torch.is_grad_enabled():  # to be differentiated again
            return *_gradients_as_written(wants, how, given, x, layers), *biases
        rows = x.reshape(-1, x.shape[-1])
        dx, found = torch.empty_like(rows), Sums.of(layers)
        blocks = _blocks(rows, layers)
        for block, mask in zip(blocks, draw_masks(rows, blocks, how.dropout, how.seed), strict=True):
            found.add(rows[block], t[block], [each[block] for each in given], mask, how, dx[block])
        dA = found.dA.mul_(how.scale).split([len(layer.A) for layer in layers])
        gradients: list[Tensor | None] = [dx.view(x.shape), None]
        for dbeta, dA_i, dB in zip(found.dbeta, dA, found.dB, strict=True):
            gradients += [None, dbeta, dA_i, dB.mul_(how.scale).T]
        return *gradients, *biases


class Sums(NamedTuple):
    """The gradients that are added up over the rows.

    Args:
        layers: whose they are.
        factors: β of each.
        A: of all layers, (k r, in).
        tall: Bᵀ of each, (r, out_i), contiguous: as it lies, B takes up to twice as long.
        dA: (k r, in).
        dB: dBᵀ of each, (r, out_i).
        dbeta: of each.
    """

    layers: list[Parts]
    factors: list[float]
    A: Tensor
    tall: list[Tensor]
    dA: Tensor
    dB: list[Tensor]
    dbeta: list[Tensor]

    @classmethod
    def of(cls, layers: list[Parts]) -> "Sums":
        """Zeros for layers of these parts."""
        A, tall = torch.cat([layer.A for layer in layers]), [layer.B.T.contiguous() for layer in layers]
        factors = [layer.beta.item() for layer in layers]
        zeros = [torch.zeros_like(each) for each in tall], [torch.zeros_like(each.beta) for each in layers]
        return cls(layers, factors, A, tall, torch.zeros_like(A), *zeros)

    def add(self, x: Tensor, t: Tensor, dh: list[Tensor], mask: Tensor | None, how: How, dx: Tensor) -> None:
        """Add what some rows give, and write their dx.

        Args:
            x: (n, in).
            t: (n, k r).
            dh: (n, out_i) each.
            mask: of the dropout, for these rows.
            how: scale and dropout.
            dx: the memory for dx, (n, in).
        """
        u = torch.empty_like(t)  # Bᵀ dh, without s
        parts = zip(_columns(t, self.layers), _columns(u, self.layers), strict=True)
        for i, (t_i, u_i) in enumerate(parts):
            g = torch.mm(dh[i], self.layers[i].W, out=dx if i == 0 else None)
            self.dbeta[i].add_((g * x).sum())
            dx.mul_(self.factors[0]) if i == 0 else dx.add_(g, alpha=self.factors[i])
            u_i.copy_(F.linear(dh[i], self.tall[i]))
            self.dB[i].addmm_(t_i.T, dh[i])
        self.dA.addmm_(u.T, dropped(x, mask))
        if mask is None:
            dx.addmm_(u, self.A, alpha=how.scale)
        else:
            dx.add_(zero_some_(u @ self.A, mask), alpha=how.scale)


def _gradients_as_written(
    wants: Sequence[bool], how: How, dh: Sequence[Tensor], x: Tensor, layers: Sequence[Parts]
) -> list[Tensor | None]:
    """The gradients without those of the biases by autograd, so that they have gradients themselves."""
    rows = x.reshape(-1, x.shape[-1])
    blocks = _blocks(rows, layers)
    mask = joined(list(draw_masks(rows, blocks, how.dropout, how.seed)), blocks, rows)
    # A part that two layers share is differentiated as two, whose gradients autograd then adds.
    layers = [Parts(*(part.view_as(part) for part in layer)) for layer in layers]
    low = rows if mask is None else rows * zero_some_(torch.ones_like(rows), mask)
    h = [
        layer.beta * F.linear(rows, layer.W) + how.scale * F.linear(F.linear(low, layer.A), layer.B)
        for layer in layers
    ]
    inputs = [x, None, *(part for layer in layers for part in layer)]
    wanted = [each for each, want in zip(inputs, wants, strict=False) if want and each is not None]
    found = iter(torch.autograd.grad(h, wanted, dh, create_graph=True, allow_unused=True))
    return [next(found) if want else None for _, want in zip(inputs, wants, strict=False)]


def _layers(tensors: Sequence[Tensor], number: int | None = None) -> list[Parts]:
    """The parts of so many layers, by default of those that come with a bias each, or None for it."""
    size = len(Parts._fields)
    number = len(tensors) // (size + 1) if number is None else number
    return [Parts(*tensors[size * i : size * (i + 1)]) for i in range(number)]


def _columns(t: Tensor, layers: Sequence[Parts]) -> Iterator[Tensor]:
    """The part of t, (n, k r), that belongs to each layer, (n, r)."""
    yield from t.split([len(layer.A) for layer in layers], dim=1)


def _blocks(rows: Tensor, layers: Sequence[Parts]) -> list[slice]:
    """Blocks of rows that stay in the cache, as in `fused.blocks`, but larger: one goes through k layers."""
    n, columns = rows.shape
    step = max(FEWEST, VALUES // (columns + sum(len(layer.W) for layer in layers)))
    return [slice(None)] if n < 2 * step else [slice(first, first + step) for first in range(0, n, step)]
