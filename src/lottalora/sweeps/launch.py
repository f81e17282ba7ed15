"""Run the cells of a multirun in the pool, say how each ended, and give Hydra their results."""

import contextlib
import importlib
import logging
import os
import sys
import time
import traceback
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn
from hydra.core.utils import JobStatus
from hydra.core.utils import configure_log
from hydra.core.utils import run_job
from hydra.types import HydraContext
from hydra.types import TaskFunction
from omegaconf import DictConfig
from omegaconf import OmegaConf
from omegaconf import open_dict
from omegaconf import read_write

from lottalora.errors import STOPPED
from lottalora.errors import in_one_line
from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.cells import cell_name
from lottalora.sweeps.cells import in_job
from lottalora.sweeps.cells import key_of
from lottalora.sweeps.packs import Pack
from lottalora.sweeps.pool import Ended
from lottalora.sweeps.pool import Job
from lottalora.sweeps.pool import check_workers
from lottalora.sweeps.pool import run_all
from lottalora.sweeps.pool import slots_of
from lottalora.sweeps.stopping import Stopped
from lottalora.sweeps.stopping import stopped_by_signals
from lottalora.tasks.imports import before_lightning
from lottalora.tracking.bars import Bar
from lottalora.tracking.bars import duration
from lottalora.uncaught import STOPPED_BY_HAND

MODULES = ("lottalora.experiment", "lottalora.training.measure")  # imported once, before the first fork
log = logging.getLogger(__name__)


