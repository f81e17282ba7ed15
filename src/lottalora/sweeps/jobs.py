"""The jobs that a command line and its grids expand to: one list of overrides each."""

import itertools
from collections.abc import Iterator
from collections.abc import Sequence

from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig

from lottalora.config.grids import Grid
from lottalora.config.grids import grids_of
from lottalora.config.grids import is_of_sweep
from lottalora.config.grids import words_of


def jobs_of(overrides: Sequence[str], loader: ConfigLoader, master: DictConfig) -> list[list[str]]:
    """The overrides of every job of a multirun; sweeps=A,B is the union of the two sweeps."""
    parsed = OverridesParser.create(loader).parse_overrides(list(overrides))
    several = [each for each in parsed if each.key_or_group == "sweeps" and each.is_sweep_override()]
    if not several:
        return expand(overrides, grids_of(master.hydra.sweeper.grids), loader)
    others = [each.input_line for each in parsed if each.key_or_group != "sweeps"]
    jobs = []
    for choice in values_of(several[-1]):
        composed = loader.load_sweep_config(master, [choice])
        jobs += expand([*others, choice], grids_of(composed.hydra.sweeper.grids), loader)
    return jobs


def expand(typed: Sequence[str], grids: Sequence[Grid], loader: ConfigLoader) -> list[list[str]]:
    """Every combination of values, grid by grid; typed overrides replace the same keys of each grid."""
    parser = OverridesParser.create(loader)
    jobs = []
    for grid in grids or [{}]:
        check_no_axis(parser.parse_overrides(list(typed)), grid)
        overrides = parser.parse_overrides([*words_of(grid), *typed])
        axes = {each.get_key_element(): list(values_of(each)) for each in overrides}
        jobs += [list(job) for job in itertools.product(*axes.values())]
    return jobs


def check_no_axis(typed: Sequence[Override], grid: Grid) -> None:
    """Refuse several values of a key that has one for the whole sweep, and such a key in a grid."""
    for each in typed:
        key = each.key_or_group
        if each.is_sweep_override() and is_of_sweep(key):
            raise ValueError(
                f"{each.input_line!r} names several values, and {key} has one for all runs of a sweep. "
                f"Type one; a comma that is part of it goes in quotes: \"{key}='A,B'\"."
            )
    for key in filter(is_of_sweep, grid):
        raise ValueError(
            f"The grids of a sweep hold {key}, which has one value for all its runs. Type {key}=VALUE."
        )


def values_of(override: Override) -> Iterator[str]:
    """key=value for each value of one override."""
    key = override.get_key_element()
    if not override.is_sweep_override():
        values = [override.get_value_element_as_str()]
    else:
        if not override.is_discrete_sweep():
            raise ValueError(
                f"{override.input_line!r} names no values to try one by one. "
                f"Type {key}=1,2,3 or {key}=range(1,4)."
            )
        values = list(override.sweep_string_iterator())
    if not values or "" in values:
        raise ValueError(
            f"{override.input_line!r} is an axis without a value. Type {key}=VALUE,VALUE… or leave {key} out."
        )
    return (f"{key}={value}" for value in values)
