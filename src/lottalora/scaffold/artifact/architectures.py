"""Architectures that an artifact may name: a closed list, so that loading a file imports nothing."""

import difflib
import functools
import threading
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch import nn
from torch.nn.modules import module as registration
from torch.nn.parameter import is_lazy


@dataclass(frozen=True)
class Architecture:
    """A way to build a plain model.

    Args:
        name: by which artifacts name it.
        build: builds the model from keyword arguments of plain data.
        call: calls the model with tensors, for the stored probe.
        start: initialises a module of a model on the meta device; None if `load` builds it where it is used.
    """

    name: str
    build: Callable[..., nn.Module]
    call: Callable[..., Tensor]
    start: Callable[[nn.Module, nn.Module], None] | None


ARCHITECTURES: dict[str, Architecture] = {}


def register_architecture(
    name: str,
    build: Callable[..., nn.Module],
    *,
    call: Callable[..., Tensor] | None = None,
    start: Callable[[nn.Module, nn.Module], None] | None = None,
) -> None:
    """Allow artifacts to name an architecture.

    Args:
        name: by which artifacts name it.
        build: builds the model from keyword arguments of plain data; it must not read files that they name.
        call: (model, *tensors) → output, for models that take something other than tensors; None calls the
            model itself.
        start: (model, module) → None, to initialise the tensors that a module without a W_seed holds
            directly, as `materialize` asks for. With it `load` never holds the plain model's dense weights.

    Raises:
        ValueError: another architecture has that name, or `build` cannot be called.
    """
    if not callable(build):
        raise ValueError(f"register_architecture takes a function that builds the model, got {build!r}.")
    if name in ARCHITECTURES:
        raise ValueError(f"Architecture {name!r} is registered already.")
    ARCHITECTURES[name] = Architecture(name, build, call or plain_call, start)


def plain_call(model: nn.Module, *inputs: Tensor) -> Tensor:
    """The output of a model that takes tensors."""
    output: Tensor = model(*inputs)
    return output


def find_architecture(name: str) -> Architecture:
    """The architecture of that name.

    Raises:
        ValueError: it is not registered; the message lists those that are.
    """
    if name in ARCHITECTURES:
        return ARCHITECTURES[name]
    near = difflib.get_close_matches(name, ARCHITECTURES, n=3, cutoff=0.5)
    known = near + sorted(ARCHITECTURES.keys() - set(near))
    raise ValueError(
        f"Architecture {name!r} is not registered. Registered: {', '.join(known) or 'none'}. Call "
        "register_architecture, or load_into(model, path) with a model of yours."
    )


def build(
    architecture: Architecture, arguments: Mapping[str, Any], *, modules: int, numbers: int
) -> nn.Module:
    """Build a model whose size is bounded; build it on the meta device to bound what it allocates.

    Args:
        architecture: what to build.
        arguments: plain data.
        modules: the most modules that it may have.
        numbers: the most numbers that its parameters may have together.

    Raises:
        ValueError: it is larger, or does not take these arguments.
        ModuleNotFoundError: a package that it is built from is not installed.
    """
    try:
        with _bounded(modules, numbers):
            return architecture.build(**arguments)
    except Exception as error:  # what a builder raises for arguments that make no sense may be anything
        if isinstance(error, ModuleNotFoundError) and error.name:  # the fault is this machine's
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"Architecture {architecture.name!r} cannot be built with the artifact's arguments: {reason}"
        ) from None


@contextmanager
def _bounded(modules: int, numbers: int) -> Iterator[None]:
    """Count what this thread registers in modules meanwhile, and raise ValueError beyond the bounds."""
    with _COUNTING:
        _count_in_modules()
    bounds = {"modules": modules, "numbers": numbers}
    budget = _Budget(bounds, dict(bounds), getattr(_BUILDING, "budget", None))
    _BUILDING.budget = budget
    try:
        yield
    finally:
        _BUILDING.budget = budget.outer


@dataclass
class _Budget:
    """What a builder may still register.

    Args:
        bounds: "modules" and "numbers" → how many it may.
        left: the same → how many it still may.
        outer: of a builder that loads another artifact; None else.
    """

    bounds: Mapping[str, int]
    left: dict[str, int]
    outer: "_Budget | None"


_BUILDING = threading.local()  # its `budget` is that of the thread
_COUNTING = threading.Lock()


@functools.cache
def _count_in_modules() -> None:
    """Have PyTorch tell of all that is registered from here on.

    The hooks stay: PyTorch goes through them in every thread, and an error ends that if one comes or goes.
    """
    registration.register_module_module_registration_hook(lambda *_: _spend("modules", 1))
    registration.register_module_parameter_registration_hook(lambda _, __, p: _spend("numbers", _size(p)))


def _size(parameter: nn.Parameter | None) -> int:
    """The count of a parameter's numbers; 0 for one that a lazy module has yet to make."""
    return 0 if parameter is None or is_lazy(parameter) else parameter.numel()


def _spend(kind: str, amount: int) -> None:
    budget = getattr(_BUILDING, "budget", None)
    while budget is not None:
        budget.left[kind] -= amount
        if budget.left[kind] < 0:
            bound = budget.bounds[kind]
            raise ValueError(f"it has more than {bound:,} {kind}. Pass a larger limit= if you trust it.")
        budget = budget.outer
