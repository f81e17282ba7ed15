"""Merging: a model on a scaffold becomes the ordinary model with its dense weights, and can be taken back."""

from collections.abc import Iterator
from dataclasses import dataclass
from dataclasses import field

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.attention import SplitAttention
from lottalora.scaffold.backbone import check_state
from lottalora.scaffold.backbone import scaffold_layers
from lottalora.scaffold.compose import PREFIX
from lottalora.scaffold.compose import LottaWeight
from lottalora.scaffold.compose import compose
from lottalora.scaffold.compose import composed_weights
from lottalora.scaffold.dense import DenseWeights
from lottalora.scaffold.dense import Layer
from lottalora.scaffold.dense import as_parameter
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.frozen import is_untouched
from lottalora.scaffold.frozen import mark
from lottalora.scaffold.identity import bits
from lottalora.scaffold.matrices import dotted
from lottalora.scaffold.mergeable import refuse_what_cannot_be_merged
from lottalora.scaffold.own_rows import fill
from lottalora.scaffold.plain import plain_attention
from lottalora.scaffold.plain import plain_layer

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
        settings: (name, value) of the setting that `wrap` had switched off in a module, by the module's name.
        hooked: the names of the modules whose states were checked when loaded.
        classes: the class of each merged module, by name.
        prints: dtype, device, shape and hash of each merged tensor, by name.
    """

    deviation: float
    worst: str
    modules: dict[str, nn.Module] = field(repr=False)
    composed: dict[str, dict[str, LottaWeight]] = field(repr=False)
    vectors: dict[str, dict[str, Tensor]] = field(repr=False)
    settings: dict[str, tuple[str, object]] = field(repr=False)
    hooked: list[str] = field(repr=False)
    classes: dict[str, type[nn.Module]] = field(repr=False)
    prints: dict[str, Print] = field(repr=False)


@torch.no_grad()
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
    owners = {name: (module, composed_weights(module)) for name, module in model.named_modules()}
    composed = {name: parts for name, (_, parts) in owners.items() if parts}
    dense = {
        name: {each: weights.of(dotted(name, PREFIX + each), part) for each, part in parts.items()}
        for name, parts in composed.items()
    }
    modules = {name: _become(model.get_submodule(name), module) for name, module in plain.items()}
    for name, parameters in dense.items():
        _put_back(model.get_submodule(name), parameters)
    _forget_drawn([*modules.values(), *(part for parts in composed.values() for part in parts.values())])
    vectors, settings, hooked = _thaw(model), _switch_on(model), _unhook(model)
    worst = max(weights.deviations, key=weights.deviations.__getitem__)
    classes = {name: type(model.get_submodule(name)) for name in [*plain, *dense]}
    prints = _prints(model, plain, dense, vectors)
    return Merged(
        weights.deviations[worst], worst, modules, composed, vectors, settings, hooked, classes, prints
    )


@torch.no_grad()
def unmerge(model: nn.Module, merged: Merged) -> None:
    """Put a merged model back on its scaffold, in place; A, B and β have the bits from before `merge`.

    The parameters are the same objects as before, so an optimizer of theirs goes on. Every W_seed that was
    drawn is drawn again. `merged` is empty afterwards.

    Args:
        model: the model that `merge` returned `merged` for, or a copy of it.
        merged: what `merge` returned.

    Raises:
        ValueError: the model was changed since `merge`, or `merged` was used already. The model is unchanged
            then.
    """
    _refuse_changed(model, merged)
    modules = dict(model.named_modules())
    for name, held in merged.modules.items():
        _become(modules[name], held.train(modules[name].training))
    for name, parts in merged.composed.items():
        compose(modules[name], parts)
        for part in parts.values():
            part.train(modules[name].training)
    _draw_again(model)
    for name, vectors in merged.vectors.items():
        for each, vector in vectors.items():
            delattr(modules[name], each)
            modules[name].register_buffer(each, vector)
        vars(modules[name])["frozen_vectors"] = list(vectors)
    for name, (setting, off) in merged.settings.items():
        vars(modules[name])["switched_off"] = (setting, vars(modules[name])[setting])
        vars(modules[name])[setting] = off
    for name in merged.hooked:
        modules[name].register_load_state_dict_pre_hook(check_state)
    for part in (merged.modules, merged.composed, merged.prints, merged.classes):
        part.clear()


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


def _become(module: nn.Module, other: nn.Module) -> nn.Module:
    """Give a module the class and content of another one, in place; return a module with those it had."""
    held: nn.Module = object.__new__(type(module))
    held.__dict__ = vars(module)
    module.__class__, module.__dict__ = type(other), vars(other)
    return held


def _put_back(owner: nn.Module, parameters: dict[str, nn.Parameter]) -> None:
    """Give the owner of composed weights its class and its ordinary parameters back."""
    owner.__class__ = type(owner).plain_class  # type: ignore[attr-defined]  # of `composed_class`
    for name in parameters:
        del owner._modules[PREFIX + name]
    owner._parameters = dict(parameters) | owner._parameters
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
    return is_untouched(layer.W_seed) or torch.equal(layer.W_seed, _drawn(layer))


def _drawn(layer: Frozen) -> Tensor:
    """A new draw of a W_seed, which may be on the meta device, in its dtype and on its layer's device."""
    assert layer.source is not None, "a W_seed without a source is never forgotten"
    W = torch.empty_like(layer.W_seed, device=layer.identity.device)
    fill(W, layer.source)
    mark(W, layer.source)
    if layer.padding_idx is not None:
        W[layer.padding_idx] = 0
    return W


