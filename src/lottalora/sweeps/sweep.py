"""One multirun, for every launcher: its cells, without those that are done; at the end, what failed."""

import logging
from collections import Counter
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path

from hydra.core.config_loader import ConfigLoader
from hydra.core.utils import JobReturn
from hydra.core.utils import JobStatus
from hydra.core.utils import configure_log
from hydra.plugins.launcher import Launcher
from omegaconf import DictConfig

from lottalora.artifacts import files
from lottalora.artifacts import learned
from lottalora.config.check import check_devices
from lottalora.config.check import check_folders
from lottalora.config.check_values import check_known
from lottalora.config.grids import OF_SWEEP
from lottalora.messages import counted
from lottalora.results import failures
from lottalora.results import rows
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.cells import Composer
from lottalora.sweeps.cells import cells_of
from lottalora.sweeps.cells import in_job
from lottalora.sweeps.jobs import jobs_of
from lottalora.sweeps.packs import Pack
from lottalora.sweeps.packs import alone
from lottalora.sweeps.packs import ensembles
from lottalora.sweeps.packs import packs_text

log = logging.getLogger(__name__)


def run_sweep(
    overrides: Sequence[str],
    *,
    loader: ConfigLoader,
    config: DictConfig,
    launcher: Launcher,
) -> list[Sequence[JobReturn]]:
    """Run what is not done, and raise one sentence at the end if a run failed."""
    check_known(config, OF_SWEEP)
    check_folders(config)
    check_devices(config.trainer.devices, sweep=True)
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    jobs = jobs_of(overrides, loader, config)
    composer = Composer(loader, config)
    cells = cells_of(composer, jobs)
    todo = cells
    check_launcher(config.hydra.launcher)
    if not config.dry_run:
        check_writable(Path(config.hydra.sweep.dir))
        if not config.force:
            todo = unfinished(cells, Path(config.paths.results), composer)
    log.info("%s", counts_text(jobs, cells, todo))
    if not config.dry_run and not config.force:
        count_missing(cells, config)
    together = config.ensemble and not config.dry_run
    packs = ensembles(cells, {cell.digest for cell in todo}) if together else alone(todo)
    if together:
        log.info("%s", packs_text(packs))
    results = run_packs(packs, launcher)
    failed = [each for each in results if each.status != JobStatus.COMPLETED]
    if not config.dry_run:
        if not failed:
            log.info("next: %s", rows.report_command(Path(config.paths.results)))
        name_diverged(cells, Path(config.paths.results))
    raise_failures(failed, len(todo))
    return [results] if todo else []


def run_packs(packs: Sequence[Pack], launcher: Launcher) -> Sequence[JobReturn]:
    """Launch the cells; the launcher gets them composed where it can take them."""
    if not packs:
        return []
    if hasattr(launcher, "packs"):
        launcher.packs = packs
    elif any(pack.name for pack in packs):
        raise ValueError("ensemble=true works with hydra/launcher=pool alone. Type ensemble=false for Slurm.")
    return launcher.launch([cell.overrides for pack in packs for cell in pack.cells], initial_job_idx=0)


def count_missing(cells: Sequence[Cell], config: DictConfig) -> None:
    """Count the done runs whose artifact or weights are asked for and not there."""
    results, lacking = Path(config.paths.results), Counter()
    asked = {cell.digest: keys for cell in cells if (keys := files_asked(cell, config))}
    done, _ = rows.read_done(results, asked.keys())
    for digest, row in done.items():
        lacking.update(files.missing(row, asked[digest], results))
    for what, count in lacking.items():
        log.warning("%d done without the %s asked for; force=true runs all again", count, what)


def files_asked(cell: Cell, config: DictConfig) -> list[str]:
    """The keys by which the cell asks for a file beside its row, its own overrides first."""
    own = dict(word.partition("=")[::2] for word in cell.overrides)
    return [key for key in files.ENTRIES if str(own.get(key, config[key])).lower() == "true"]


def name_diverged(cells: Sequence[Cell], results: Path) -> None:
    """Name each run of the sweep that diverged, whenever that was: it is done, and has no score."""
    done, _ = rows.read_done(results, {cell.digest for cell in cells})
    found = [row for row in done.values() if row["diverged"]]
    for row in found:
        log.warning("diverged: %s", rows.path_of(row, results))
    if found:
        log.warning("%d of %d runs diverged; force=true runs them again", len(found), len(cells))


def raise_failures(failed: Sequence[JobReturn], total: int) -> None:
    """Name each failure and its cause once more, below all else that was printed."""
    causes = [cause(each) + in_job(each.overrides) for each in failed]
    if len(failed) == 1:
        raise ValueError(causes[0])
    for each in causes:
        log.error("failed: %s", each)
    if failed:
        raise ValueError(
            f"{len(failed)} of {total} runs failed, as said above. Repeat the command to run them again."
        )


def check_launcher(launcher: DictConfig) -> None:
    """Refuse Slurm where there is none, or a partition that it does not have, before submitit is asked."""
    if not launcher._target_.endswith(".SlurmLauncher"):
        return
    from lottalora.sweeps.slurm import client

    client.check_slurm()
    client.check_partition(launcher.partition)


def check_writable(folder: Path) -> None:
    """Make the folder; raise OSError where it cannot be written."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            f"Cannot write to {error.filename}: {error.strerror}. Set paths.results=DIR to a writable folder."
        ) from error


def unfinished(cells: Sequence[Cell], results: Path, composer: Composer) -> list[Cell]:
    """Those without a row. A damaged row is none: its run refuses it.

    Raises:
        ValueError: a row is there, from other learned weights.
    """
    done, _ = rows.read_done(results, {cell.digest for cell in cells})
    refuse_other_weights(cells, done, composer)
    return [cell for cell in cells if cell.digest not in done]


def refuse_other_weights(cells: Sequence[Cell], done: Mapping[str, rows.Row], composer: Composer) -> None:
    """Raise ValueError for a cell that is done with other learned weights than its config names."""
    for cell in cells:
        if learned.KEY in done.get(cell.digest, {}):
            learned.check_same(done[cell.digest], composer.config(cell.overrides)[0])


def counts_text(jobs: Sequence, cells: Sequence[Cell], todo: Sequence[Cell]) -> str:
    """Count the runs of a sweep in words: all, repeated, done."""
    same = f" ({len(jobs)} combinations, the same ones once)" if len(jobs) > len(cells) else ""
    done = len(cells) - len(todo)
    done = f", {done} done already (force=true to run again)" if done else ""
    return f"{counted(len(cells), 'run')}{same}{done}"


def cause(failed: JobReturn) -> str:
    """Return the cause in one line: the pool's as it is, another launcher's from its error."""
    error = failed._return_value
    text = str(error) if type(error) is RuntimeError else failures.cause_of(error)
    return text.removesuffix(in_job(failed.overrides))
