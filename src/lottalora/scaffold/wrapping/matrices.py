"""Finding every weight matrix of a model, under all its names."""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field

import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy
from torch.nn.utils.parametrize import ParametrizationList

from lottalora.scaffold.layers.attention import SplitAttention
from lottalora.scaffold.layers.kinds import kind_of

INPUTS = SplitAttention.PROJECTIONS[:3]  # q, k and v


@dataclass(frozen=True)
class Owner:
    """A module that holds a matrix directly, not in a submodule.

    Args:
        layer: the module's dotted name.
        module: the module.
        attribute: the parameter's name in the module.
        reader: the module whose weight it is: `module`, or the convolution that has it parametrized.
    """

    layer: str
    module: nn.Module
    attribute: str
    reader: nn.Module

    @property
    def kind(self) -> str | None:
        """The kind of the layer, see `kind_of`, if the parameter is its weight; else None."""
        return kind_of(self.module) if self.attribute == "weight" else None

    @property
    def known(self) -> bool:
        """Whether the parameter is the weight of a layer of a known kind, or a projection of attention."""
        return self.kind is not None or is_projection(self.module, self.attribute)


@dataclass
class Matrix:
    """A parameter of two or more axes that is not a vector, see `is_vector`.

    Args:
        value: the parameter, or one projection of attention's packed parameter.
        parameter: the parameter.
        names: all its dotted names; tied weights and modules used twice have more than one.
        owners: the modules that hold it.
    """

    value: Tensor
    parameter: nn.Parameter
    names: list[str] = field(default_factory=list)
    owners: list[Owner] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The first of its names."""
        return self.names[0]

    @property
    def kinds(self) -> set[str | None]:
        """The kinds of its owners, see `Owner.kind`."""
        return {owner.kind for owner in self.owners}

    @property
    def fixed(self) -> bool:
        """Whether it is a constant of the model, such as a table of sines.

        That is a parameter without a gradient that belongs to no layer of a known kind.
        """
        return not self.parameter.requires_grad and not any(owner.known for owner in self.owners)


def find_matrices(model: nn.Module) -> list[Matrix]:
    """Find every matrix of a model, in the order of `named_modules`.

    A tied matrix is found once, with all its names. The packed projection of an `nn.MultiheadAttention` is
    three matrices, with the names that they have in `SplitAttention`.

    Raises:
        ValueError: a lazy parameter has no shape yet.
    """
    found: dict[object, Matrix] = {}
    weights = _weights(model)
    for layer, module in model.named_modules(remove_duplicate=False):
        for names, key, value, parameter, attribute in _own_matrices(layer, module, weights):
            matrix = found.setdefault(key, Matrix(value, parameter))
            matrix.names += names
            if not any(o.module is module and o.attribute == attribute for o in matrix.owners):
                reader = _reader(model, layer, module, value)
                matrix.owners.append(Owner(layer, module, attribute, reader))
    return list(found.values())


def _reader(model: nn.Module, layer: str, module: nn.Module, value: Tensor) -> nn.Module:
    """The convolution whose parametrized kernel a module holds, in the kernel's shape; else the module."""
    if not isinstance(module, ParametrizationList):
        return module
    parametrized = model.get_submodule(".".join(layer.split(".")[:-2]))  # LAYER.parametrizations.weight
    is_kernel = isinstance(parametrized, _ConvNd) and value.shape[2:] == torch.Size(parametrized.kernel_size)
    return parametrized if is_kernel else module


def _weights(model: nn.Module) -> set[int]:
    """The ids of all parameters that are no vector in one of the modules that hold them."""
    return {
        id(value)
        for module in model.modules()
        for name, value in module._parameters.items()
        if value is not None and not is_lazy(value) and not is_vector(module, name, value)
    }


def _own_matrices(
    layer: str, module: nn.Module, weights: set[int]
) -> Iterator[tuple[list[str], object, Tensor, nn.Parameter, str]]:
    """(names, identity, value, parameter, attribute) of the matrices that one module holds directly.

    Tied matrices have the same identity. What is a matrix elsewhere, and in `weights`, is one here too.
    """
    for name, value in module._parameters.items():
        if value is None:
            continue
        if is_lazy(value):
            raise ValueError(
                f"{dotted(layer, name)} has no shape yet: run one batch through the model before wrapping it."
            )
        if id(value) not in weights:
            continue
        full = dotted(layer, name)
        if name == "in_proj_weight" and type(module) is nn.MultiheadAttention:
            for projection, part in zip(SplitAttention.PROJECTIONS, value.chunk(3), strict=False):
                yield (
                    [dotted(layer, projection, "weight"), full],
                    (id(value), projection),
                    part,
                    value,
                    projection,
                )
        elif name.endswith("_proj_weight") and type(module) is nn.MultiheadAttention:
            projection = name.removesuffix("_weight")
            yield [dotted(layer, projection, "weight"), full], id(value), value, value, projection
        else:
            yield [full], id(value), value, value, name


def is_projection(module: nn.Module, attribute: str) -> bool:
    """Whether `Owner.attribute` is one of an attention's projections q, k and v.

    Args:
        module: any module.
        attribute: the parameter's name in the module, or that of the projection.
    """
    return type(module) is nn.MultiheadAttention and attribute in SplitAttention.PROJECTIONS


def is_packed_bias(module: nn.Module, name: str) -> bool:
    """Whether a parameter of this name in a module is the bias of q, k and v of an attention."""
    return name == "in_proj_bias" and type(module) is nn.MultiheadAttention


def projected_biases(model: nn.Module) -> set[str]:
    """The names that the biases of q, k and v have once their attention is `SplitAttention`."""
    return {
        dotted(name, projection, "bias")
        for name, module in model.named_modules(remove_duplicate=False)
        if type(module) is nn.MultiheadAttention and module.in_proj_bias is not None
        for projection in INPUTS
    }


def is_vector(module: nn.Module, name: str, value: Tensor) -> bool:
    """Whether a parameter counts as a vector, which stays trained as biases and norms do.

    Parameters with at most one axis are vectors. So are those with at most one axis longer than 1, such as a
    class token (1, 1, d) or a layer scale (c, 1, 1), unless they are the weight of a layer of a known kind:
    the weight of Linear(8, 1) is a matrix.

    Args:
        module: the module that holds the parameter directly.
        name: the parameter's name in the module.
        value: the parameter, of any shape.
    """
    if value.dim() < 2:
        return True
    if sum(n > 1 for n in value.shape) > 1 or type(module) is nn.MultiheadAttention and "_proj_" in name:
        return False
    return name != "weight" or kind_of(module) is None


def dotted(*parts: str) -> str:
    """Join parts of a name with dots, without the empty ones."""
    return ".".join(part for part in parts if part)


def tensors_of(module: nn.Module) -> list[torch.Tensor]:
    """The parameters and buffers that a module holds directly, of any shape."""
    return [*module.parameters(recurse=False), *module.buffers(recurse=False)]
