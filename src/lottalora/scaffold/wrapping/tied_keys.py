"""What Hugging Face's models know about their embeddings, kept true when these are on a scaffold.

Such a model lists its tied weights by name. It ties them again by this list, and saves one of each. It can
also replace its embeddings by larger ones. The attributes are known by name; the package is not imported.
"""

import contextlib
import functools

from torch import nn

from lottalora.scaffold.layers.compose import PREFIX
from lottalora.scaffold.layers.compose import composed_weights
from lottalora.scaffold.layers.dense import TRAINED
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.set_aside import change

Ties = dict[str, str]  # the name of a tied parameter → the name of the one that it is
LISTS = ("all_tied_weights_keys", "_tied_weights_keys")


def tie_what_has_no_values(model: nn.Module) -> None:
    """Tie listed weights that are on the meta device: `from_pretrained` ties them only after `__init__`."""
    for module in model.modules():
        for target, source in _ties(module).items():
            path, _, attribute = target.rpartition(".")
            owner, parameter = module.get_submodule(path), _parameter(module, source)
            held = owner._parameters.get(attribute)
            if held is None or parameter is None or held is parameter:
                continue
            if held.is_meta and parameter.is_meta and held.shape == parameter.shape:
                owner._parameters[attribute] = parameter


def _ties(module: nn.Module) -> Ties:
    ties = vars(module).get(LISTS[0])
    return ties if isinstance(ties, dict) else {}


def _parameter(module: nn.Module, name: str) -> nn.Parameter | None:
    path, _, attribute = name.rpartition(".")
    return module.get_submodule(path)._parameters.get(attribute)


def follow_ties(model: nn.Module) -> None:
    """List the adapters of tied weights as tied, and let no embedding on the scaffold be resized."""
    for module in model.modules():
        ties = _ties(module)
        followed = _followed(module, ties)
        if followed != ties:
            for name in LISTS:
                change(module, name, followed)
        if callable(getattr(type(module), "resize_token_embeddings", None)) and _on_scaffold(module):
            change(module, "resize_token_embeddings", functools.partial(_resize, module))


def _followed(module: nn.Module, ties: Ties) -> Ties:
    """The ties of a module's parameters, with the adapters of each tied weight in its place."""
    result: Ties = {}
    for target, source in ties.items():
        parts, theirs = _parts(module, target), _parts(module, source)
        for part, (name, parameter) in parts.items():
            if part in theirs and theirs[part][1] is parameter:
                result[name] = theirs[part][0]
    return result


def _parts(module: nn.Module, name: str) -> dict[str, tuple[str, nn.Parameter]]:
    """(name, parameter) of a weight, or of each trained part of a weight on the scaffold, by the part."""
    path, _, attribute = name.rpartition(".")
    owner = module.get_submodule(path)
    if attribute in owner._parameters:
        return {"": (name, getattr(owner, attribute))}
    layer: nn.Module = owner
    if attribute in composed_weights(owner):
        path, layer = dotted(path, PREFIX + attribute), composed_weights(owner)[attribute]
    own = {part: layer._parameters.get(part) for part in TRAINED} if isinstance(layer, LottaLayer) else {}
    return {part: (dotted(path, part), parameter) for part, parameter in own.items() if parameter is not None}


def _on_scaffold(module: nn.Module) -> list[str]:
    """The names of the embeddings and the head of a model that are on the scaffold."""
    found: list[object] = []
    for get in ("get_input_embeddings", "get_output_embeddings"):
        with contextlib.suppress(AttributeError, NotImplementedError):  # a model without
            found.append(getattr(module, get)())
    return [
        name
        for name, each in module.named_modules()
        if any(each is one for one in found)
        and (isinstance(each, LottaLayer | FrozenEmbedding) or composed_weights(each))
    ]


def _resize(
    model: nn.Module, new_num_tokens: int | None = None, pad_to_multiple_of: int | None = None, *_: object
) -> object:
    """Stand in for `resize_token_embeddings` of a model with embeddings on the scaffold.

    Raises:
        ValueError: the number of rows would change.
    """
    embeddings = model.get_input_embeddings()  # type: ignore[operator]  # a method of Hugging Face's
    if pad_to_multiple_of is None and new_num_tokens in (None, embeddings.num_embeddings):
        return embeddings
    names = ", ".join(repr(name) for name in _on_scaffold(model))
    raise ValueError(
        f"{names} would get other rows, which no seed gives back: call resize_token_embeddings before wrap, "
        "or merge(model), resize, and wrap again."
    )
