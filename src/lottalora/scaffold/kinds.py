"""Which layers compute what a linear layer, a convolution or an embedding computes."""

from collections.abc import Iterator

from torch import Tensor
from torch import nn
from torch.nn.modules.conv import _ConvNd

KINDS = ("linear", "transposed", "convolution", "embedding")
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# Qualified name → kind: a name, so that no package is imported for it.
REGISTERED = {
    "timm.layers.linear.Linear": "linear",  # casts under TorchScript only
    "torch_geometric.nn.dense.linear.Linear": "linear",
    "transformers.pytorch_utils.Conv1D": "transposed",
}


def register_layer(cls: type[nn.Module], kind: str) -> None:
    """Say that a class computes what one of PyTorch's layers computes, so that `wrap` adapts it as that.

    Args:
        cls: has `weight` and `bias` (None for a layer without); a convolution also the attributes of
            `nn.Conv2d`, an embedding those of `nn.Embedding`. Subclasses count while they keep its `forward`.
        kind: "linear", W x + b with W (out, in); "transposed", the same with W (in, out); "convolution";
            or "embedding".

    Raises:
        ValueError: another kind, or `cls` is no class of modules.
    """
    if not isinstance(cls, type) or not issubclass(cls, nn.Module):
        raise ValueError(f"register_layer takes a class of nn.Module, got {cls!r}.")
    if kind not in KINDS:
        raise ValueError(f"Unknown kind of layer {kind!r}. Known: {', '.join(KINDS)}.")
    REGISTERED[_qualified(cls)] = kind


def kind_of(module: nn.Module) -> str | None:
    """One of KINDS, or None: not known.

    A subclass counts only if it computes what its base does, that is, if it does not override `forward`.
    """
    cls = type(module)
    registered = next(_registered(cls), None)
    if registered is not None:
        return registered
    if cls.forward is nn.Linear.forward:
        return "linear"
    if any(
        cls.forward is c.forward and cls._conv_forward is c._conv_forward
        for c in CONVOLUTIONS
        if isinstance(module, c)
    ):
        return "convolution"
    return "embedding" if cls.forward is nn.Embedding.forward else None


def _registered(cls: type[nn.Module]) -> Iterator[str]:
    for base in cls.__mro__:
        kind = REGISTERED.get(_qualified(base))
        if kind is not None and cls.forward is base.forward:
            yield kind


def _qualified(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def as_matrix(module: nn.Module) -> Tensor:
    """The layer's weight as (out, in), a convolution's kernel with its last axes flattened."""
    weight = module.weight
    return weight.T if kind_of(module) == "transposed" else weight.flatten(1)


def is_transposed_convolution(module: nn.Module) -> bool:
    return isinstance(module, _ConvNd) and module.transposed
