"""Finding every weight matrix of a model, under all its names."""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field

import torch
from torch import Tensor
from torch import nn
from torch.nn.parameter import is_lazy

from lottalora.scaffold.attention import SplitAttention
from lottalora.scaffold.kinds import kind_of


@dataclass(frozen=True)
class Owner:
    """A module that holds a matrix itself.

    Args:
        layer: its dotted name.
        module: the module.
        attribute: the parameter's name in it.
    """

    layer: str
    module: nn.Module
    attribute: str

    @property
    def kind(self) -> str | None:
        """What the module computes with this parameter, as `kind_of`; None: not known."""
        return kind_of(self.module) if self.attribute == "weight" else None


@dataclass
class Matrix:
    """A parameter of two or more axes that is no vector in disguise.

    Args:
        value: the parameter, or for attention's packed projections the part of it.
        names: all its dotted names; tied weights and modules used twice have more than one.
        owners: the modules that hold it.
    """

    value: Tensor
    names: list[str] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.names[0]

    @property
    def kinds(self) -> set[str | None]:
        """What its owners compute with it."""
        return {owner.kind for owner in self.owners}

    @property
    def fixed(self) -> bool:
        """Whether the model's author made it a constant, such as a table of sines: not trained, and part of
        no layer that `wrap` knows.
        """
        return not self.value.requires_grad and self.kinds == {None}


def find_matrices(model: nn.Module) -> list[Matrix]:
    """Every parameter of two or more axes, once each, in the order of `named_modules`, without vectors.

    The packed projection of an `nn.MultiheadAttention` counts as three matrices, named as `SplitAttention`
    will name them.

    Raises:
        ValueError: a lazy parameter, which has no shape yet.
    """
    found: dict[object, Matrix] = {}
    for layer, module in model.named_modules(remove_duplicate=False):
        for names, key, value, attribute in _own_matrices(layer, module):
            matrix = found.setdefault(key, Matrix(value))
            matrix.names += names
            if not any(o.module is module and o.attribute == attribute for o in matrix.owners):
                matrix.owners.append(Owner(layer, module, attribute))
    return list(found.values())


def _own_matrices(layer: str, module: nn.Module) -> Iterator[tuple[list[str], object, Tensor, str]]:
    """(names, identity, value, attribute) of the matrices that one module holds itself; tied ones have one
    identity.
    """
    for name, value in module._parameters.items():
        if value is None:
            continue
        if is_lazy(value):
            raise ValueError(
                f"{dotted(layer, name)} has no shape yet: run one batch through the model before wrapping it."
            )
        if is_vector(module, name, value):
            continue
        full = dotted(layer, name)
        if name == "in_proj_weight" and type(module) is nn.MultiheadAttention:
            for projection, part in zip(SplitAttention.PROJECTIONS, value.chunk(3), strict=False):
                yield [dotted(layer, projection, "weight"), full], (id(value), projection), part, projection
        elif name.endswith("_proj_weight") and type(module) is nn.MultiheadAttention:
            projection = name.removesuffix("_weight")
            yield [dotted(layer, projection, "weight"), full], id(value), value, projection
        else:
            yield [full], id(value), value, name


def is_vector(module: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a parameter stays trained as biases and norms do.

    True of one axis or none; and of at most one axis longer than 1, such as a class token (1, 1, d) or a
    layer scale (c, 1, 1), unless it is the weight of a layer: that of Linear(8, 1) is a matrix.
    """
    if value.dim() < 2:
        return True
    if sum(n > 1 for n in value.shape) > 1 or type(module) is nn.MultiheadAttention and "_proj_" in name:
        return False
    return name != "weight" or kind_of(module) is None


def dotted(*parts: str) -> str:
    return ".".join(part for part in parts if part)


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """The parameters and buffers that a module holds itself."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
