"""Finding every weight matrix of a model, under all its names, and what each one can become."""

import fnmatch
from collections.abc import Iterable
from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field

import torch
from torch import Tensor
from torch import nn
from torch.nn.parameter import is_lazy

from lottalora.scaffold.attention import SplitAttention

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
# By qualified name, so that the library imports neither package.
LINEAR_ELSEWHERE = {
    "torch_geometric.nn.dense.linear.Linear": False,
    "transformers.pytorch_utils.Conv1D": True,
}


@dataclass
class Matrix:
    """A parameter of two or more axes.

    Args:
        value: the parameter, or for attention's packed projections the part of it.
        names: all its dotted names; tied weights have more than one.
        owners: the layers that hold it, (dotted name, module), each once.
    """

    value: Tensor
    names: list[str] = field(default_factory=list)
    owners: list[tuple[str, nn.Module]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.names[0]


def find_matrices(model: nn.Module) -> list[Matrix]:
    """Every parameter of two or more axes, once each, in the order of `named_modules`.

    The packed projection of an `nn.MultiheadAttention` counts as three matrices, named as `SplitAttention`
    will name them.

    Raises:
        ValueError: a lazy parameter, which has no shape yet.
    """
    found: dict[object, Matrix] = {}
    for layer, module in model.named_modules():
        for names, key, value in _own_matrices(layer, module):
            matrix = found.setdefault(key, Matrix(value))
            matrix.names += names
            matrix.owners.append((layer, module))
    return list(found.values())


def _own_matrices(layer: str, module: nn.Module) -> Iterator[tuple[list[str], object, Tensor]]:
    """(names, identity, value) of the matrices that one module holds itself; tied ones have one identity."""
    for name, value in module.named_parameters(recurse=False):
        if is_lazy(value):
            raise ValueError(
                f"{dotted(layer, name)} has no shape yet: run one batch through the model before wrapping it."
            )
        if value.dim() < 2:
            continue
        if name == "in_proj_weight" and type(module) is nn.MultiheadAttention:
            for projection, part in zip(SplitAttention.PROJECTIONS, value.chunk(3), strict=False):
                yield (
                    [dotted(layer, projection, "weight"), dotted(layer, name)],
                    (id(value), projection),
                    part,
                )
        elif name.endswith("_proj_weight") and type(module) is nn.MultiheadAttention:
            projection = name.removesuffix("_weight")
            yield [dotted(layer, projection, "weight"), dotted(layer, name)], id(value), value
        else:
            yield [dotted(layer, name)], id(value), value


def dotted(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def kind_of(module: nn.Module) -> str | None:
    """ "linear", "transposed" (linear with an (in, out) weight), "convolution", "embedding", or None: not
    known.

    A subclass counts only if it computes what its base does, that is, if it does not override `forward`.
    """
    cls = type(module)
    elsewhere = LINEAR_ELSEWHERE.get(f"{cls.__module__}.{cls.__qualname__}")
    if elsewhere is not None:
        return "transposed" if elsewhere else "linear"
    if cls.forward is nn.Linear.forward:
        return "linear"
    if any(
        cls.forward is c.forward and cls._conv_forward is c._conv_forward
        for c in CONVOLUTIONS
        if isinstance(module, c)
    ):
        return "convolution"
    if cls.forward is nn.Embedding.forward and module.max_norm is None:
        return "embedding"
    return None


def as_matrix(module: nn.Module) -> Tensor:
    """The layer's weight as (out, in), a convolution's kernel with its last axes flattened."""
    weight = module.weight
    return weight.T if kind_of(module) == "transposed" else weight.flatten(1)


@dataclass(frozen=True)
class Places:
    """Where each weight goes, by shell patterns over dotted names; a pattern that matches a module covers all
    below it.

    Args:
        keep: patterns of what stays dense and trained.
        freeze: patterns of what becomes random and frozen, without an adapter.
    """

    keep: tuple[str, ...]
    freeze: tuple[str, ...]

    def check(self, names: Iterable[str], modules: Iterable[str]) -> None:
        """A ValueError for a pattern that matches none of the names."""
        names = list(names)
        for kind, patterns in (("keep", self.keep), ("freeze", self.freeze)):
            for pattern in patterns:
                if not any(matches(pattern, name) for name in names):
                    known = ", ".join(name for name in modules if name) or "none"
                    raise ValueError(f"{kind}={pattern!r} names no weight of this model. Modules: {known}.")

    def of(self, names: Iterable[str]) -> str:
        """ "keep", "freeze" or "adapt" for a parameter with these names.

        Raises:
            ValueError: the patterns of both kinds match it.
        """
        names = list(names)
        keep, freeze = (any(matches(p, n) for p in ps for n in names) for ps in (self.keep, self.freeze))
        if keep and freeze:
            raise ValueError(f"{names[0]} is named both in keep= and in freeze=: choose one.")
        return "keep" if keep else "freeze" if freeze else "adapt"


def matches(pattern: str, name: str) -> bool:
    """Whether a shell pattern matches a dotted name, or the name of a module that it lies in."""
    parts = name.split(".")
    return any(fnmatch.fnmatchcase(".".join(parts[: i + 1]), pattern) for i in range(len(parts)))


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """The parameters and buffers that a module holds itself."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
