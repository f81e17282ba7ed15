"""The blocks that change how a layer computes for a while, such as `regenerated`, and how it leaves them.

A copy of a layer (`copy`, `pickle`, `torch.save`) is in no block, also if it is made inside of one.
"""

import copy
import types
from collections.abc import Callable
from typing import TYPE_CHECKING
from typing import NamedTuple

from torch import nn

from lottalora.scaffold.layers.replaced import Replaced

if TYPE_CHECKING:
    from lottalora.scaffold.layers.frozen import Frozen

OWN_ROWS = ("per_row", "scaffolds_per_row")  # these replace `forward`
HELD = ("_parameters", "_buffers", "_forward_pre_hooks", "_forward_hooks", "_forward_hooks_always_called")
OTHER_FORWARD = (
    "a forward was set on the layer itself, as accelerate's add_hook_to_module does, and is called in place "
    "of the scaffold's. Remove it first, for example by remove_hook_from_module(model, recurse=True)."
)


class Block(NamedTuple):
    """A block that a layer is in.

    Args:
        name: the function that opens it.
        put_back: undoes what the block has changed, in the layer at the end, and in a copy of it before.
    """

    name: str
    put_back: Callable[["Frozen"], None]


def enter(layer: "Frozen", block: Block) -> None:
    """Note that a layer is in a block."""
    layer.blocks = (*layer.blocks, block)


def leave(layer: "Frozen", block: Block) -> None:
    """Take a layer out of a block."""
    layer.blocks = tuple(each for each in layer.blocks if each is not block)
    block.put_back(layer)


def outside(layer: "Frozen") -> "Frozen":
    """The layer, or if it is in a block, one with the same content that has left it."""
    if not layer.blocks:
        return layer
    twin = object.__new__(type(layer))
    own = {name: copy.copy(vars(layer)[name]) for name in HELD}  # these are changed in place
    vars(twin).update(vars(layer) | own)
    vars(twin).pop("_compiled_call_impl", None)  # it calls the layer
    replaced: Replaced | None = vars(layer).get("replaced")
    if replaced is not None:  # it has the same hooks, for `merge`
        vars(twin)["replaced"] = replaced.holding({id(vars(layer)[name]): own[name] for name in HELD})
    for block in reversed(layer.blocks):
        leave(twin, block)
    return twin


def stop_own_rows(layer: "Frozen") -> None:
    """Let a layer compute as its class does again, after a block in which each row had its own."""
    vars(layer).pop("forward", None)
    vars(layer).pop("_composed", None)


def refuse_other_forward(name: str, layer: "Frozen") -> None:
    """Refuse a layer whose `forward` was replaced, by a block or by somebody else.

    Raises:
        ValueError: it is such a layer.
    """
    other = next((block.name for block in layer.blocks if block.name in OWN_ROWS), None)
    if other is not None:
        raise ValueError(f"Layer {name!r} is in a block of {other} already: leave that block first.")
    if has_other_forward(layer):
        raise ValueError(f"Layer {name!r} cannot take something else for each row: {OTHER_FORWARD}")


def has_other_forward(layer: nn.Module) -> bool:
    """Whether a `forward` was set on the layer itself that is not the one of its class."""
    own = vars(layer).get("forward")
    return own is not None and own != types.MethodType(type(layer).forward, layer)
