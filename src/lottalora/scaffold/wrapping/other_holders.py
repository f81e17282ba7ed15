"""What else holds a weight that `wrap` replaces, and would go on with the dense one in silence."""

from collections.abc import Iterable
from collections.abc import Iterator

from torch import nn

from lottalora.scaffold.wrapping.matrices import dotted

HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")  # of a tensor
Span = tuple[str, nn.Parameter, int, int]  # a name, its parameter, and its first and last byte in the storage


def refuse_other_holders(model: nn.Module, replaced: dict[str, nn.Parameter]) -> None:
    """Refuse to replace parameters that have hooks, share memory with others, or are held elsewhere.

    Args:
        model: the model.
        replaced: the parameters that `wrap` replaces, by name.

    Raises:
        ValueError: there is one.
    """
    for name, reason in (*_hooked(replaced), *_overlapping(model, replaced), *_held(model, replaced)):
        raise ValueError(f"{name} {reason} before wrap, or name its layer in keep=.")


def _hooked(replaced: dict[str, nn.Parameter]) -> Iterator[tuple[str, str]]:
    for name, parameter in replaced.items():
        if any(getattr(parameter, hooks, None) for hooks in HOOKS):
            yield name, "has a hook on its gradient, and after wrap it has no gradient: remove the hook"


def _overlapping(model: nn.Module, replaced: dict[str, nn.Parameter]) -> Iterator[tuple[str, str]]:
    """Of the parameters that lie in one storage, those that have bytes in common with a replaced one."""
    by_storage: dict[int, list[Span]] = {}
    for name, parameter in model.named_parameters():
        if type(parameter) is nn.Parameter and parameter.numel():  # a subclass may have no storage
            storage = parameter.untyped_storage()._cdata
            by_storage.setdefault(storage, []).append((name, parameter, *_bytes_of(parameter)))
    ids = {id(parameter) for parameter in replaced.values()}
    for spans in by_storage.values():
        spans.sort(key=lambda span: span[2:])
        widest = spans[0]  # of those before, the one with the last byte
        for span in spans[1:]:
            for mine, other in ((widest, span), (span, widest)):
                if span[2] < widest[3] and id(mine[1]) in ids:
                    yield mine[0], f"shares memory with {other[0]}: make them one parameter"
            widest = max(widest, span, key=lambda each: each[3])


def _bytes_of(parameter: nn.Parameter) -> tuple[int, int]:
    """Where a parameter begins and ends in its storage."""
    first, size = int(parameter.storage_offset()), parameter.element_size()
    steps = zip(parameter.shape, parameter.stride(), strict=True)
    return first * size, (first + 1 + sum((n - 1) * step for n, step in steps)) * size


def _held(model: nn.Module, replaced: dict[str, nn.Parameter]) -> Iterator[tuple[str, str]]:
    ids = {id(parameter): name for name, parameter in replaced.items()}
    for layer, module in model.named_modules():
        for attribute, value in vars(module).items():
            if attribute == "_parameters" or attribute == "_flat_weights" and isinstance(module, nn.RNNBase):
                continue
            for held in _values(value):
                if id(held) in ids:
                    yield ids[id(held)], f"is also in {dotted(layer, attribute)}: take it out"


def _values(value: object) -> Iterable[object]:
    """The values in a list, tuple or dict, or the value itself."""
    if isinstance(value, dict):
        return value.values()
    return value if isinstance(value, list | tuple) else [value]
