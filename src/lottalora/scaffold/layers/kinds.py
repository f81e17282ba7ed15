"""Which layers compute what a linear layer, a convolution or an embedding computes."""

from collections.abc import Iterator
from typing import TypeGuard
from typing import cast

import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.conv import _ConvNd

KINDS = ("linear", "transposed", "convolution", "embedding")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Qualified name → kind; a name and not a class, so that no package has to be imported.
REGISTERED = {
    "timm.layers.linear.Linear": "linear",  # casts under TorchScript only
    "torch_geometric.nn.dense.linear.Linear": "linear",
    "transformers.pytorch_utils.Conv1D": "transposed",
}


def register_layer(cls: type[nn.Module], kind: str) -> None:
    """Register a class of layers that computes the same as a layer of PyTorch, so that `wrap` adapts it.

    Args:
        cls: the class. It has the attributes `weight` and `bias` (None for a layer without a bias); a
            convolution also has those of `nn.Conv2d`, an embedding those of `nn.Embedding`. The registration
            covers subclasses that do not override `forward`.
        kind: "linear", W x + b with W (out, in); "transposed", the same with W (in, out); "convolution";
            or "embedding".

    Raises:
        ValueError: `kind` is none of these, or `cls` is not a class of modules.
    """
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise ValueError(f"register_layer takes a class of nn.Module, got {cls!r}.")
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of layer {kind!r}. Known: {', '.join(KINDS)}.")
    REGISTERED[_qualified(cls)] = kind


def kind_of(module: nn.Module) -> str | None:
    """The kind of a layer, one of KINDS; None for any other module.

    A subclass of a known layer has its kind if it does not override `forward`. A layer whose call is another
    one has none: it is scripted or traced, overrides `__call__`, or has a `forward` of its own.
    """
    cls = type(module)
    if issubclass(cls, torch.jit.ScriptModule) or calls_otherwise(module):
        return None
    registered = next(_registered(cls), None)
    if registered is not None:
        return registered
    if cls.forward is nn.Linear.forward:
        return "linear"
    for base in CONVOLUTIONS:
        if issubclass(cls, base) and (cls.forward, cls._conv_forward) == (base.forward, base._conv_forward):
            return "convolution"
    return "embedding" if cls.forward is nn.Embedding.forward else None


def calls_otherwise(module: nn.Module) -> bool:
    """Whether calling a module runs something else than the `forward` of its class."""
    return "forward" in vars(module) or type(module).__call__ is not nn.Module.__call__


def _registered(cls: type[nn.Module]) -> Iterator[str]:
    """The kinds registered for a class and for its bases with the same `forward`."""
    for base in cls.__mro__:
        kind = REGISTERED.get(_qualified(base))
        if kind is not None and issubclass(base, nn.Module) and cls.forward is base.forward:
            yield kind


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def as_matrix(module: nn.Module) -> Tensor:
    """The weight of a layer with a known kind as a matrix, (out, in).

    A convolution's kernel (out, in / groups, *k) becomes (out, in / groups · Πk).
    """
    weight = cast(Tensor, module.weight)
    return weight.T if kind_of(module) == "transposed" else weight.flatten(1)


def is_transposed_convolution(module: nn.Module) -> TypeGuard[_ConvNd]:
    """Whether a module is a transposed convolution of PyTorch, with its kernel (in, out / groups, *k)."""
    return isinstance(module, _ConvNd) and module.transposed
