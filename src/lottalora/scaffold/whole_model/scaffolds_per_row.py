"""One adapter on several scaffolds at once: each row of a batch has a scaffold of its own."""

from collections.abc import Iterator
from collections.abc import Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor
from torch import nn

from lottalora.scaffold.drawing.draw import draw
from lottalora.scaffold.fused.linear import cast_as_autocast_does
from lottalora.scaffold.layers.frozen import Frozen
from lottalora.scaffold.layers.in_block import Block
from lottalora.scaffold.layers.in_block import enter
from lottalora.scaffold.layers.in_block import leave
from lottalora.scaffold.layers.in_block import refuse_other_forward
from lottalora.scaffold.layers.in_block import stop_own_rows
from lottalora.scaffold.layers.linear import LottaLinear
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.whole_model.examples_first import refuse_time_first


@contextmanager
def scaffolds_per_row(model: nn.Module, numbers: Sequence[int]) -> Iterator[nn.Module]:
    r"""Inside the block, row i of a batch passes through scaffold numbers[i], as after `resample`.

    .. math:: h_i = \beta W_{k(i)}\, x_i + s\, B A x_i + b

    Each scaffold is drawn once and held until the end of the block. A copy of the model that is made inside
    has one scaffold for all rows, the model's own.

    Args:
        model: a model that `wrap` has wrapped.
        numbers: 0 for the scaffold of the backbone seed, k ≥ 1 for `resample(model, k)`; one for each row,
            the first axis of every adapted layer's input.

    Raises:
        ValueError: a layer is no linear one, has DoRA's magnitudes, was given its W_seed, is in another block
            of this kind, or has a `forward` that somebody set on it; or an attention has batch_first=False.

    Source: the paper, Figure 3, where the scaffold says which digits one adapter is to name.
    """
    layers = {name: checked(name, layer) for name, layer in scaffold_layers(model).items()}
    refuse_time_first(model)
    chosen = list(dict.fromkeys(numbers))
    place = torch.tensor([chosen.index(number) for number in numbers])
    block = Block("scaffolds_per_row", put_back)
    try:
        for layer in layers.values():
            W_seeds = [drawn(layer, number) for number in chosen]
            enter(layer, block)
            layer.drawn_at_calls = True
            layer.__dict__["_composed"] = refuse_reading
            layer.__dict__["forward"] = partial(by_row, layer, W_seeds, place.to(layer.W_seed.device))
        yield model
    finally:
        for layer in layers.values():
            leave(layer, block)


def put_back(layer: Frozen) -> None:
    """Give a layer, or a copy of it, one scaffold for all rows again."""
    layer.drawn_at_calls = False
    stop_own_rows(layer)


def checked(name: str, layer: Frozen) -> LottaLinear:
    """The layer, if its rows can have scaffolds of their own."""
    refuse_other_forward(name, layer)
    if layer.removed or layer.drawn_at_calls:
        raise ValueError(
            f"Layer {name!r} is in a block of without_scaffold or regenerated: leave that before "
            "scaffolds_per_row."
        )
    if isinstance(layer, LottaLinear) and layer.magnitude is None and layer.source is not None:
        return layer
    raise ValueError(
        f"Layer {name!r} cannot take another scaffold for each row: it is no plain linear one with a drawn "
        "W_seed. Call resample for one scaffold at a time."
    )


def drawn(layer: LottaLinear, number: int) -> Tensor:
    """W_seed of a layer in scaffold `number`, (out, in), in the dtype and on the device of the layer's."""
    assert layer.source is not None, "it was checked"
    W_seed = draw(replace(layer.source, redraw=number), dtype=layer.W_seed.dtype)
    return W_seed.to(layer.W_seed.device)


def by_row(layer: LottaLinear, W_seeds: Sequence[Tensor], place: Tensor, x: Tensor) -> Tensor:
    """The layer's h with W_seeds[place[i]] for row i of x, (N, *, in) → (N, *, out)."""
    if x.shape[0] != len(place):
        raise ValueError(f"The batch has {x.shape[0]} rows, and scaffolds are named for {len(place)}.")
    x = cast_as_autocast_does(x)
    frozen = x.new_empty(*x.shape[:-1], layer.out_features)
    for number, W_seed in enumerate(W_seeds):
        rows = place == number
        frozen[rows] = F.linear(x[rows], W_seed.to(x.dtype))
    update = None
    if layer.A is not None and layer.B is not None:
        dropped = F.dropout(x, layer.adapter.dropout, layer.training)
        update = F.linear(F.linear(dropped, layer.A.to(x.dtype)), layer.B.to(x.dtype))
    return layer.combine(x, frozen, update, (-1,))


def refuse_reading() -> Tensor:
    """Stand for the weight of a layer that has several."""
    raise ValueError(
        "This net reads the weight of a layer in place of calling it, so its rows share one scaffold. "
        "Call resample for one scaffold at a time."
    )
