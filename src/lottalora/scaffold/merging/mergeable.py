"""The checks that `merge` makes before it changes anything."""

import torch
from torch import nn

from lottalora.scaffold.drawing.local_rows import is_shared_out
from lottalora.scaffold.layers.attention import SplitAttention
from lottalora.scaffold.layers.compose import composed_weights
from lottalora.scaffold.layers.composed_weight import LottaWeight
from lottalora.scaffold.layers.dense import TRAINED
from lottalora.scaffold.layers.dense import Layer
from lottalora.scaffold.layers.in_block import OTHER_FORWARD
from lottalora.scaffold.layers.in_block import has_other_forward
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.layers.reparametrization import reparametrized
from lottalora.scaffold.whole_model.backbone import scaffold_layers


def refuse_what_cannot_be_merged(model: nn.Module) -> None:
    """Refuse a model with a layer that is no single matrix, or whose weight others compute or hold.

    Raises:
        ValueError: the model has no scaffold, or a layer cannot be merged.
    """
    owned = {id(part) for module in model.modules() for part in composed_weights(module).values()}
    for name, layer in scaffold_layers(model).items():
        reason = _obstacle(layer, owned)
        if reason:
            raise ValueError(f"Layer {name!r} cannot be merged: {reason}")
        layer.check(torch.empty(0))
    for name, module in model.named_modules():
        reason = _obstacle_of_owner(module)
        if reason:
            raise ValueError(f"Module {name!r} cannot be merged: {reason}")


def _obstacle(layer: Layer, owned: set[int]) -> str | None:
    """Why a layer cannot be merged; None if it can."""
    changed = reparametrized(layer, (*TRAINED, "bias"))
    if changed:
        return changed
    if layer.blocks:
        return f"it is in a block of {layer.blocks[-1].name}. Leave that block first."
    if has_other_forward(layer):
        return OTHER_FORWARD
    if is_shared_out(layer.W_seed) or isinstance(layer.W_seed, nn.Parameter):
        return "its rows are shared out among processes (fsdp). Load its state into a model that is not."
    if layer.W_seed.is_meta:
        return "W_seed is on the meta device. Call materialize(model) first."
    if layer._lost:
        return "its W_seed was given, not drawn, and has lost its values. Assign layer.W_seed first."
    if not (id(layer) in owned if isinstance(layer, LottaWeight) else hasattr(layer, "replaced")):
        return "it was built as it is, not by wrap, so it has no ordinary layer to become."
    if not isinstance(layer, LottaLayer):
        return None
    adapter = layer.adapter
    if adapter.residual or layer.norm is not None:
        option = "residual" if adapter.residual else "layer_norm"
        return f"{option}=True is no part of its weight. Merge a model that was wrapped without it."
    if adapter.dropout and layer.training:
        return f"its adapter dropout of {adapter.dropout:g} is active. Call model.eval() first."
    return None


def _obstacle_of_owner(module: nn.Module) -> str | None:
    """Why an attention, or the owner of composed weights, cannot be merged; None if it can."""
    if composed_weights(module) and "plain_class" not in vars(type(module)):
        return (
            f"its class became {type(module).__name__} after wrap, by a parametrization or fsdp. Undo that."
        )
    if isinstance(module, SplitAttention) and hasattr(module, "replaced"):
        for each in SplitAttention.PROJECTIONS:
            projection = getattr(module, each)
            if not isinstance(projection, LottaLayer) and type(projection) is not nn.Linear:
                return f"its {each} became {type(projection).__name__} after wrap. Undo that."
    return None
