"""The checks of a state before any of it is loaded into a model on a scaffold."""

import sys
import types
import warnings

import torch
from torch import Tensor
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from lottalora.scaffold.layers.dense import TRAINED
from lottalora.scaffold.layers.dense import Layer
from lottalora.scaffold.layers.identity import Identity
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.streams import name_in_state

NAMES = 3  # of layers, in a message
FSDP = "_fsdp_wrapped_module"
State = dict[str, Tensor]


def check_state(model: nn.Module, state: State, prefix: str, *_: object) -> None:
    """Refuse a state of another scaffold before any of it is loaded; `wrap` registers this hook.

    Args:
        model: the wrapped model.
        state: the state to load.
        prefix: what the names in the state begin with.

    Raises:
        ValueError: a layer's record is damaged, has another format, or belongs to another scaffold; its
            adapters have other shapes; or strict=True and the state has other layers or parts, or is that of
            a plain model.
    """
    prefix, state = name_in_state(prefix), {name_in_state(key): value for key, value in state.items()}
    every = model.named_modules(remove_duplicate=False)  # a tied layer by each of its names
    layers = {
        prefix + dotted(name_in_state(name), "identity"): (name, layer)
        for name, layer in every
        if isinstance(layer, Layer)
    }
    records = {
        key: value
        for key, value in state.items()
        if key.startswith(prefix) and isinstance(value, Tensor) and (key in layers or _is_record(key, value))
    }
    for key, (name, layer) in layers.items():
        if key in records and not records[key].is_meta:
            own = name_in_state(name)
            layer.compare(Identity.from_tensor(records[key], own), own)
    known = {id(layer) for key, (_, layer) in layers.items() if key in records}
    missing = {key: layer for key, (_, layer) in layers.items() if id(layer) not in known}
    differing = [*missing, *(key for key in records if key not in layers)]
    strict = _is_strict()
    if records and differing and strict:
        _refuse_another_model(differing, prefix)
    for key, (name, layer) in layers.items():
        if key in records and FSDP not in name.split("."):  # which holds other shapes, and checks them itself
            _refuse_other_adapters(state, key.removesuffix("identity"), name, layer, strict=strict)
    _doubt(state, prefix, missing, strict=strict and not records)


def _doubt(state: State, prefix: str, missing: dict[str, Layer], *, strict: bool) -> None:
    """Warn of a state that has adapters and no record; refuse that of a plain model.

    Args:
        state: the state to load.
        prefix: what the names in the state begin with.
        missing: the layers without a record, by the record's name.
        strict: whether the state of a plain model is refused.

    Raises:
        ValueError: it is the state of a plain model.
    """
    wrappings = [layer.wrapping for layer in missing.values() if layer.wrapping is not None]
    plain = [name for name in wrappings[0].adapt if f"{prefix}{name}" in state] if wrappings else []
    if plain and strict:
        raise ValueError(
            f"This state is that of the model before wrap, as it has {plain[0]!r}: load it before wrap, or "
            "pass strict=False to load only what was kept."
        )
    owns = [key.removesuffix("identity") for key in missing]
    if not plain and any(f"{own}{each}" in state for own in owns for each in ("A", "beta", "bias")):
        warnings.warn(
            "This checkpoint does not say which scaffold it belongs to, as it is older than format 1: it is "
            "taken on trust that it is this model's.",
            stacklevel=4,
        )


def _refuse_other_adapters(state: State, prefix: str, name: str, layer: Layer, *, strict: bool) -> None:
    """Refuse a state whose adapters have other parts or shapes; PyTorch would load the rest first.

    Args:
        state: the state to load.
        prefix: what the layer's names in the state begin with.
        name: the layer's name, for the message.
        layer: the layer.
        strict: whether a part may be missing.

    Raises:
        ValueError: it has.
    """
    for part in TRAINED if not is_parametrized(layer) else ():
        given, own = state.get(f"{prefix}{part}"), layer._parameters.get(part)
        if (given is None or own is None) and not strict:
            continue
        shapes = [None if tensor is None else _shape(part, tensor) for tensor in (given, own)]
        has, needs = (f"no {part}" if shape is None else f"{part} of shape {shape}" for shape in shapes)
        if has != needs:
            raise ValueError(
                f"The state of layer {name!r} has other adapters: it has {has}; this model has {needs}. Wrap "
                "the model as the one that was saved."
            )


def _shape(part: str, tensor: Tensor) -> tuple[int, ...]:
    """The shape of a part; a β with an axis of length 1, see `prepare_for_fsdp`, counts as one without."""
    return () if part == "beta" and tensor.numel() == 1 else tuple(tensor.shape)


def _is_record(key: str, value: Tensor) -> bool:
    return key.rpartition(".")[2] == "identity" and value.dtype is torch.uint8


def _is_strict() -> bool:
    """Whether `load_state_dict` was called with strict=True, which it does not tell its hooks."""
    frame: types.FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not nn.Module.load_state_dict.__code__:
        frame = frame.f_back
    return frame is not None and bool(frame.f_locals["strict"])


def _refuse_another_model(keys: list[str], prefix: str) -> None:
    names = [key.removeprefix(prefix).removesuffix("identity").rstrip(".") for key in keys]
    more = f" and {len(names) - NAMES} more" if len(names) > NAMES else ""
    raise ValueError(
        f"The state belongs to another model, or to one with other layers on the scaffold: they differ in "
        f"{', '.join(map(repr, names[:NAMES]))}{more}. Wrap the model as the one that was saved, or pass "
        "strict=False."
    )
