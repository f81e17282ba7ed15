"""Vectors that `freeze` names: they keep their value and become buffers, and `merge` makes them parameters.

Which ones they are is read from the plain model, so a normalisation that the option `layer_norm` adds is none
of them.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.layers.dense import as_parameter
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.wrapping.matrices import INPUTS
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.matrices import is_packed_bias
from lottalora.scaffold.wrapping.matrices import is_vector
from lottalora.scaffold.wrapping.places import Places

RECORD = "_lottalora_frozen_vectors"  # the attribute of a foreign module that names its frozen vectors


class Vector(NamedTuple):
    """A vector, by where it is when the matrices have been converted.

    Args:
        layer: the dotted name of the module that holds it directly.
        attribute: its name in that module.
    """

    layer: str
    attribute: str


def vectors_to_freeze(
    model: nn.Module, places: Places, attentions: dict[str, nn.MultiheadAttention]
) -> list[Vector]:
    """The vectors of a plain model that `freeze` names, by any name of their modules.

    Args:
        model: the model, before it is wrapped.
        places: the patterns of `wrap`.
        attentions: those that become four projections; the bias of q, k and v is three vectors then.

    Raises:
        ValueError: one is in a scripted or traced module; or a pattern names nothing but such a part of an
            attention that stays as it is.
    """
    layers: dict[nn.Module, list[str]] = {}
    for name, module in model.named_modules(remove_duplicate=False):
        layers.setdefault(module, []).append(name)
    split = set(attentions.values())
    found = []
    absent: set[str] = set()
    for module, names in layers.items():
        for attribute, value in module.named_parameters(recurse=False, remove_duplicate=False):
            if not is_vector(module, attribute, value):
                continue
            if is_packed_bias(module, attribute) and module in split:
                places_of_parts = {each: places.of(_names_of_part(names, each)) for each in INPUTS}
                frozen = [each for each, place in places_of_parts.items() if place == "freeze"]
                found += [Vector(dotted(names[0], each), "bias") for each in frozen]
                continue
            if is_packed_bias(module, attribute):
                absent |= {dotted(name, each, "bias") for name in names for each in INPUTS}
            if places.of([dotted(name, attribute) for name in names]) == "freeze":
                _refuse_scripted(module, dotted(names[0], attribute))
                found.append(Vector(names[0], attribute))
    places.refuse_without_effect("freeze", absent)
    return found


def _names_of_part(attention: list[str], projection: str) -> list[str]:
    """The names of the bias of one projection in the attention of these names."""
    return [dotted(name, *own) for name in attention for own in ((projection, "bias"), ("in_proj_bias",))]


def _refuse_scripted(module: nn.Module, name: str) -> None:
    if isinstance(module, torch.jit.ScriptModule):
        raise ValueError(
            f"{name} is in a scripted or traced module, which cannot be changed: leave it out of freeze=."
        )


def freeze_vectors(model: nn.Module, vectors: list[Vector]) -> list[str]:
    """Turn vectors of a wrapped model into buffers with their present values.

    Args:
        model: the model.
        vectors: what `vectors_to_freeze` found in it before.

    Returns:
        Their names, without those that were frozen together with their matrix.
    """
    frozen = []
    for layer, attribute in vectors:
        module = model.get_submodule(layer)
        value = module._parameters.get(attribute)
        if value is None:
            continue
        names = frozen_vectors(module)
        put_buffer(module, attribute, value.detach().clone())
        if not (isinstance(module, LottaLayer) and attribute == "bias"):  # `plain_layer` knows of that one
            vars(module)[RECORD] = (*names, attribute)
        frozen.append(dotted(layer, attribute))
    return frozen


def frozen_vectors(module: nn.Module) -> tuple[str, ...]:
    """The names of the vectors of a foreign module that are frozen."""
    names: tuple[str, ...] = vars(module).get(RECORD, ())
    return names


def thaw_vectors(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Turn frozen vectors of foreign modules into parameters without a gradient; return the buffers."""
    found = {}
    for name, module in model.named_modules():
        names = frozen_vectors(module)
        if names:
            del vars(module)[RECORD]
            found[name] = {each: module._buffers.pop(each) for each in names}
            module._parameters |= {each: as_parameter(vector) for each, vector in found[name].items()}
    return found


def freeze_again(module: nn.Module, vectors: dict[str, Tensor]) -> None:
    """Undo `thaw_vectors` for one module."""
    for name, vector in vectors.items():
        put_buffer(module, name, vector)
    vars(module)[RECORD] = tuple(vectors)


def put_buffer(module: nn.Module, name: str, value: Tensor) -> None:
    """Put a buffer, of any shape, in the place of a parameter."""
    delattr(module, name)
    module.register_buffer(name, value)
