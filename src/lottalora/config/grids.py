"""The grids of a sweep, as its file in conf/sweeps gives them."""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from omegaconf import OmegaConf

from lottalora.results.command import literal

Grid = Mapping[str, Any]
OF_SWEEP = ("force", "dry_run", "ensemble", "fail_fast")  # one value for all runs of a sweep


def grids_of(found: object) -> Sequence[Grid]:
    """The grids of `hydra.sweeper`; none where there is no sweep.

    Raises:
        ValueError: they are no list of {KEY: VALUES}.
    """
    if found is None:
        return []
    if not OmegaConf.is_list(found) or not all(OmegaConf.is_dict(grid) for grid in found):
        raise ValueError(
            f"hydra.sweeper.grids must be a list of grids, got {found}. Write grids: [{{KEY: VALUES, …}}, …]."
        )
    return found


def words_of(grid: Grid) -> list[str]:
    """The grid as overrides: text as it is, since it may be several values; else what YAML has read."""
    return [f"{key}={spelled(value)}" for key, value in grid.items()]


def spelled(value: object) -> str:
    """A value of a grid as the command line has it."""
    if isinstance(value, str):
        return value
    return literal(OmegaConf.to_container(value) if OmegaConf.is_config(value) else value)


def is_of_sweep(key: str) -> bool:
    """Whether the key has one value for all runs of a sweep."""
    return key.partition(".")[0] in (*OF_SWEEP, "paths")
