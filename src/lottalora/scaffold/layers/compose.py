"""Composed weights in modules without a layer of ours: the module reads a weight that is computed.

The module that owns the weight gets a subclass of its own class, in which the parameter's name is a property
that computes W. A, B, β and W_seed are in a child of the module, named `composed_` and the parameter's name.
So `parameters()`, `state_dict()`, `functional_call`, `deepcopy` and `pickle` see ordinary modules.
"""

import contextlib
import functools
import sys
import types
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any
from typing import cast

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.layers.composed_weight import LottaWeight
from lottalora.scaffold.layers.reparametrization import WithoutWeight
from lottalora.scaffold.layers.reparametrization import refuse_assignment
from lottalora.scaffold.layers.reparametrization import refuse_reparametrization
from lottalora.scaffold.layers.reparametrization import refusing_text

PREFIX = "composed_"
STARTING = "_starting"  # the attribute that `starting` sets


class LookUp(nn.Embedding):
    """An embedding with a composed table, which computes only the rows that are looked up."""

    def forward(self, input: Tensor) -> Tensor:
        """The rows of the table, (*) → (*, features)."""
        table = self.get_submodule(PREFIX + "weight")
        h: Tensor = table(
            input, padding=self.padding_idx, sparse=self.sparse, by_frequency=self.scale_grad_by_freq
        )
        if self.max_norm is None:
            return h
        length: Tensor = h.detach().norm(self.norm_type, dim=-1, keepdim=True)
        return h * (self.max_norm / (length + 1e-7)).clamp_max(1)  # 1e-7: as in torch's renorm


def compose(owner: nn.Module, weights: dict[str, LottaWeight]) -> None:
    """Replace parameters of a module by composed weights, in place.

    Args:
        owner: the module.
        weights: the composed weights, by the names of the parameters that they replace.
    """
    cls = composed_class(type(owner), tuple(weights))
    for name, weight in weights.items():
        del owner._parameters[name]
        owner._modules[PREFIX + name] = weight
    owner._parameters = WithoutWeight(owner._parameters)
    if isinstance(owner, nn.RNNBase):
        owner.__dict__.pop("_flat_weights", None)  # it holds the dense weights
        owner.__dict__["_flat_weight_refs"] = []
    owner.__class__ = cls


def composed_weights(module: nn.Module) -> dict[str, LottaWeight]:
    """The composed weights of a module, by the parameter's name; empty for a module without."""
    names: tuple[str, ...] = getattr(type(module), "composed_names", ())
    return {name: cast(LottaWeight, module._modules[PREFIX + name]) for name in names}


def composed_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    """The subclass of `base` that reads each parameter in `names` from a composed weight; made once."""
    # mypy takes the __hash__ of nn.Module's instances for that of the class.
    cls: type[nn.Module] = _composed_class(base, names)  # type: ignore[arg-type]  # see above
    return cls


@functools.cache
def _composed_class(base: type[nn.Module], names: tuple[str, ...]) -> type[nn.Module]:
    body: dict[str, object] = {name: property(_reader(PREFIX + name)) for name in names}
    body |= {"plain_class": base, "composed_names": names, "__reduce_ex__": _reduce}
    body |= {"__repr__": refusing_text(base.__repr__), "__setattr__": _setter(base, names)}
    body |= {"__module__": base.__module__, "__doc__": base.__doc__}
    bases: tuple[type[nn.Module], ...] = (base,)
    if callable(getattr(base, "reset_parameters", None)):
        body["reset_parameters"] = _starter(base)
    if issubclass(base, nn.RNNBase):
        nothing = {name: _do_nothing for name in RECURRENT_CACHE}
        body |= nothing | {"_flat_weights": property(_flat_weights, _do_nothing)}
    if issubclass(base, nn.ModuleDict):
        views = ("keys", "values", "items", "__iter__", "__len__")
        body |= {name: _of_items(getattr(dict, name)) for name in views}
    if issubclass(base, nn.Sequential | nn.ModuleList):
        body |= {"__iter__": _of_items(lambda items: iter(items.values())), "__len__": _of_items(len)}
    if issubclass(base, nn.Embedding) and "weight" in names:
        # LookUp comes right before nn.Embedding, so that a forward of `base` reaches it through super().
        bases = (LookUp,) if base is nn.Embedding else (base, LookUp)
    return types.new_class(f"Composed{base.__name__}", bases, exec_body=lambda space: space.update(body))


RECURRENT_CACHE = ("_init_flat_weights", "_update_flat_weights", "flatten_parameters")


def _reader(child: str) -> Callable[[nn.Module], Tensor]:
    def read(self: nn.Module) -> Tensor:
        part = cast(LottaWeight, self._modules[child])
        if torch.compiler.is_compiling() or vars(self).get(STARTING):
            return part.weight
        refuse_reparametrization(sys._getframe(1))
        return part.lazy()

    return read


def _setter(base: type[nn.Module], names: tuple[str, ...]) -> Callable[[nn.Module, str, nn.Module], None]:
    caches = base.__setattr__ is nn.RNNBase.__setattr__  # and reads all weights for it; see RECURRENT_CACHE
    write = nn.Module.__setattr__ if caches else base.__setattr__

    def set_attribute(self: nn.Module, name: str, value: nn.Module) -> None:
        if name in names:
            refuse_assignment(name)
        write(self, name, value)

    return set_attribute


@contextlib.contextmanager
def starting(module: nn.Module) -> Iterator[None]:
    """A context manager for setting start values: what is written into a composed weight of it is lost."""
    vars(module)[STARTING] = True
    try:
        yield
    finally:
        del vars(module)[STARTING]


def _starter(base: type[nn.Module]) -> Callable[[nn.Module], None]:
    """A `reset_parameters` that starts the adapters as `wrap` does, and all else as `base` does."""

    def reset_parameters(self: nn.Module) -> None:
        with starting(self):
            base.reset_parameters(self)  # type: ignore[attr-defined]  # it was found
        for part in composed_weights(self).values():
            part.reset_adapter()

    return reset_parameters


Children = Mapping[str, nn.Module | None]


def _of_items(view: Callable[[Children], object]) -> Callable[[nn.Module], object]:
    """A method of a container that leaves out the composed weights among its children."""

    def method(self: nn.Module) -> object:
        return view({name: child for name, child in self._modules.items() if not name.startswith(PREFIX)})

    return method


def _flat_weights(self: nn.RNNBase) -> list[Tensor]:
    composed = composed_weights(self)
    names = self._flat_weights_names
    return [composed[name].weight if name in composed else getattr(self, name) for name in names]


def _do_nothing(self: nn.Module, *_: object) -> None:
    return None


def _reduce(self: nn.Module, protocol: int) -> tuple[Any, ...]:
    cls: Any = type(self)  # of `composed_class`, which has put the two names there
    return _rebuild, (cls.plain_class, cls.composed_names), self.__getstate__()


def _rebuild(base: type[nn.Module], names: tuple[str, ...]) -> nn.Module:
    cls = composed_class(base, names)
    return cls.__new__(cls)
