"""What else holds a weight that `wrap` replaces, and would go on with the dense one in silence."""

from collections import deque
from collections.abc import Iterable
from collections.abc import Iterator
from functools import partial
from itertools import islice

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.wrapping.matrices import dotted

HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")  # of a tensor
MOST = 100_000  # values of one attribute that are looked at: it may be a data set
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
        if _has_storage(parameter):
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


def _bytes_of(tensor: Tensor) -> tuple[int, int]:
    """Where a tensor begins and ends in its storage."""
    first, size = int(tensor.storage_offset()), tensor.element_size()
    steps = zip(tensor.shape, tensor.stride(), strict=True)
    return first * size, (first + 1 + sum((n - 1) * step for n, step in steps)) * size


def _held(model: nn.Module, replaced: dict[str, nn.Parameter]) -> Iterator[tuple[str, str]]:
    """The replaced parameters of which a buffer or an attribute is one, holds one, or is a view."""
    names = {id(parameter): name for name, parameter in replaced.items()}
    spans = _spans(replaced)
    seen: set[int] = set()  # containers
    for layer, module in model.named_modules():
        for attribute, value in _further(module):
            for held in islice(_within(value, seen), MOST):
                if not isinstance(held, Tensor):
                    continue
                if id(held) in names:
                    yield names[id(held)], f"is also in {dotted(layer, attribute)}: take it out"
                elif other := _overlapped(held, spans):
                    yield other, f"shares memory with {dotted(layer, attribute)}: take that out"


def _further(module: nn.Module) -> Iterator[tuple[str, object]]:
    """The buffers and attributes of a module, by name, that hold a weight apart from its parameters."""
    yield from module._buffers.items()
    for name, value in vars(module).items():
        of_rnn = name == "_flat_weights" and isinstance(module, nn.RNNBase)
        computed = f"{name}_orig" in module._parameters  # by `nn.utils.spectral_norm`, before each call
        if name not in ("_parameters", "_buffers", "_modules") and not of_rnn and not computed:
            yield name, value


def _within(value: object, seen: set[int]) -> Iterator[object]:
    """A value, or what is in it at any depth if it is a container or a `functools.partial`.

    Args:
        value: the value.
        seen: the ids of containers to leave out; those that are found are added.
    """
    waiting: list[Iterator[object]] = [iter([value])]
    while waiting:
        for each in waiting[-1]:
            content = _content(each)
            if content is None:
                yield each
            elif id(each) not in seen:
                seen.add(id(each))
                waiting.append(iter(content))
                break
        else:
            waiting.pop()


def _content(value: object) -> Iterable[object] | None:
    """What a container or a `functools.partial` holds; None for any other value."""
    if isinstance(value, dict):
        return value.values()
    if isinstance(value, partial):
        return (value.func, *value.args, *value.keywords.values())
    return value if isinstance(value, list | tuple | set | frozenset | deque) else None


def _spans(replaced: dict[str, nn.Parameter]) -> dict[int, list[Span]]:
    """The bytes of the replaced parameters, by storage."""
    spans: dict[int, list[Span]] = {}
    whole = {id(parameter): (name, parameter) for name, parameter in replaced.items()}  # not q, k and v
    for name, parameter in whole.values():
        if _has_storage(parameter):
            spans.setdefault(parameter.untyped_storage()._cdata, []).append(
                (name, parameter, *_bytes_of(parameter))
            )
    return spans


def _overlapped(held: Tensor, spans: dict[int, list[Span]]) -> str | None:
    """The name of a parameter with which a tensor has bytes in common; None if there is none."""
    if not _has_storage(held):
        return None
    near = spans.get(held.untyped_storage()._cdata, [])
    first, last = _bytes_of(held) if near else (0, 0)
    return next((name for name, _, start, end in near if start < last and first < end), None)


def _has_storage(tensor: Tensor) -> bool:
    """Whether a tensor lies in a storage; one of a subclass or another layout may not."""
    return type(tensor) in (Tensor, nn.Parameter) and tensor.layout is torch.strided and tensor.numel() > 0
