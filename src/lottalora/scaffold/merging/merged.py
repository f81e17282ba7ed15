"""What `merge` takes out of a model, and what both directions need."""

from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.local_rows import fill
from lottalora.scaffold.drawing.marks import mark
from lottalora.scaffold.layers.composed_weight import LottaWeight
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.identity import bits
from lottalora.scaffold.wrapping.matrices import dotted

Print = tuple[torch.dtype, torch.device, torch.Size, str]  # of a tensor: its last part is a hash of the bits


@dataclass(frozen=True)
class Merged:
    """What `merge` took out of a model; `unmerge` puts it back, once.

    It holds A, B, β and the options, but no W_seed that its source gives back.

    Args:
        deviation: the largest rounding error of a merged weight, max |W' − W| / max |W| with W in float64.
        worst: the name of the layer with that error.
        modules: the layers and attentions of ours, by name.
        composed: the composed weights, by the names of the owner and of the parameter.
        vectors: the vectors that `freeze` had made buffers, by the names of the owner and of the vector.
        settings: the attributes that `wrap` had changed in foreign modules, by the names of the module and of
            the attribute.
        hooked: the names of the modules whose states were checked when loaded.
        classes: the class of each merged module, by name.
        prints: dtype, device, shape and hash of each merged tensor, by name.
    """

    deviation: float
    worst: str
    modules: dict[str, nn.Module] = field(repr=False)
    composed: dict[str, dict[str, LottaWeight]] = field(repr=False)
    vectors: dict[str, dict[str, Tensor]] = field(repr=False)
    settings: dict[str, dict[str, object]] = field(repr=False)
    hooked: list[str] = field(repr=False)
    classes: dict[str, type[nn.Module]] = field(repr=False)
    prints: dict[str, Print] = field(repr=False)


def prints(model: nn.Module, *merged: Mapping[str, object]) -> dict[str, Print]:
    """What each tensor of the merged modules looks like; `merged` have their names as keys."""
    names = {name for each in merged for name in each}
    return {name: _print(tensor) for name, tensor in _tensors_in(model, names)}


def _tensors_in(model: nn.Module, names: set[str]) -> Iterator[tuple[str, Tensor]]:
    for name, module in model.named_modules():
        if name in names:
            yield from ((dotted(name, each), p) for each, p in module.named_parameters(recurse=False))
            if type(module) is nn.MultiheadAttention:
                yield from (
                    (dotted(name, "out_proj", each), p) for each, p in module.out_proj.named_parameters()
                )


def _print(tensor: Tensor) -> Print:
    return tensor.dtype, tensor.device, tensor.shape, "" if tensor.is_meta else bits(tensor)


def swap_content(module: nn.Module, other: nn.Module) -> nn.Module:
    """Give a module the class and content of another one, in place; return a module with those it had."""
    held: nn.Module = object.__new__(type(module))
    held.__dict__ = vars(module)
    module.__class__, module.__dict__ = type(other), vars(other)
    return held


def redrawn(layer: Frozen) -> Tensor:
    """A new draw of a W_seed, which may be on the meta device, in its dtype and on its layer's device."""
    assert layer.source is not None, "a W_seed without a source is never forgotten"
    W = torch.empty_like(layer.W_seed, device=layer.identity.device)
    fill(W, layer.source)
    if layer.padding_idx is not None:
        W[layer.padding_idx] = 0
    return mark(W, layer.source)
