"""Draw the scaffolds of a model that was built on the meta device."""

from collections.abc import Callable

import torch
from torch import nn

from lottalora.scaffold.layers.compose import starting
from lottalora.scaffold.layers.embedding import FrozenEmbedding
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.wrapping.matrices import tensors_of
from lottalora.scaffold.wrapping.places import in_one_line


def materialize(
    model: nn.Module,
    device: torch.device | str = "cpu",
    *,
    start: Callable[[nn.Module], None] | None = None,
    drawn: bool = True,
) -> None:
    """Initialise a model that was built and wrapped on the meta device, in place and layer by layer.

    W_seed is drawn. Adapters start as after `wrap`, and biases of adapted layers as in `nn.Linear` (uniform,
    ± 1/√fan_in). All other modules are initialised by `start`, or by their own `reset_parameters`. Tied
    weights stay tied.

    Args:
        model: a model with some or all of its tensors on the meta device.
        device: the device to put these tensors on.
        start: called with each module without a W_seed that has tensors on the meta device, to initialise the
            tensors that it holds directly.
        drawn: whether to draw W_seed. False leaves its memory uninitialised, for `shard`, which draws the
            rows of one process.

    Raises:
        ValueError: a module on the meta device has no `reset_parameters`, or a W_seed that was given, not
            drawn. The model is unchanged then.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"A model is wanted, an nn.Module, got {in_one_line(model)}.")
    on_meta = {name: m for name, m in model.named_modules() if any(t.is_meta for t in tensors_of(m))}
    helpless = [name for name, m in on_meta.items() if not _can_start(m, start)]
    if helpless:
        names = ", ".join(repr(name) for name in helpless)
        raise ValueError(f"No start values for: {names}. Build these modules off the meta device.")
    tied = _tied_names(model)
    for module in on_meta.values():
        if not any(tensor.is_meta for tensor in tensors_of(module)):
            continue  # all its tensors are tied to initialised ones
        if isinstance(module, Frozen):
            module.place(device, drawn=drawn)
        else:
            module.to_empty(device=device, recurse=False)
        _start(module, start)
        _tie(model, tied)


def _can_start(module: nn.Module, start: Callable[[nn.Module], None] | None) -> bool:
    if isinstance(module, LottaLayer | FrozenEmbedding):
        return module.source is not None
    return start is not None or hasattr(module, "reset_parameters")


@torch.no_grad()
def _start(module: nn.Module, start: Callable[[nn.Module], None] | None) -> None:
    if isinstance(module, FrozenEmbedding):
        return
    if isinstance(module, LottaLayer):
        module.reset_adapter()
        module.reset_bias()
    elif start is not None:
        with starting(module):
            start(module)
    else:
        module.reset_parameters()  # type: ignore[operator]  # `_can_start` has found the method


def _tie(model: nn.Module, tied: list[list[str]]) -> None:
    """Tie each group of names again to its first parameter, if that is initialised."""
    for first, *others in tied:
        parameter = model.get_parameter(first)
        for name in others if not parameter.is_meta else ():
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, parameter)


def _tied_names(model: nn.Module) -> list[list[str]]:
    """The groups of dotted names that belong to one parameter."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]
