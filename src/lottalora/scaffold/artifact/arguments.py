"""The arguments of an architecture: plain values, and no number by which a builder could allocate at will."""

from collections.abc import Iterator
from collections.abc import Mapping
from typing import Any

from lottalora.scaffold.artifact.plain_types import Plain
from lottalora.scaffold.artifact.plain_types import is_a
from lottalora.scaffold.wrapping.places import in_one_line

LARGEST = 2**24  # of a whole number that is no seed


def check_pair(architecture: object) -> None:
    """Raise ValueError for an architecture that is neither None nor a name and its arguments."""
    if architecture is None:
        return
    if not isinstance(architecture, tuple | list) or [type(each) for each in architecture[:1]] != [str]:
        raise ValueError(f"architecture is (NAME, {{ARGUMENT: VALUE}}), got {in_one_line(architecture)}.")
    if len(architecture) != 2 or not isinstance(architecture[1], Mapping):
        raise ValueError(f"architecture is (NAME, {{ARGUMENT: VALUE}}), got {tuple(architecture)!r}.")


def described(architecture: tuple[str, Mapping[str, Any]] | None) -> dict[str, Plain] | None:
    """An architecture as the header has it; tuples among its arguments become lists.

    Raises:
        ValueError: an argument is no plain value, or one that `load` refuses.
    """
    if architecture is None:
        return None
    name, given = architecture
    arguments = {key: list(each) if isinstance(each, tuple) else each for key, each in given.items()}
    for key, value in arguments.items():
        if not isinstance(key, str) or not is_a(value, Any):
            raise ValueError(
                f"{key}={value!r} of architecture {name!r} is no plain value, so it cannot be saved. Plain "
                "are None, booleans, text, finite numbers below 2⁵³, lists, and dicts with text as keys."
            )
    for key, number in large_numbers(arguments):
        raise ValueError(
            f"{key}={number} of architecture {name!r} is above {LARGEST:,}, and load refuses such a number, "
            "since a builder could allocate by it. A seed may be as large: call it seed, or …_seed. Else "
            "pass it as text, or leave out architecture, for load_into."
        )
    return {"name": name, "arguments": arguments}


def refuse_large_numbers(arguments: dict[str, Plain]) -> None:
    """Refuse arguments of a file with which a builder could allocate without bound.

    Raises:
        ValueError: there is one.
    """
    for key, number in large_numbers(arguments):
        raise ValueError(
            f"Argument {key} of the artifact's architecture is {number}; {LARGEST} is allowed, and more for "
            "seeds alone."
        )


def large_numbers(value: Plain, key: str = "") -> Iterator[tuple[str, int]]:
    """The whole numbers above LARGEST, at any depth, that are no seed by their name, with that name."""
    if isinstance(value, int) and abs(value) > LARGEST and key.rpartition("_")[2] != "seed":
        yield key, value
    elif isinstance(value, dict):
        for name, each in value.items():
            yield from large_numbers(each, name)
    elif isinstance(value, list):
        for each in value:
            yield from large_numbers(each, key)
