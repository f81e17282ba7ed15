"""hydra/launcher=pool: a pool of processes on this machine, one run each."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.utils import JobReturn
from hydra.core.utils import configure_log
from hydra.core.utils import setup_globals
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from hydra.types import TaskFunction
from omegaconf import DictConfig


@dataclass
class PoolLauncherConf:
    _target_: str = "hydra_plugins.lottalora_sweeps.pool_launcher.PoolLauncher"
    workers: Any = None  # whole number of runs at once; null: one for each GPU, or for each core


ConfigStore.instance().store(group="hydra/launcher", name="pool", node=PoolLauncherConf, provider="lottalora")


class PoolLauncher(Launcher):
    """Runs its jobs side by side, each in a process of its own.

    Args:
        workers: runs at once; None: one for each GPU, or for each core.
    """

    def __init__(self, workers: int | None) -> None:
        self.workers = workers
        self.packs = None  # set by a sweeper that has composed the cells already

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.task_function = task_function
        self.config = config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from lottalora.sweeps.cells import Composer
        from lottalora.sweeps.launch import Sweep
        from lottalora.sweeps.packs import alone

        setup_globals()
        configure_log(self.config.hydra.hydra_logging, self.config.hydra.verbose)
        composer = Composer(self.hydra_context.config_loader, self.config)
        packs = self.packs or alone([composer.cell(overrides) for overrides in job_overrides])
        return Sweep(
            packs,
            config=self.config,
            context=self.hydra_context,
            task_function=self.task_function,
            workers=self.workers,
        ).run()
