"""Functions on all frozen weights of a wrapped model: draw, redraw, verify and remove them, and read β."""

import contextlib
import copy
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from typing import NamedTuple

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.compose import starting
from lottalora.scaffold.draw import Source
from lottalora.scaffold.embedding import FrozenEmbedding
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.in_block import Block
from lottalora.scaffold.in_block import enter
from lottalora.scaffold.in_block import leave
from lottalora.scaffold.layers import LottaLayer
from lottalora.scaffold.local_rows import is_shared_out
from lottalora.scaffold.local_rows import to_local
from lottalora.scaffold.marks import is_untouched
from lottalora.scaffold.marks import mark
from lottalora.scaffold.marks import mark_of
from lottalora.scaffold.matrices import tensors_of
from lottalora.scaffold.places import in_one_line
from lottalora.scaffold.seeds import check_seed


def scaffold_layers(model: nn.Module) -> dict[str, LottaLayer | FrozenEmbedding]:
    """The layers that hold a W_seed, by dotted name, each once.

    Raises:
        ValueError: the model has no such layer, or it is no model.
    """
    if not isinstance(model, nn.Module):
        raise ValueError(f"A model is wanted, an nn.Module, got {in_one_line(model)}.")
    found = {name: m for name, m in model.named_modules() if isinstance(m, LottaLayer | FrozenEmbedding)}
    if not found:
        raise ValueError("This model has no scaffold: call lottalora.scaffold.wrap first.")
    return found


def set_backbone_seed(model: nn.Module, seed: int) -> None:
    """Redraw every W_seed in place, as `wrap` draws it under this backbone seed. Adapters do not change.

    Raises:
        ValueError: the model has no scaffold, or a W_seed that was given, not drawn; or `seed` is not a whole
            number in 0 … 2⁶⁴ − 1.
    """
    for layer, source in _sources(model):
        layer.redraw(source.with_seed(seed))


def resample(model: nn.Module, seed: int, *, held: dict[int, list[Tensor]] | None = None) -> None:
    """Redraw every W_seed in place, as scaffold number `seed` under the model's backbone seed.

    For training over many scaffolds: resample(model, 1), resample(model, 2), … are determined by the backbone
    seed and independent of the backbones of all seeds. `resample(model, 0)` restores the backbone itself.

    Args:
        model: a model on a scaffold.
        seed: the number of the scaffold.
        held: scaffolds of this model by number, which are copied and not drawn again; one that it lacks, or
            has of another backbone seed or dtype, is drawn and added; nothing is added inside
            `without_scaffold` and `regenerated`, or on the meta device. For training over few scaffolds,
            where drawing would take as long as a step.

    Raises:
        ValueError: `seed` is not a whole number in 0 … 2⁶⁴ − 1; or the model has no scaffold, or a W_seed
            that was given, not drawn.

    Source: the paper's Meta-LoRA, Table 4.
    """
    check_seed(seed)
    wanted = [(layer, replace(source, redraw=seed)) for layer, source in _sources(model)]
    known = [] if held is None else held.get(seed, [])
    if len(known) != len(wanted) or not all(map(_is_draw, known, wanted)):
        known = []  # of another backbone seed or dtype
    for place, (layer, source) in enumerate(wanted):
        layer.redraw(source, known[place] if known else None)
    if held is not None and not known and all(_has_draw(layer) for layer, _ in wanted):
        held[seed] = [mark(to_local(layer.W_seed).clone(), source) for layer, source in wanted]


def verify(model: nn.Module) -> list[str]:
    """Compare every W_seed, and its fingerprint, with a new draw.

    This takes about as long as drawing the scaffold. A W_seed that was given is compared with the fingerprint
    that an earlier `state_dict()`, `load_state_dict()` or `verify` stored. With FSDP, each process compares
    its own rows.

    Returns:
        The dotted names of the layers that differ.

    Raises:
        ValueError: the model has no scaffold.
    """
    return [name for name, layer in scaffold_layers(model).items() if layer.differs()]


def _has_draw(layer: Frozen) -> bool:
    """Whether W_seed of a layer that was redrawn has the values that were drawn."""
    return not layer.removed and not layer.W_seed.is_meta


def _is_draw(held: Tensor, wanted: tuple[Frozen, Source]) -> bool:
    """Whether a held draw is that of the source that is wanted, in the layer's dtype."""
    layer, source = wanted
    found = mark_of(held)
    return found is not None and found.source == source and found.dtype is layer.W_seed.dtype


def _sources(model: nn.Module) -> list[tuple[LottaLayer | FrozenEmbedding, Source]]:
    found = []
    for name, layer in scaffold_layers(model).items():
        if layer.source is None:
            raise ValueError(
                f"Layer {name!r} was given its W_seed, so there is no source to draw it from again."
            )
        found.append((layer, layer.source))
    return found


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


def beta_values(model: nn.Module) -> dict[str, float]:
    """β of each adapted matrix, by the layer's dotted name; empty for a model without a scaffold.

    The matrices of a stack are numbered: "experts.composed_weight[0]".
    """
    values: dict[str, float] = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, LottaLayer) or layer.beta is None:
            continue
        beta = layer.beta.detach()
        if is_shared_out(beta):
            beta = beta.full_tensor()
        if beta.numel() == 1:
            values[name] = beta.item()
        else:
            values |= {f"{name}[{i}]": each for i, each in enumerate(beta.tolist())}
    return values


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
