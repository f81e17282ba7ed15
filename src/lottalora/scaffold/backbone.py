"""The frozen weights of a wrapped model, all at once: drawn, drawn again, taken away; and β."""

import contextlib
import math
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.embedding import FrozenEmbedding
from lottalora.scaffold.frozen import Frozen
from lottalora.scaffold.identity import Identity
from lottalora.scaffold.layers import LottaLayer
from lottalora.scaffold.matrices import tensors_of
from lottalora.scaffold.own_rows import own_part
from lottalora.scaffold.seeds import check_seed


def scaffold_layers(model: nn.Module) -> dict[str, LottaLayer | FrozenEmbedding]:
    """The layers that hold a W_seed, by dotted name, each once.

    Raises:
        ValueError: there are none.
    """
    found = {name: m for name, m in model.named_modules() if isinstance(m, LottaLayer | FrozenEmbedding)}
    if not found:
        raise ValueError("This model has no scaffold: call lottalora.scaffold.wrap first.")
    return found


def set_backbone_seed(model: nn.Module, seed: int) -> None:
    """Redraw every W_seed in place, as `wrap` would have drawn it under this backbone seed. Adapters stay as
    they are.

    Raises:
        ValueError: no scaffold, or a layer whose W_seed was given rather than drawn.
    """
    for layer, source in _sources(model):
        layer.redraw(source.with_seed(seed))


def resample(model: nn.Module, seed: int) -> None:
    """Redraw every W_seed in place with the scaffold number `seed` of the model's backbone seed.

    For training over many scaffolds: the sequence resample(model, 1), resample(model, 2), … is a function of
    the backbone seed and independent of the backbone that any seed gives. `resample(model, 0)` is the
    backbone itself again.

    Raises:
        ValueError: a number outside 0 … 2⁶⁴ − 1; no scaffold; or a layer whose W_seed was given rather than
            drawn.

    Source: the paper's Meta-LoRA, Table 4.
    """
    check_seed(seed)
    for layer, source in _sources(model):
        layer.redraw(replace(source, redraw=seed))


def verify(model: nn.Module) -> list[str]:
    """Draw every W_seed anew, and compare it with what the layer holds and with its fingerprint.

    Takes about the time of drawing the scaffold. Of a weight that was given, the bits are compared with the
    fingerprint that an earlier `state_dict()`, `load_state_dict()` or `verify` left. Where rows are shared
    out among processes, each compares its own.

    Returns:
        The dotted names of the layers that differ; none where the scaffold is what its sources say.

    Raises:
        ValueError: no scaffold.
    """
    return [name for name, layer in scaffold_layers(model).items() if layer.differs()]


def check_state(model: nn.Module, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Refuse a state of another scaffold before any of it is loaded; `wrap` registers this.

    Raises:
        ValueError: a record that is damaged, of another format, or of another scaffold.
    """
    silent = False
    for name, layer in scaffold_layers(model).items():
        own = f"{prefix}{name}." if name else prefix
        record = state.get(f"{own}identity")
        if isinstance(record, Tensor) and not record.is_meta:
            layer.compare(Identity.from_tensor(record, name), name)
        silent = silent or (record is None and any(f"{own}{each}" in state for each in ("A", "beta", "bias")))
    if silent:
        warnings.warn(
            "This checkpoint does not say which scaffold it belongs to, as those before format 1: that it is "
            "this model's is taken on trust.",
            stacklevel=3,
        )


def _sources(model: nn.Module) -> list[tuple]:
    layers = scaffold_layers(model)
    for name, layer in layers.items():
        if layer.source is None:
            raise ValueError(
                f"Layer {name!r} was given its W_seed, so there is no source to draw it from again."
            )
    return [(layer, layer.source) for layer in layers.values()]


@contextlib.contextmanager
def without_scaffold(model: nn.Module) -> Iterator[None]:
    """W_seed = 0 inside the block, as it was after it: does the trained model need its scaffold?

    Source: the paper's Table 2, "trained with scaffold, then removed".
    """
    held = [(layer, own_part(layer.W_seed).clone()) for layer in scaffold_layers(model).values()]
    try:
        for layer, _ in held:
            own_part(layer.W_seed).zero_()
        yield
    finally:
        for layer, before in held:
            own_part(layer.W_seed).copy_(before)  # asked for anew: at the first call, FSDP may move it


def beta_values(model: nn.Module) -> dict[str, float]:
    """β of each adapted matrix, by the layer's dotted name; empty for a model without a scaffold.

    The matrices of a stack are numbered: "experts.composed_weight[0]".
    """
    values = {}
    for name, layer in model.named_modules():
        if not isinstance(layer, LottaLayer) or layer.beta is None:
            continue
        if layer.beta.dim() == 0:
            values[name] = layer.beta.item()
        else:
            values |= {f"{name}[{i}]": beta for i, beta in enumerate(layer.beta.tolist())}
    return values


def materialize(
    model: nn.Module,
    device: torch.device | str = "cpu",
    *,
    start: Callable[[nn.Module], None] | None = None,
    drawn: bool = True,
) -> None:
    """Give a model that was built and wrapped on the meta device its values, layer by layer, straight from
    the seed.

    W_seed is drawn, adapters start as after `wrap`, biases of adapted layers as in `nn.Linear` (uniform, ±
    1/√fan_in); all other modules start by `start`, or by their own `reset_parameters`. Weights that were tied
    stay tied.

    Args:
        model: with some or all of its values on the meta device.
        device: where they come to lie.
        start: called with each module that is on no scaffold, to set the values that it holds itself.
        drawn: False leaves W_seed as it lies in memory, for `shard`, which draws the rows of one process.

    Raises:
        ValueError: a module with values of its own and no `reset_parameters`, or a layer whose W_seed was
            given rather than drawn; nothing is changed then.
    """
    on_meta = {name: m for name, m in model.named_modules() if any(t.is_meta for t in tensors_of(m))}
    helpless = [name for name, m in on_meta.items() if not _can_start(m, start)]
    if helpless:
        names = ", ".join(repr(name) for name in helpless)
        raise ValueError(f"No start values for: {names}. Build these modules off the meta device.")
    tied = _tied_names(model)
    for module in on_meta.values():
        if not any(tensor.is_meta for tensor in tensors_of(module)):
            continue  # all that it holds is tied to what has its values
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
        if module.bias is not None:
            module.bias.uniform_(-1, 1).div_(math.sqrt(module.W_seed.shape[1]))
    elif start is not None:
        start(module)
    else:
        module.reset_parameters()


def _tie(model: nn.Module, tied: list[list[str]]) -> None:
    """Let each parameter that has several names be one again, where the first of them has its values."""
    for first, *others in tied:
        parameter = model.get_parameter(first)
        for name in others if not parameter.is_meta else ():
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, parameter)


def _tied_names(model: nn.Module) -> list[list[str]]:
    """The dotted names of each parameter that has more than one."""
    names: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
    return [group for group in names.values() if len(group) > 1]
