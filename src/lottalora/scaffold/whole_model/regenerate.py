"""Inference without W_seed in memory: each layer draws it when it is called, and drops it afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

import torch
from torch import nn

from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.in_block import Block
from lottalora.scaffold.layers.in_block import enter
from lottalora.scaffold.layers.in_block import leave
from lottalora.scaffold.whole_model.backbone import scaffold_layers


@contextmanager
def regenerated(model: nn.Module) -> Iterator[nn.Module]:
    """Inside the block one W_seed at a time is in memory: each call of a layer draws it.

    The outputs are the same to the bit, also in several threads, where calls of a layer at one time share its
    W_seed. No gradients are computed inside; another thread has to set `torch.no_grad()` itself. A compiled
    model is refused when it is called. At the end every W_seed is drawn
    once more, where it was. A layer whose weight the net reads in place of calling it keeps its W_seed from
    then on. A copy of the model that is made inside has every W_seed in memory.

    Args:
        model: a model that `wrap` has wrapped, with its tensors where they are to be.

    Raises:
        ValueError: a W_seed cannot be drawn at each call: it was given, is trained or sharded, was written
            to, is of a family that factorises the whole matrix, or is set to 0 by `without_scaffold`.
    """
    layers = scaffold_layers(model)
    for name, layer in layers.items():
        reason = obstacle(layer)
        if reason:
            raise ValueError(f"W_seed of layer {name!r} cannot be drawn at each call: {reason}.")
    blocks = [Block("regenerated", Drawing(layer).put_back) for layer in layers.values()]
    try:
        for layer, block in zip(layers.values(), blocks, strict=True):
            enter(layer, block)
            layer.drawn_at_calls = True
            drop(layer)
        with torch.no_grad():
            yield model
    finally:
        for layer, block in zip(layers.values(), blocks, strict=True):
            leave(layer, block)


class Drawing:
    """What `regenerated` does to a layer: W_seed is dropped when no call of the layer is going on any more.

    Calls in several threads use the same W_seed.

    Args:
        layer: the layer; it gets the hooks.
    """

    def __init__(self, layer: Frozen) -> None:
        self.device = layer.home = layer.W_seed.device
        self.calls, self.lock = 0, Lock()
        self.before = layer.register_forward_pre_hook(self.begin, prepend=True)
        self.after = layer.register_forward_hook(self.end, always_call=True)

    def begin(self, layer: Frozen, *_: object) -> None:
        """Note a call; `Frozen.check` draws W_seed in it, or refuses to if it is compiled."""
        if not torch.compiler.is_compiling():
            with self.lock:
                self.calls += 1

    def end(self, layer: Frozen, *_: object) -> None:
        """Drop W_seed after the last call."""
        if torch.compiler.is_compiling():
            return
        with self.lock:
            self.calls = max(self.calls - 1, 0)  # a hook of somebody else may have failed before `begin`
            if not self.calls:
                drop(layer)

    def put_back(self, layer: Frozen) -> None:
        """Draw W_seed where it was before, into the layer or a copy of it, which keeps it from then on."""
        layer._forward_pre_hooks.pop(self.before.id, None)
        layer._forward_hooks.pop(self.after.id, None)
        layer._forward_hooks_always_called.pop(self.after.id, None)
        layer.drawn_at_calls, layer.home = False, None
        layer.draw_anew(self.device)


def obstacle(layer: Frozen) -> str | None:
    """Why the W_seed of a layer has to stay in memory; None if it can be drawn at each call."""
    W_seed = layer.W_seed
    if layer.removed:
        return "without_scaffold has set it to 0"
    if layer.drawn_at_calls:
        return "a block of regenerated or scaffolds_per_row does so already"
    if layer.source is None:
        return "it was given, and no seed gives it back"
    if type(W_seed) is not torch.Tensor or W_seed.is_meta:
        return "it is trained, sharded or on the meta device"
    if not layer.source.exact:
        return f"family {layer.source.family} factorises the whole matrix, which takes too long"
    if layer.differs():
        return "it was written to"
    return None


def drop(layer: Frozen) -> None:
    """Leave W_seed without memory; `Frozen.check` draws it in the next call."""
    layer.W_seed = torch.empty_like(layer.W_seed, device="meta")
