"""Putting a merged model back on its scaffold."""

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.layers.compose import compose
from lottalora.scaffold.merging.merged import Merged
from lottalora.scaffold.merging.merged import prints
from lottalora.scaffold.merging.merged import redrawn
from lottalora.scaffold.merging.merged import swap_content
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.wrapping.places import in_one_line
from lottalora.scaffold.wrapping.set_aside import change
from lottalora.scaffold.wrapping.siblings import share_inputs
from lottalora.scaffold.wrapping.state import check_state
from lottalora.scaffold.wrapping.vectors import freeze_again


@torch.no_grad()
@torch.inference_mode(False)
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
    if not isinstance(merged, Merged):
        raise ValueError(f"unmerge takes what merge returned, got {in_one_line(merged)}.")
    _refuse_changed(model, merged)
    modules = dict(model.named_modules())
    for name, held in merged.modules.items():
        swap_content(modules[name], held.train(modules[name].training))
    for name, parts in merged.composed.items():
        compose(modules[name], parts)
        for part in parts.values():
            part.train(modules[name].training)
    _draw_again(model)
    for name, vectors in merged.vectors.items():
        freeze_again(modules[name], vectors)
    for name, settings in merged.settings.items():
        for attribute, value in settings.items():
            change(modules[name], attribute, value)
    for name in merged.hooked:
        modules[name].register_load_state_dict_pre_hook(check_state)
    share_inputs(model)
    merged.modules.clear()
    merged.composed.clear()
    merged.classes.clear()


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
    now = prints(model, merged.classes, merged.vectors)
    for name in [*merged.prints, *now]:
        if merged.prints.get(name) != now.get(name):
            raise ValueError(
                f"The model was changed since merge: {name!r} has another value, dtype or device. "
                "Unmerge before training, casting or moving it."
            )


def _draw_again(model: nn.Module) -> None:
    """Draw every W_seed that `merge` has left empty; tied ones once."""
    drawn: dict[int, tuple[Tensor, Tensor]] = {}  # (empty tensor, W_seed), by the id of the empty one
    for layer in scaffold_layers(model).values():
        empty = layer.W_seed
        if empty.is_meta:
            if id(empty) not in drawn:
                drawn[id(empty)] = empty, redrawn(layer)
            layer._buffers["W_seed"] = drawn[id(empty)][1]
