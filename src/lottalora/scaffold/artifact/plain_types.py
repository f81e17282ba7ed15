"""JSON data of a strict type."""

import types
from typing import Any
from typing import TypeVar
from typing import Union
from typing import get_args
from typing import get_origin
from typing import get_type_hints

from lottalora.scaffold.artifact.container import damaged

Plain = Any  # JSON: null, true, false, a number, a text, a list or an object of these
Record = TypeVar("Record")


def checked(cls: type[Record], read: Plain, what: str) -> Record:
    """A record from JSON data, with the types of its fields.

    Raises:
        ValueError: a key is missing or too many, or a value is of another type.
    """
    check_types(read, get_type_hints(cls), what)
    return cls(**read)


def check_types(read: Plain, hints: dict[str, Plain], what: str) -> None:
    """Refuse JSON data that are no object with just these keys, each of its type.

    Raises:
        ValueError: they are not; `what` says in the message what was read.
    """
    if not isinstance(read, dict) or read.keys() != hints.keys():
        raise damaged(f"{what} does not have the keys {', '.join(hints)}")
    for key, hint in hints.items():
        if not is_a(read[key], hint):
            raise damaged(f"{key} of {what} is not as it should be")


def is_a(value: object, hint: Plain) -> bool:
    """Whether JSON data have a type; a bool is no number, and numbers are finite and below 2⁵³."""
    kind: object = get_origin(hint)
    parts = get_args(hint)
    if hint is Any:
        return _is_plain(value)
    if kind in (Union, types.UnionType):
        return any(is_a(value, part) for part in parts)
    if kind is list:
        return isinstance(value, list) and all(is_a(each, parts[0]) for each in value)
    if kind is dict:
        return isinstance(value, dict) and all(is_a(each, parts[1]) for each in value.values())
    if hint in (int, float):
        return type(value) in (int, hint) and _is_small(value)
    return type(value) is hint


def _is_small(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) < 2**53  # which neither NaN nor ±∞ is


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    if isinstance(value, dict):
        return all(isinstance(key, str) and _is_plain(each) for key, each in value.items())
    return value is None or isinstance(value, bool | str) or _is_small(value)
