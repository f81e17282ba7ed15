"""Refusing models of which no file can say how to make them."""

from collections.abc import Mapping

import torch
from torch import nn

from lottalora.scaffold.layers.compose import composed_weights
from lottalora.scaffold.layers.dense import TRAINED
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.how_wrapped import Wrapping
from lottalora.scaffold.layers.reparametrization import reparametrized
from lottalora.scaffold.whole_model.backbone import verify


def wrapping_of(layers: Mapping[str, Frozen]) -> Wrapping:
    """How the model of these layers was wrapped.

    Raises:
        ValueError: they were not made by one call of `wrap`.
    """
    found = {id(layer.wrapping): layer.wrapping for layer in layers.values()}
    wrapping = next(iter(found.values()))
    if len(found) > 1 or wrapping is None:
        raise ValueError(
            "Some layers were not made by one call of wrap, so no file can say how to make them."
        )
    return wrapping


def refuse_a_part(model: nn.Module, wrapping: Wrapping) -> None:
    """Refuse a model of which `wrap` has only seen a part: the names in the file would be those of the part.

    Raises:
        ValueError: it is such a model.
    """
    modules = dict(model.named_modules(remove_duplicate=False))
    for name in wrapping.adapt:
        path, _, attribute = name.rpartition(".")
        holder = modules.get(path)
        if not isinstance(holder, Frozen) and (holder is None or attribute not in composed_weights(holder)):
            raise ValueError(
                f"Only a part of this model was wrapped, in which a weight is called {name!r}: save that "
                "part, or call wrap on the whole model."
            )


def refuse_what_cannot_be_saved(model: nn.Module, layers: Mapping[str, Frozen], store: bool) -> None:
    """Refuse layers whose tensors, or whose W_seed, no file can give back.

    Raises:
        ValueError: there is such a layer; the message says what to do.
    """
    for name, layer in layers.items():
        changed = reparametrized(layer, (*TRAINED, "bias"))
        if changed:
            raise ValueError(f"Layer {name!r} cannot be saved: {changed}")
        if layer.W_seed.is_meta or isinstance(layer.W_seed, nn.Parameter):
            where = "on the meta device" if layer.W_seed.is_meta else "sharded or a parameter"
            raise ValueError(f"W_seed of layer {name!r} is {where}: save a model that holds it whole.")
        if layer.source is None and not store:
            raise ValueError(
                f"W_seed of layer {name!r} was given, so no seed gives it back: pass store=True to store it."
            )
        layer.check(torch.empty(0))
    differing = [name for name in verify(model) if layers[name].source is not None]
    if differing:
        raise ValueError(
            f"W_seed of layer {differing[0]!r} is not what its seed gives: somebody wrote into it. Restore "
            "it with set_backbone_seed, or leave without_scaffold."
        )
