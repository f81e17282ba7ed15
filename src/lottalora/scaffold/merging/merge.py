"""Merging: a model on a scaffold becomes the ordinary model with its dense weights."""

import torch
from torch import nn

from lottalora.scaffold.drawing.marks import is_untouched
from lottalora.scaffold.layers.attention import SplitAttention
from lottalora.scaffold.layers.compose import PREFIX
from lottalora.scaffold.layers.compose import composed_weights
from lottalora.scaffold.layers.composed_weight import LottaWeight
from lottalora.scaffold.layers.dense import DenseWeights
from lottalora.scaffold.layers.dense import Layer
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.merging.mergeable import refuse_what_cannot_be_merged
from lottalora.scaffold.merging.merged import Merged
from lottalora.scaffold.merging.merged import prints
from lottalora.scaffold.merging.merged import redrawn
from lottalora.scaffold.merging.merged import swap_content
from lottalora.scaffold.merging.plain import plain_attention
from lottalora.scaffold.merging.plain import plain_layer
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.set_aside import restore
from lottalora.scaffold.wrapping.siblings import unshare_inputs
from lottalora.scaffold.wrapping.state import check_state
from lottalora.scaffold.wrapping.vectors import thaw_vectors


@torch.no_grad()
@torch.inference_mode(False)  # else the weights could never be trained
def merge(model: nn.Module) -> Merged:
    r"""Turn a model on a scaffold into the ordinary one, in place: every weight becomes dense.

    .. math:: W = \beta W_{seed} + s\, B A \quad\text{after DoRA}

    Each module gets the class back that it had before `wrap`, and nothing of this library stays in the model.
    W is computed in float64 and rounded once to the layer's dtype. Tied weights stay tied. A merged weight
    requires a gradient if some of its adapter did. The modules stay the same objects, except the `out_proj`
    of `nn.MultiheadAttention`.

    Args:
        model: a model on a scaffold.

    Returns:
        What `unmerge` needs, and the largest rounding error. It stays valid until the model is changed.

    Raises:
        ValueError: the model has no scaffold; or a layer cannot be merged: it has residual, layer_norm or
            active dropout, is parametrized by somebody else, is sharded, was not made by `wrap`, or has lost
            its W_seed. The model is unchanged then.
    """
    refuse_what_cannot_be_merged(model)
    weights = DenseWeights()
    plain = _plain_modules(model, weights)
    composed = {name: composed_weights(module) for name, module in model.named_modules()}
    composed = {name: parts for name, parts in composed.items() if parts}
    dense = {name: _dense(name, parts, weights) for name, parts in composed.items()}
    modules = {name: swap_content(model.get_submodule(name), module) for name, module in plain.items()}
    for name, parameters in dense.items():
        _put_back(model.get_submodule(name), parameters)
    _forget_drawn([*modules.values(), *(part for parts in composed.values() for part in parts.values())])
    unshare_inputs(model)
    vectors, settings, hooked = thaw_vectors(model), _restore(model), _unhook(model)
    worst = max(weights.deviations, key=weights.deviations.__getitem__)
    classes = {name: type(model.get_submodule(name)) for name in [*plain, *dense]}
    return Merged(
        deviation=weights.deviations[worst],
        worst=worst,
        modules=modules,
        composed=composed,
        vectors=vectors,
        settings=settings,
        hooked=hooked,
        classes=classes,
        prints=prints(model, plain, dense, vectors),
    )


def _plain_modules(model: nn.Module, weights: DenseWeights) -> dict[str, nn.Module]:
    """The ordinary module for each layer and attention of ours, by name; the model is not changed."""
    plain = {}
    inside: set[nn.Module] = set()
    for name, module in model.named_modules():
        if isinstance(module, SplitAttention) and hasattr(module, "replaced"):
            plain[name] = plain_attention(name, module, weights)
            inside |= set(module.modules())
        elif isinstance(module, Layer) and not isinstance(module, LottaWeight) and module not in inside:
            plain[name] = plain_layer(name, module, weights)
    return plain


def _dense(owner: str, parts: dict[str, LottaWeight], weights: DenseWeights) -> dict[str, nn.Parameter]:
    return {name: weights.of(dotted(owner, PREFIX + name), part) for name, part in parts.items()}


def _put_back(owner: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    """Give the owner of composed weights its class and its ordinary parameters back."""
    owner.__class__ = type(owner).plain_class  # type: ignore[attr-defined]  # of `composed_class`
    for name in parameters:
        del owner._modules[PREFIX + name]
    owner._parameters = {**parameters, **owner._parameters}
    if isinstance(owner, nn.RNNBase):
        in_order = [name for name in owner._flat_weights_names if name in owner._parameters]
        owner._parameters = {name: owner._parameters[name] for name in in_order} | owner._parameters
        owner._init_flat_weights()


def _forget_drawn(modules: list[nn.Module]) -> None:
    """Replace every W_seed that its source gives back by an empty one; tied ones stay tied."""
    layers = [layer for module in modules for layer in module.modules() if isinstance(layer, Frozen)]
    tied: dict[int, list[Frozen]] = {}  # by the id of W_seed
    for layer in layers:
        tied.setdefault(id(layer.W_seed), []).append(layer)
    for holders in tied.values():
        if any(_can_be_drawn(layer) for layer in holders):
            empty = torch.empty_like(holders[0].W_seed, device="meta")
            for layer in holders:
                layer._buffers["W_seed"] = empty


def _can_be_drawn(layer: Frozen) -> bool:
    if layer.source is None:
        return False
    return is_untouched(layer.W_seed) or torch.equal(layer.W_seed, redrawn(layer))


def _restore(model: nn.Module) -> dict[str, dict[str, object]]:
    """Restore the attributes that `wrap` had changed in foreign modules; return them as it had set them."""
    changed = {name: restore(module) for name, module in model.named_modules()}
    return {name: attributes for name, attributes in changed.items() if attributes}


def _unhook(model: nn.Module) -> list[str]:
    """Remove the check of states that `wrap` registered; return the names of the modules that had it."""
    found = []
    for name, module in model.named_modules():
        hooks = module._load_state_dict_pre_hooks
        for key in [key for key, hook in hooks.items() if hook.hook is check_state]:
            del hooks[key]
            found.append(name)
    return found
