"""A model as if its W_seed were 0, for as long as a block lasts."""

import contextlib
import copy
from collections.abc import Iterator
from typing import Any
from typing import NamedTuple

from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.local_rows import to_local
from lottalora.scaffold.drawing.marks import is_untouched
from lottalora.scaffold.drawing.marks import mark
from lottalora.scaffold.drawing.marks import mark_of
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.in_block import Block
from lottalora.scaffold.layers.in_block import enter
from lottalora.scaffold.layers.in_block import leave
from lottalora.scaffold.whole_model.backbone import scaffold_layers


@contextlib.contextmanager
def without_scaffold(model: nn.Module) -> Iterator[None]:
    """A context manager that sets every W_seed to 0 and restores it at the end.

    It shows whether the trained model needs its scaffold. A W_seed that gets another source inside, as by
    `set_backbone_seed`, stays 0 and is drawn from it at the end. A copy that is made inside has its W_seed.

    Raises:
        ValueError: the model has no scaffold, or is in a block that draws W_seed at each call.

    Source: the paper's Table 2, "trained with scaffold, then removed".
    """
    layers = scaffold_layers(model)
    for name, layer in layers.items():
        if layer.drawn_at_calls:
            raise ValueError(
                f"W_seed of layer {name!r} is drawn at each call now, by regenerated or scaffolds_per_row: "
                "leave that block before without_scaffold."
            )
    blocks = [Block("without_scaffold", Removed.of(layer).put_back) for layer in layers.values()]
    try:
        for layer, block in zip(layers.values(), blocks, strict=True):
            enter(layer, block)
            to_local(layer.W_seed).zero_()
            layer.removed = True
        yield
    finally:
        for layer, block in zip(layers.values(), blocks, strict=True):
            leave(layer, block)


class Removed(NamedTuple):
    """What `without_scaffold` keeps of a layer.

    Args:
        layer: the layer.
        before: its W_seed, or the rows that this process has, (local rows, in).
        source: of that W_seed.
        untouched: whether that W_seed was as it was drawn.
        removed: whether an outer block had set it to 0.
    """

    layer: Frozen
    before: Tensor
    source: Source | None
    untouched: bool
    removed: bool

    @classmethod
    def of(cls, layer: Frozen) -> "Removed":
        """What is to be put back into this layer."""
        before, untouched = to_local(layer.W_seed).clone(), is_untouched(layer.W_seed)
        return cls(layer, before, layer.source, untouched, layer.removed)

    def put_back(self, layer: Frozen) -> None:
        """Put W_seed back into the layer or a copy; one with another source or dtype than before is drawn."""
        if layer is not self.layer:
            _give_own_memory(layer)
        W_seed = layer.W_seed  # read again: FSDP may move W_seed in its first call
        layer.removed = self.removed
        cast = self.untouched and W_seed.dtype is not self.before.dtype
        if layer.source is not None and not self.removed and (cast or layer.source != self.source):
            layer.redraw(layer.source)
            return
        to_local(W_seed).copy_(self.before)
        if self.untouched and layer.source is not None:
            mark(W_seed, layer.source)


def _give_own_memory(layer: Frozen) -> None:
    """Give a layer that shares W_seed with another one a W_seed of the same values and mark."""
    W_seed, drawn = layer.W_seed, mark_of(layer.W_seed)
    tensors: dict[str, Any] = layer._parameters if "W_seed" in layer._parameters else layer._buffers
    own = tensors["W_seed"] = copy.deepcopy(W_seed)
    if drawn is not None:
        mark(own, drawn.source, untouched=is_untouched(W_seed))
