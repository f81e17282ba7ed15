"""What the words of `python -m benchmarks` select: groups, and in them names."""

import argparse
import difflib
from collections.abc import Collection
from collections.abc import Iterable

from benchmarks import kernels
from benchmarks import layers
from benchmarks import steps

ON_CPU = ("layers", "steps", "loop", "generator")
ON_GPU = ("layers", "steps", "kernels", "graphs")  # all that runs there
NAMED = ("layers", "steps", "kernels", "graphs")  # whose comparisons --only chooses from


def names_in(group: str, device: str) -> tuple[str, ...]:
    """The names that --only may give of a group; none of one that is measured as a whole."""
    table_9 = steps.TABLE_9 if device == "cuda" else ()
    return {
        "layers": tuple(layers.CASES),
        "steps": (*steps.CASES, *table_9),
        "graphs": kernels.GRAPHS,
    }.get(group, ())


def select(parser: argparse.ArgumentParser, options: argparse.Namespace) -> tuple[str, ...]:
    """The groups to be measured: those typed, else all in which --only names something.

    What selects nothing is an error of the parser.
    """
    known = ON_GPU if options.device == "cuda" else ON_CPU
    refuse_unknown(parser, "group", options.groups, known)
    only = set(options.only or ())
    every = list(dict.fromkeys(name for group in NAMED for name in names_in(group, "cuda")))
    refuse_unknown(parser, "name", options.only or (), every)
    holding = tuple(group for group in known if only.intersection(names_in(group, options.device)))
    groups = tuple(options.groups) or (holding if only else known)
    measured = {name for group in groups for name in names_in(group, options.device)}
    if absent := sorted(only - measured):
        where = ", ".join(groups or known)
        parser.error(f"{quoted(absent)}: nothing of that name is in {where} on device {options.device}")
    if only and (empty := [group for group in groups if group in NAMED and group not in holding]):
        parser.error(f"--only names nothing of {', '.join(empty)}: leave out the one or the other")
    return groups


def refuse_unknown(
    parser: argparse.ArgumentParser, kind: str, given: Iterable[str], known: Collection[str]
) -> None:
    """End with a line that names what is unknown, and all that is known, the nearest first."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
            others = [each for each in known if each not in near]
            parser.error(f"unknown {kind} {name!r}. Known: {quoted([*near, *others])}")


def quoted(names: Iterable[str]) -> str:
    return ", ".join(f"'{name}'" for name in names)
