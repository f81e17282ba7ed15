"""One multirun, for every launcher: its cells, without those that are done; at the end, what failed."""

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn
from hydra.core.utils import JobStatus
from hydra.core.utils import configure_log
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from lottalora import rows
from lottalora.errors import deliberate
from lottalora.sweeps import failures
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.cells import Composer
from lottalora.sweeps.cells import Grid
from lottalora.sweeps.cells import cells_of
from lottalora.sweeps.cells import expand

log = logging.getLogger(__name__)


def run_sweep(
    words: Sequence[str],
    grids: Sequence[Grid],
    *,
    loader: ConfigLoader,
    config: DictConfig,
    launcher: Launcher,
) -> list[Sequence[JobReturn]]:
    """Run what is not done, and raise one sentence at the end if a run failed."""
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = expand(words, grids, loader)
    cells = cells_of(Composer(loader, config), jobs)
    todo = cells if config.force or config.dry_run else unfinished(cells, Path(config.paths.results))
    log.info("%s", in_words(jobs, cells, todo))
    if not todo:
        return []
    if hasattr(launcher, "cells"):
        launcher.cells = todo
    results = launcher.launch([cell.overrides for cell in todo], initial_job_idx=0)
    failed = [each for each in results if each.status != JobStatus.COMPLETED]
    for each in failed:
        log.error("failed: %s: %s", " ".join(each.overrides), cause(each._return_value))
    if failed:
        raise ValueError(
            f"{len(failed)} of {len(todo)} runs failed, as said above. Repeat the command to run them again."
        )
    return [results]


def unfinished(cells: Sequence[Cell], results: Path) -> list[Cell]:
    """Those without a row. A damaged row is none: its run says what is wrong with it."""
    paths = row_paths(results)
    return [cell for cell in cells if cell.digest not in paths or not readable(paths[cell.digest])]


def row_paths(results: Path) -> dict[str, Path]:
    """Digest → row, by the names of the files alone."""
    return {path.stem.rpartition("-")[2]: path for path in Path(results, "rows").glob("*/*/*.json")}


def readable(path: Path) -> bool:
    try:
        rows.read(path)
    except ValueError:
        return False
    return True


def in_words(jobs: Sequence, cells: Sequence[Cell], todo: Sequence[Cell]) -> str:
    same = f" ({len(jobs)} combinations, the same ones once)" if len(jobs) > len(cells) else ""
    done = f", {len(cells) - len(todo)} done already" if len(todo) < len(cells) else ""
    return f"{len(cells)} runs{same}{done}"


def cause(error: BaseException) -> str:
    return str(error) if type(error) is RuntimeError else deliberate(error) or failures.cause_of(error)
