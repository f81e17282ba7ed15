"""Refusing what PyTorch does to a parameter in place, where the weight is composed and no parameter."""

import sys
import types
from collections.abc import Callable
from collections.abc import Iterable
from typing import Any

from torch import nn
from torch.nn.utils.parametrize import is_parametrized

IN_PLACE = {  # (module, function) that reads a parameter to replace it
    ("torch.nn.utils.parametrizations", "orthogonal"),
    ("torch.nn.utils.parametrizations", "spectral_norm"),
    ("torch.nn.utils.parametrize", "register_parametrization"),
    ("torch.nn.utils.prune", "apply"),
    ("torch.nn.utils.spectral_norm", "apply"),
    ("torch.nn.utils.weight_norm", "apply"),
}


def reparametrized(layer: nn.Module, names: Iterable[str]) -> str | None:
    """What was done to parameters of a layer by pruning or a parametrization, and how to undo it.

    Args:
        layer: the layer.
        names: the names of its parameters.

    Returns:
        The end of a message, or None if nothing was done.
    """
    if is_parametrized(layer):
        return "it is parametrized. Call torch.nn.utils.parametrize.remove_parametrizations first."
    pruned = next((name for name in names if name in vars(layer)), None)  # a plain attribute then
    return pruned and f"its {pruned} is pruned. Call torch.nn.utils.prune.remove(layer, {pruned!r}) first."


def refuse_reparametrization(frame: types.FrameType) -> None:
    """Refuse to give a weight to those functions of PyTorch that replace the weight which they read.

    Args:
        frame: the frame of the function that reads the weight.

    Raises:
        ValueError: it is pruning, weight or spectral normalisation, or another parametrization.
    """
    if (frame.f_globals.get("__name__"), frame.f_code.co_name) in IN_PLACE:
        raise ValueError(
            "The weight of a scaffold layer is composed from W_seed, A, B and β, so it cannot be pruned, "
            "normalised or parametrized in place: do that before wrap, or call "
            "lottalora.scaffold.merge(model) first."
        )


def refuse_assignment(name: str) -> None:
    """Refuse to assign to a composed weight, as tying it by hand does.

    Args:
        name: the weight's name in its module.

    Raises:
        ValueError: always.
    """
    raise ValueError(
        f"{name!r} is composed from W_seed, A, B and β, so nothing can be assigned to it: tie or set weights "
        "before wrap, or call lottalora.scaffold.merge(model) first."
    )


class WithoutWeight(dict[str, Any]):
    """The parameters of a module whose weight is composed; spectral normalisation looks for it here."""

    def __missing__(self, name: str) -> None:
        refuse_reparametrization(sys._getframe(1))
        raise KeyError(name)


def refusing_text(text: Callable[[nn.Module], str]) -> Callable[[nn.Module], str]:
    """The `__repr__` of a module with a composed weight.

    `register_parametrization` reads no weight that is missing among the parameters. It puts the module's text
    into a message of several lines, so the request is refused here.

    Args:
        text: gives the text for everybody else.
    """

    def __repr__(self: nn.Module) -> str:
        frame = sys._getframe(1)
        if isinstance(getattr(type(self), frame.f_locals.get("tensor_name", ""), None), property):
            refuse_reparametrization(frame)
        return text(self)

    return __repr__