def _draw_again(model: nn.Module) -> None:
    """Draw every W_seed that `merge` has left empty; tied ones once, by the one with a padding row."""
    drawn: dict[int, tuple[Tensor, Tensor]] = {}  # (empty tensor, W_seed), by the id of the empty one
    for layer in sorted(scaffold_layers(model).values(), key=lambda layer: layer.padding_idx is None):
        empty = layer.W_seed
        if empty.is_meta:
            if id(empty) not in drawn:
                drawn[id(empty)] = empty, _drawn(layer)
            layer._buffers["W_seed"] = drawn[id(empty)][1]


def _thaw(model: nn.Module) -> dict[str, dict[str, Tensor]]:
    """Turn vectors that `freeze` had made buffers into parameters without a gradient; return the buffers."""
    found = {}
    for name, module in model.named_modules():
        names = vars(module).pop("frozen_vectors", [])
        if names:
            found[name] = {each: module._buffers.pop(each) for each in names}
            module._parameters |= {each: as_parameter(vector) for each, vector in found[name].items()}
    return found


def _switch_on(model: nn.Module) -> dict[str, tuple[str, object]]:
    """Restore the settings that `wrap` had switched off; return them as `wrap` had set them."""
    found = {}
    for name, module in model.named_modules():
        if "switched_off" in vars(module):
            setting, before = vars(module).pop("switched_off")
            found[name] = setting, vars(module)[setting]
            vars(module)[setting] = before
    return found


def _unhook(model: nn.Module) -> list[str]:
    """Remove the check of states that `wrap` registered; return the names of the modules that had it."""
    found = []
    for name, module in model.named_modules():
        hooks = module._load_state_dict_pre_hooks
        for key in [key for key, hook in hooks.items() if hook.hook is check_state]:
            del hooks[key]
            found.append(name)
    return found


def _prints(model: nn.Module, *made: dict[str, object]) -> dict[str, Print]:
    """What each tensor of the merged modules looks like; `made` has their names as keys."""
    names = {name for each in made for name in each}
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


def _refuse_changed(model: nn.Module, merged: Merged) -> None:
    if not merged.classes:
        raise ValueError("This model was unmerged already: call merge again, each result can be used once.")
    modules = dict(model.named_modules())
    for name, cls in merged.classes.items():
        if name not in modules or type(modules[name]) is not cls:
            raise ValueError(
                f"The model was changed since merge: {name or 'the root'!r} was {cls.__name__}, now it is "
                f"{type(modules[name]).__name__ if name in modules else 'gone'}. Unmerge what merge returned."
            )
    now = _prints(model, merged.classes, merged.vectors)
    for name in [*merged.prints, *now]:
        if merged.prints.get(name) != now.get(name):
            raise ValueError(
                f"The model was changed since merge: {name!r} has another value, dtype or device. "
                "Unmerge before training, casting or moving it."
            )
