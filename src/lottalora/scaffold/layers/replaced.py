"""The record of a module's class and attributes from before `wrap` changed it."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import replace
from typing import TypeVar
from typing import cast

from torch import Tensor
from torch import nn

TENSORS = ("_parameters", "_buffers", "_modules", "_non_persistent_buffers_set")
NOT_CARRIED = ("training", "forward", "replaced", "_compiled_call_impl", *TENSORS)
Other = TypeVar("Other", bound=nn.Module)


@dataclass(frozen=True)
class Replaced:
    """A module's class and attributes, without its weights.

    Args:
        cls: the module's class.
        attributes: its hooks and settings: its `__dict__` without tensors and modules.
        further: parameters, buffers and modules that its class does not define, by the name of the dictionary
            that held them.
        unsaved: the names of those buffers that `state_dict()` leaves out.
    """

    cls: type[nn.Module]
    attributes: dict[str, object]
    further: dict[str, dict[str, Tensor | nn.Module | None]]
    unsaved: frozenset[str]

    @classmethod
    def of(cls, module: nn.Module) -> "Replaced":
        """The record of a module that has not been changed yet."""
        attributes = {name: value for name, value in vars(module).items() if name not in NOT_CARRIED}
        known = _own_names(module)
        further = {
            kind: {name: value for name, value in getattr(module, kind).items() if name not in known}
            for kind in ("_parameters", "_buffers", "_modules")
        }
        unsaved = module._non_persistent_buffers_set & further["_buffers"].keys()
        return cls(type(module), attributes, further, frozenset(unsaved))

    def holding(self, others: Mapping[int, object]) -> "Replaced":
        """The same record with other objects in place of some, such as the hooks that a copy has of its own.

        Args:
            others: the objects to hold, by the `id` of those that they replace.
        """
        attributes = {name: others.get(id(value), value) for name, value in self.attributes.items()}
        return replace(self, attributes=attributes)

    def carried_into(self, other: nn.Module) -> dict[str, object]:
        """Add the recorded hooks, settings and extra tensors to the `__dict__` of `other`, and return it."""
        result = vars(other)
        for name, value in self.attributes.items():
            ours = name in result or hasattr(type(other), name)
            if "hook" in name or not ours:
                result[name] = value
        for kind, values in self.further.items():
            result[kind].update({name: value for name, value in values.items() if name not in result[kind]})
        result["_non_persistent_buffers_set"] |= self.unsaved
        return result


def become(module: nn.Module, other: Other) -> Other:
    """Turn a module into another one in place, and return it; it keeps its hooks and the training flag.

    Replacing it in its parent instead would not work for a root module, and references from elsewhere (a
    module used twice, held in a list or a closure) would still point at the old one.
    """
    other.train(module.training)
    before = Replaced.of(module)
    module.__class__ = type(other)
    module.__dict__ = before.carried_into(other)
    module.__dict__["replaced"] = before
    return cast(Other, module)


def _own_names(module: nn.Module) -> set[str]:
    """The names of the parameters, buffers and modules that the class of a layer defines."""
    names = {"weight", "bias"}
    if isinstance(module, nn.MultiheadAttention):
        names |= {"in_proj_weight", "in_proj_bias", "q_proj_weight", "k_proj_weight", "v_proj_weight"}
        names |= {"bias_k", "bias_v", "out_proj"}
    return names
