"""Attributes of foreign modules that `wrap` changes, and `merge` restores."""

from torch import nn

RECORD = "_lottalora_set_aside"  # the attribute that holds what changed attributes were before


class Absent:
    """Stands for an attribute that a module did not have itself."""


def change(module: nn.Module, attribute: str, value: object) -> None:
    """Give an attribute of a module another value, and keep the value that it had."""
    state = module.__dict__
    state.setdefault(RECORD, {}).setdefault(attribute, state.get(attribute, Absent))
    state[attribute] = value


def restore(module: nn.Module) -> dict[str, object]:
    """Restore the attributes that were changed; return the values that they had until now."""
    state = module.__dict__
    before = state.pop(RECORD, {})
    changed = {attribute: state.pop(attribute) for attribute in before}
    state.update({attribute: value for attribute, value in before.items() if value is not Absent})
    return changed
