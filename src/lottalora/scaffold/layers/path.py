"""Which way a layer takes to its output: the fast one where it can, else the reference in `layer`.

`auto` counts the cost of each form and takes the cheapest; on a GPU it takes the reference, which is faster
there by measurement (docs/evidence.md, Table 9). What has to run as written (under a transform of PyTorch's,
on a device or in a dtype that was not tested) says so in one line of the log. `force` raises there instead,
`off` is the reference, and the name of a form asks for that one.
"""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from typing import Protocol
from typing import TypeGuard

import torch
from torch import Tensor
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental import proxy_tensor

from lottalora.scaffold.adapter import Adapter
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.fused.cost import cheapest
from lottalora.scaffold.layers.frozen import Frozen

log = logging.getLogger(__name__)

NOT_ASKED_FOR = (Form.REFERENCE, Form.STACK)  # "off" asks for the one; the other is no form of one layer
MODES = ("auto", "force", "off", *(form.value for form in Form if form not in NOT_ASKED_FOR))
NO_DROPOUT = {
    "add": "one input of both paths is needed to add",
    "compose": "there is no single matrix to compose",
    "merge": "there is no single matrix to merge",
}
DEVICES = ("cpu", "cuda")
COUNTED = ("cpu",)  # where the form of the least counted cost was measured to be the fastest
DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
_mode: ContextVar[str | None] = ContextVar("fused", default=None)


class Layer(Protocol):
    """What is read here of a layer, in the names of `layers.LottaLayer`, which imports this module."""

    W_seed: Tensor
    A: nn.Parameter | None
    beta: nn.Parameter | None
    adapter: Adapter
    source: Source | None
    training: bool
    fused: str
    taken: Form | None


def set_fused(model: nn.Module, mode: str) -> int:
    """Say how the layers of a scaffold compute: "auto", "force", "off", or one form by name.

    Parameters and states are the same on every path, so a run may go on by another.

    Returns:
        The number of layers that were told.

    Raises:
        ValueError: an unknown mode, or a model without a scaffold.
    """
    _check(mode)
    layers = [module for module in model.modules() if _is_layer(module)]
    if not layers:
        raise ValueError("This model has no scaffold layer to speed up: call wrap first.")
    for layer in layers:
        layer.fused = mode
    return len(layers)


@contextmanager
def fused_as(mode: str) -> Iterator[None]:
    """The same for every layer that is called within, whatever it was told."""
    _check(mode)
    token = _mode.set(mode)
    try:
        yield
    finally:
        _mode.reset(token)


def paths_taken(model: nn.Module) -> dict[str, int]:
    """How many scaffold layers took which form in their last training step; "none" where there was none.

    Before the first one, a call without gradients counts. A layer whose weight is read in place of calling it
    took "merge".
    """
    taken = [module.taken for module in model.modules() if _is_layer(module)]
    return dict(Counter("none" if form is None else form.value for form in taken))


def choose(layer: Layer, x: Tensor) -> Form:
    """The form in which a linear layer computes h of this x.

    Raises:
        ValueError: mode "force", or a form by name, where it does not fit.
    """
    if torch.compiler.is_compiling():  # a compiler fuses the reference itself
        return Form.REFERENCE
    mode = mode_of(layer)
    obstacle = "it is off" if mode == "off" else find_obstacle(layer, x)
    dropping = layer.training and layer.adapter.dropout > 0
    if mode in NO_DROPOUT and dropping and layer.A is not None:
        obstacle = obstacle or f"with adapter dropout {NO_DROPOUT[mode]}"
    settled = _settle(layer, mode, obstacle)
    if settled is not None:
        return take(layer, settled)
    out, columns = layer.W_seed.shape
    kind = x.device.type
    if mode == "auto" and kind not in COUNTED:
        return take(layer, Form.REFERENCE)
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype
    first = layer.beta is not None and layer.beta.requires_grad and not x.requires_grad
    rank = 0 if layer.A is None else layer.adapter.rank
    rows = x.numel() // max(columns, 1)
    return take(layer, cheapest(out, columns, rank, rows, dtype=dtype, dropout=dropping, first=first))


def mode_of(layer: Layer) -> str:
    """What `fused_as` or else `set_fused` said about a layer."""
    return _mode.get() or layer.fused


