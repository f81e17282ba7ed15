"""hydra/sweeper=cells: grids of values, each cell once, finished ones left out; for every launcher."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from hydra.plugins.sweeper import Sweeper
from hydra.types import HydraContext
from hydra.types import TaskFunction
from omegaconf import DictConfig


@dataclass
class CellsSweeperConf:
    _target_: str = "hydra_plugins.lottalora_sweeps.cells_sweeper.CellsSweeper"
    grids: Any = None  # list of {key: "value,value"}; their union is run


ConfigStore.instance().store(group="hydra/sweeper", name="cells", node=CellsSweeperConf, provider="lottalora")


class CellsSweeper(Sweeper):
    """Runs the union of its grids, which overrides of the command line narrow or replace.

    Args:
        grids: each maps keys to Hydra's spelling of one value or several; None is one empty grid. They are
            read from the config, where sweeps=A,B has the grids of both.
    """

    def __init__(self, grids: Sequence[dict] | None) -> None:
        pass

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.hydra_context = hydra_context
        self.config = config
        self.launcher = Plugins.instance().instantiate_launcher(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def sweep(self, arguments: list[str]) -> list:
        from lottalora.sweeps.sweep import run_sweep

        return run_sweep(
            arguments,
            loader=self.hydra_context.config_loader,
            config=self.config,
            launcher=self.launcher,
        )
