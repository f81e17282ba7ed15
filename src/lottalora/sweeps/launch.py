"""Run the cells of a multirun in the pool, say how each ended, and give Hydra their results."""

import contextlib
import importlib
import logging
import os
import sys
import time
from collections.abc import Generator
from collections.abc import Iterator
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn
from hydra.core.utils import JobStatus
from hydra.core.utils import run_job
from hydra.types import HydraContext
from hydra.types import TaskFunction
from omegaconf import DictConfig
from omegaconf import OmegaConf
from omegaconf import open_dict

from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.cells import cell_name
from lottalora.sweeps.cells import in_job
from lottalora.sweeps.pool import Ended
from lottalora.sweeps.pool import Job
from lottalora.sweeps.pool import run_all
from lottalora.sweeps.pool import slots_of
from lottalora.tasks.metrics import load_torchmetrics
from lottalora.tracking.bars import Bar
from lottalora.tracking.bars import duration

MODULES = ("lottalora.experiment", "lottalora.training.measure")  # imported once, before the first fork
log = logging.getLogger(__name__)


class Sweep:
    """The cells of one multirun on their way through the pool.

    Args:
        cells: what is to be run.
        config: of the multirun.
        context, task_function: what Hydra runs a job with.
        workers: how many runs at once; None: one for each GPU, or for each core.
    """

    def __init__(
        self,
        cells: Sequence[Cell],
        *,
        config: DictConfig,
        context: HydraContext,
        task_function: TaskFunction,
        workers: int | None,
    ) -> None:
        self.cells = cells
        self.config = config
        self.context = context
        self.task_function = task_function
        self.workers = workers
        self.results = Path(config.paths.results)
        self.causes: dict[int, str] = {}
        self.seen: set[int] = set()
        self.begin = time.monotonic()
        terminal = sys.stderr.isatty() and not config.dry_run
        self.bar = Bar(sys.stderr, ticking=False) if terminal else None

    def run(self) -> list[JobReturn]:
        if self.workers is not None and self.workers < 1:
            raise ValueError(f"hydra.launcher.workers must be 1 or more, or null, got {self.workers}.")
        preload(self.config)
        slots = [{}] if self.config.dry_run else slots_of(self.workers, self.config.trainer.accelerator)
        jobs = [self.job(index) for index in range(len(self.cells))]
        self.begin = time.monotonic()
        log.info("%d at once", len(slots))
        try:
            with self.shown(len(jobs)):
                self.follow(run_all(jobs, slots), total=len(jobs))
        except KeyboardInterrupt:
            log.error("stopped: %d of %d runs ended. Repeat the command to go on.", len(self.seen), len(jobs))
            sys.exit(130)
        return [
            result_of(cell, self.causes.get(index))
            for index, cell in enumerate(self.cells)
            if index in self.seen
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
            self.seen.add(end.index)
            self.tell(end, total)
            if self.bar:
                self.bar.show(len(self.seen), f"{len(self.seen)} of {total} runs, {self.left(total)} left")
            import_as_child(end.imported)
            if end.cause and self.config.fail_fast:
                self.say(logging.ERROR, "fail_fast=true: the other runs are stopped")
                ends.close()
                return

    def job(self, index: int) -> Job:
        """Return the pool's job for this cell."""
        cell = self.cells[index]
        if cell.problem:
            return Job(work=lambda: cell.problem)
        if self.config.dry_run:
            return Job(work=lambda: self.work(index))
        return Job(work=lambda: self.work(index), log=self.log_of(cell))

    def work(self, index: int) -> str | None:
        """Compose and run the cell in the worker, as Hydra's own launcher does."""
        if not self.config.dry_run:
            with contextlib.suppress(OSError):  # a full disk: the run itself says so
                sys.stderr.write(
                    f"begin {' '.join(self.cells[index].overrides)}\n"
                )  # heads each try in a log
        config = self.context.config_loader.load_sweep_config(self.config, list(self.cells[index].overrides))
        with open_dict(config):
            config.hydra.job.id = config.hydra.job.num = index
        done = run_job(
            hydra_context=self.context,
            task_function=self.task_function,
            config=config,
            job_dir_key="hydra.sweep.dir",
            job_subdir_key="hydra.sweep.subdir",
        )
        if done.status == JobStatus.COMPLETED:
            return None
        return failures.cause_of(done._return_value).removesuffix(in_job(self.cells[index].overrides))

    def log_of(self, cell: Cell) -> Path:
        return self.results / "runs" / rows.run_name(cell.identity) / "log.txt"

    def tell(self, end: Ended, total: int) -> None:
        """Log one line for a run that ended."""
        cell = self.cells[end.index]
        if self.config.dry_run and not end.cause:
            return
        place = f"{len(self.seen)}/{total}"
        if end.cause:
            self.causes[end.index] = end.cause
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
        score = f"{score}, {end.seconds:.1f} s"
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


def preload(config: DictConfig) -> None:
    """Import in the parent what every run needs, so that forks have it already."""
    os.environ.setdefault(
        "OMP_NUM_THREADS", "1"
    )  # before torch starts its threads; trainer.threads sets them for a run
    load_torchmetrics()
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