def take(layer: Layer, form: Form) -> Form:
    """Note the form that a layer takes, unless it is scored and was trained by another, and return it."""
    if layer.taken is not form and (layer.taken is None or torch.is_grad_enabled()):
        layer.taken = form  # only where it changes, since a module's attributes are slow to set
    return form


def choose_convolution(layer: Layer, x: Tensor, *, small: bool) -> Form:
    """MERGE, or REFERENCE: the two forms that a convolution has.

    Args:
        layer: the convolution.
        x: its input.
        small: whether the merged kernel is counted as cheaper.
    """
    dropping = layer.training and layer.adapter.dropout > 0  # then the paths see different inputs
    if torch.compiler.is_compiling():
        return Form.MERGE if small and not dropping else Form.REFERENCE
    mode = mode_of(layer)
    obstacle = None
    if mode in ("force", "add", "accumulate", "compose") and (dropping or not small):
        obstacle = "convolutions merge small kernels without adapter dropout, and have no other form"
    elif mode == "merge" and dropping:
        obstacle = "with adapter dropout there is no single kernel"
    _settle(layer, mode, obstacle)
    merges = not dropping and (small or mode == "merge") and mode != "off"
    return take(layer, Form.MERGE if merges else Form.REFERENCE)


def composes_in_one_call(layer: Layer, W: Tensor, A: Tensor | None) -> bool:
    """Whether the one matrix of a layer is made by fewer calls than the equation is written with.

    Measured, forward and backward: in 0.72 of the time for 64 × 64 and r = 8, in 0.47 for 1024 × 256. A
    function in Python that makes it in one pass takes longer: its own call costs more than what it saves.

    Args:
        layer: the layer.
        W: its W_seed, (out, in).
        A: its A, (r, in), or None.
    """
    if torch.compiler.is_compiling() or W.is_meta or mode_of(layer) == "off":
        return False
    exact = A is not None and A.dtype is W.dtype and W.dtype.itemsize >= 4  # addmm has one dtype
    return exact and not torch.is_autocast_enabled(W.device.type)


def find_obstacle(layer: Layer, x: Tensor) -> str | None:
    """Why the reference has to run, in words; None if nothing is in the way."""
    W_seed = layer.W_seed
    if torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0:
        return "torch.func and forward-mode derivatives transform the reference"
    tracing = torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]  # public, without a type
    if proxy_tensor.get_proxy_mode() is not None:
        return "make_fx traces, and β is no number of the graph"
    if tracing or type(x) not in (Tensor, nn.Parameter):
        return f"x is traced, or a {type(x).__name__}"
    if type(W_seed) not in (Tensor, nn.Parameter) or W_seed.requires_grad:
        return "W_seed is not a plain frozen tensor"
    if x.device.type not in DEVICES or x.device != W_seed.device:
        return f"it was not tested for x on {x.device} and W_seed on {W_seed.device}"
    if x.dtype not in DTYPES or (x.dtype != W_seed.dtype and not torch.is_autocast_enabled(x.device.type)):
        return f"it was not tested for x of {x.dtype} and W_seed of {W_seed.dtype}"
    return None


def _is_layer(module: nn.Module) -> TypeGuard[Layer]:
    """Whether it is a scaffold layer that computes; `layers`, which defines them, imports this module."""
    return isinstance(module, Frozen) and hasattr(type(module), "taken")


def _settle(layer: Layer, mode: str, obstacle: str | None) -> Form | None:
    """The form that mode or obstacle decide; None if the cost is to."""
    if mode == "off":
        return Form.REFERENCE
    if obstacle is None:
        return None if mode in ("auto", "force") else Form(mode)
    if mode != "auto":
        name = layer.source.name if layer.source else type(layer).__name__
        raise ValueError(f"fused={mode} does not fit layer {name!r}: {obstacle}. Type fused=auto.")
    _say(obstacle)
    return Form.REFERENCE


@cache
def _say(obstacle: str) -> None:
    log.info("Scaffold layers run as written, not fused: %s.", obstacle)


def _check(mode: str) -> None:
    if mode not in MODES:
        raise ValueError(f"Unknown mode fused={mode!r}. Known: {', '.join(MODES)}.")
