"""Where each cell of a sweep stands, from files alone: rows, claims and records of failures."""

import contextlib
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from omegaconf import DictConfig

from lottalora import CONF
from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.cells import Composer
from lottalora.sweeps.cells import cells_of_overrides
from lottalora.sweeps.cells import key_of


@dataclass(frozen=True, kw_only=True)
class SweepState:
    """Cells by state; each is in one of the first four lists.

    Args:
        done, running, failed, waiting: cells. What runs again after a failure is running.
        diverged: those of `done` whose run diverged.
        claims: digest → who runs it.
        causes: digest, or overrides where there is none → why it failed.
    """

    done: list[Cell] = field(default_factory=list)
    running: list[Cell] = field(default_factory=list)
    failed: list[Cell] = field(default_factory=list)
    waiting: list[Cell] = field(default_factory=list)
    diverged: list[Cell] = field(default_factory=list)
    claims: dict[str, dict] = field(default_factory=dict)
    causes: dict[str, dict] = field(default_factory=dict)

    @property
    def cells(self) -> list[Cell]:
        return [*self.done, *self.running, *self.failed, *self.waiting]

    @property
    def unfinished(self) -> list[Cell]:
        return [*self.running, *self.failed, *self.waiting]


def sweep_state(cells: Sequence[Cell], results: Path) -> SweepState:
    """Where each of these cells stands now."""
    done, damaged = rows.read_done(results, {cell.digest for cell in cells})
    failed = failures.read_all(results) | {
        digest: {"cause": problem, "log": ""} for digest, problem in damaged.items()
    }
    now = SweepState(claims=claims.all_held(results))
    for cell in cells:
        if cell.digest in now.claims:
            now.running.append(cell)
        elif cell.digest in done:
            now.done.append(cell)
            if done[cell.digest]["diverged"]:
                now.diverged.append(cell)
        elif cell.problem or cell.digest in failed:
            now.failed.append(cell)
            now.causes[key_of(cell)] = (
                {"cause": cell.problem, "log": ""} if cell.problem else failed[cell.digest]
            )
        else:
            now.waiting.append(cell)
    return now


@contextlib.contextmanager
def sweep_of(overrides: Sequence[str]) -> Iterator[tuple[list[Cell], Composer, DictConfig]]:
    """The cells that `run.py -m OVERRIDES` would run; what is typed wrong is a ValueError of one line."""
    from hydra import initialize_config_dir
    from hydra.errors import HydraException

    from lottalora.config import loader
    from lottalora.errors import in_one_line

    loader.install()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        try:
            found = cells_of_overrides(overrides)
        except HydraException as error:
            raise ValueError(in_one_line(error)) from error
        yield found