class Sweep:
    """The cells of one multirun on their way through the pool.

    Args:
        packs: what is to be run, the cells of each process.
        config: of the multirun.
        context, task_function: what Hydra runs a job with.
        workers: how many runs at once; None: one for each GPU, or for each core.
    """

    def __init__(
        self,
        packs: Sequence[Pack],
        *,
        config: DictConfig,
        context: HydraContext,
        task_function: TaskFunction,
        workers: int | None,
    ) -> None:
        self.packs = packs
        self.cells = [cell for pack in packs for cell in pack.cells]
        self.config = config
        self.context = context
        self.task_function = task_function
        self.workers = workers
        self.results = Path(config.paths.results)
        self.causes: dict[str, str] = {}  # by `key_of` the cell
        self.seen: set[str] = set()
        self.begin = time.monotonic()
        terminal = sys.stderr.isatty() and not config.dry_run
        self.bar = Bar(sys.stderr, ticking=False) if terminal else None

    def run(self) -> list[JobReturn]:
        check_workers(self.workers)
        preload(self.config)
        slots = [{}] if self.config.dry_run else slots_of(self.workers, self.config.trainer.accelerator)
        jobs = [self.job(pack) for pack in self.packs]
        self.begin = time.monotonic()
        log.info("%d at once", len(slots))
        try:
            with (
                stopped_by_signals(),
                self.shown(len(self.cells)),
                contextlib.closing(run_all(jobs, slots)) as ends,
            ):
                self.follow(ends, total=len(self.cells))
        except (KeyboardInterrupt, Stopped) as error:
            ended, total = len(self.seen), len(self.cells)
            log.error("stopped: %d of %d runs ended. Repeat the command to go on.", ended, total)
            sys.exit(STOPPED if isinstance(error, Stopped) else STOPPED_BY_HAND)
        return [
            result_of(cell, self.causes.get(key_of(cell))) for cell in self.cells if key_of(cell) in self.seen
        ]

    @contextlib.contextmanager
    def shown(self, total: int) -> Iterator[None]:
        """The bar of the whole sweep, if there is a terminal; its cursor comes back in any case."""
        if self.bar is None:
            yield
            return
        self.bar.start(total)
        try:
            self.bar.show(0, f"0 of {total} runs")
            yield
        finally:
            self.bar.stop()

    def say(self, level: int, text: str) -> None:
        if self.bar is None:
            log.log(level, "%s", text)
        else:
            self.bar.say(text)

    def follow(self, ends: Generator[Ended], total: int) -> None:
        for end in ends:
            cells = self.packs[end.index].cells
            for cell in cells:
                self.seen.add(key_of(cell))
                self.tell(cell, end, total, seconds=end.seconds / len(cells))
            if self.bar:
                self.bar.show(len(self.seen), f"{len(self.seen)} of {total} runs, {self.left(total)} left")
            import_as_child(end.imported)
            if end.cause and self.config.fail_fast:
                self.say(logging.ERROR, "fail_fast=true: the other runs are stopped")
                ends.close()
                return

    def job(self, pack: Pack) -> Job:
        """Return the pool's job for these cells."""
        if pack.name:
            return Job(work=lambda: self.work_together(pack), log=self.folder(pack.name) / "log.txt")
        (cell,) = pack.cells
        if cell.problem:
            return Job(work=lambda: cell.problem)
        if self.config.dry_run:
            return Job(work=lambda: self.work(cell))
        return Job(work=lambda: self.work(cell), log=self.log_of(cell))

    def work(self, cell: Cell) -> str | None:
        """Compose and run the cell in the worker, as Hydra's own launcher does."""
        if not self.config.dry_run:
            head_log(cell)
        done = run_job(
            hydra_context=self.context,
            task_function=self.task_function,
            config=self.composed(cell),
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if done.status == JobStatus.COMPLETED:
            return None
        return failures.cause_of(done._return_value).removesuffix(in_job(cell.overrides))

    def work_together(self, pack: Pack) -> str | None:
        """Compose the cells and train them at once, in the worker."""
        from lottalora.config.identity import identify
        from lottalora.sweeps import ensemble

        asked = []
        for cell in pack.cells:
            head_log(cell)
            config = self.composed(cell)
            HydraConfig.instance().set_config(config)
            configure_log(config.hydra.job_logging, config.hydra.verbose)
            with read_write(config), open_dict(config):
                del config["hydra"]
            asked.append(ensemble.Asked(cfg=config, identity=identify(config), overrides=cell.overrides))
        try:
            ensemble.run(asked, pack.name)
        except Exception as error:
            log.error("failed: %s", in_one_line(error) or traceback.format_exc())
            return failures.cause_of(error)
        return None

    def composed(self, cell: Cell) -> DictConfig:
        """The config of a cell, Hydra's part with it."""
        config = self.context.config_loader.load_sweep_config(self.config, list(cell.overrides))
        index = self.cells.index(cell)
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = index
        return config

    def folder(self, name: str) -> Path:
        return self.results / "runs" / name

    def log_of(self, cell: Cell) -> Path:
        return self.folder(rows.run_name(cell.identity)) / "log.txt"

    def tell(self, cell: Cell, end: Ended, total: int, *, seconds: float) -> None:
        """Log one line for a run that ended."""
        if self.config.dry_run and not end.cause:
            return
        place = f"{len(self.seen)}/{total}"
        if end.cause:
            self.causes[key_of(cell)] = end.cause
            self.keep_death(cell, end)
            self.say(logging.ERROR, f"{place} failed: {cell_name(cell)}: {end.cause}")
            return
        row = rows.find(cell.digest, self.results)
        if row is None:
            note = claims.holder(cell.digest, self.results)
            where = claims.holder_text(note or {"pid": None})
            self.say(logging.INFO, f"{place} skipped: {cell_name(cell)} is run {where}")
            return
        done = rows.read(row)
        score = "diverged" if done["diverged"] else f"{done['metric']} {done['score']:.4f}"
        score = f"{score}, {seconds:.1f} s"
        left = "" if self.bar else f", {self.left(total)} left"  # the bar says it
        self.say(logging.INFO, f"{place} {cell_name(cell)}: {score}{left}")

    def keep_death(self, cell: Cell, end: Ended) -> None:
        """Write the record of failure for a process that was killed and left none."""
        if not end.died or not cell.digest:
            return
        failures.record(
            cell.digest,
            self.results,
            cause=end.cause,
            trace="",
            overrides=cell.overrides,
            log_file=self.log_of(cell),
        )

    def left(self, total: int) -> str:
        """Estimate the time left from the runs so far."""
        seconds = (time.monotonic() - self.begin) / len(self.seen) * (total - len(self.seen))
        return duration(seconds)


def head_log(cell: Cell) -> None:
    """Head each try in a log with the overrides of the cell."""
    with contextlib.suppress(OSError):  # a full disk: the run itself says so
        sys.stderr.write(f"begin {' '.join(cell.overrides)}\n")


def preload(config: DictConfig) -> None:
    """Import in the parent what every run needs, so that forks have it already."""
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # before torch starts its threads; trainer.threads sets them for a run
    before_lightning()
    targets = [OmegaConf.select(config, f"{part}._target_") for part in ("data", "task", "model.net")]
    for module in (*MODULES, *(target.rpartition(".")[0] for target in targets if target)):
        importlib.import_module(module)


def import_as_child(names: Sequence[str]) -> None:
    """Import what a run had to import, once for all that follow: scikit-learn alone costs a second."""
    for name in names:
        with contextlib.suppress(
            Exception
        ):  # a name that only exists inside of its package, such as a lazy part
            importlib.import_module(name)


def result_of(cell: Cell, cause: str | None) -> JobReturn:
    """Return Hydra's record of a finished or failed cell."""
    done = JobReturn(
        overrides=list(cell.overrides), status=JobStatus.FAILED if cause else JobStatus.COMPLETED
    )
    done.return_value = RuntimeError(cause) if cause else None
    return done
