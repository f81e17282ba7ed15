"""The cells of a multirun: its distinct runs, each with its row's digest."""

import functools
import re
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf import OmegaConf
from omegaconf import open_dict
from omegaconf import read_write
from omegaconf.errors import OmegaConfBaseException

from lottalora.config.check import check
from lottalora.config.check_values import check_known
from lottalora.config.ensemble import check_ensemble
from lottalora.config.ensemble import common_settings
from lottalora.config.grids import OF_SWEEP
from lottalora.config.identity import digest_config
from lottalora.config.identity import naming
from lottalora.config.loader import copier
from lottalora.config.loader import interpolations_parsed_once
from lottalora.errors import in_one_line
from lottalora.results import rows
from lottalora.results.digest import digest_of
from lottalora.sweeps.jobs import jobs_of

SEED = re.compile("seed=(0|[1-9][0-9]*)")
ANY_SEED = 8_046_529_314_706_258_713  # a number that no config holds by itself


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One run of a sweep.

    Args:
        overrides: those that make its config.
        identity: the part of its row that names it; empty where the config cannot be resolved.
        epochs: epochs that it trains; 0 where the config cannot be resolved.
        problem: why it cannot run, or None.
        common: with ensemble=true, the settings that it shares with the others of its ensemble.
        plain: what its digest is made of.
    """

    overrides: tuple[str, ...]
    identity: dict
    epochs: int = 0
    problem: str | None = None
    common: dict = field(default_factory=dict)
    plain: dict = field(default_factory=dict)

    @property
    def digest(self) -> str:
        return self.identity.get("digest", "")


class Composer:
    """Configs of cells. Hydra composes once for each choice of groups, and the other overrides of a cell are
    applied to a copy: a tenth of the time, and the same config, since Hydra too applies values after groups.

    Args:
        loader: of the config folder.
        master: the config of the multirun, whose overrides for Hydra itself hold for each cell.
        jobs: whether each cell is a command of its own, as in Slurm, and so may have several devices.
    """

    def __init__(self, loader: ConfigLoader, master: DictConfig, *, jobs: bool = False) -> None:
        self.loader = loader
        self.master = master
        self.jobs = jobs
        self.of_groups: dict[tuple[str, ...], tuple[Callable[[], DictConfig], DictConfig]] = {}
        self.of_any_seed: dict[tuple[str, ...], Cell] = {}
        self.of_inits: dict[tuple[str, ...], tuple[str, Cell]] = {}  # the first init's
        self.alike: dict[tuple[str, ...], bool] = {}  # whether a second init differed from it in itself alone
        self.parse = functools.lru_cache(maxsize=None)(OverridesParser.create(loader).parse_override)
        self.family_of = functools.lru_cache(maxsize=None)(self.load_family)
        self.is_group = functools.lru_cache(maxsize=None)(lambda key: bool(loader.get_group_options(key)))

    @interpolations_parsed_once()
    def config(self, overrides: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        """The task's config of one cell, and Hydra's."""
        parsed = [self.parse(word) for word in overrides]
        groups = tuple(each.input_line for each in parsed if self.is_group(each.key_or_group))
        if groups not in self.of_groups:
            task, hydra = self.compose(groups)
            self.of_groups[groups] = (copier(task), hydra)
        copy_of_task, hydra = self.of_groups[groups]
        task = copy_of_task()
        values = [each for each in parsed if not self.is_group(each.key_or_group)]
        ConfigLoaderImpl._apply_overrides_to_config(values, task)
        return task, hydra

    def compose(self, groups: Sequence[str]) -> tuple[DictConfig, DictConfig]:
        task = self.loader.load_sweep_config(self.master, list(groups))
        HydraConfig.instance().set_config(task)  # keeps a copy of Hydra's part
        hydra = HydraConfig.instance().cfg
        OmegaConf.set_readonly(hydra.hydra, False)
        with read_write(task), open_dict(task):
            del task["hydra"]
        return task, hydra

    def cell(self, overrides: Sequence[str]) -> Cell:
        """A cell with its name.

        An unknown key or choice is raised, and a setting that no ensemble has; a value that is not allowed is
        noted. Of cells that differ in their seed alone one is composed, with ANY_SEED in its place; of those
        that differ in their init alone one is, and at the first rank a second.
        """
        seeds = [int(found[1]) for word in overrides if (found := SEED.fullmatch(word))]
        if len(seeds) != 1 or seeds[0] >= 2**64:
            return self.cell_of_init(tuple(overrides))
        same = tuple(f"seed={ANY_SEED}" if SEED.fullmatch(word) else word for word in overrides)
        if same not in self.of_any_seed:
            self.of_any_seed[same] = self.cell_of_init(same)
        cell = self.of_any_seed[same]
        if cell.problem:  # its message may name the seed
            return self.composed_cell(overrides)
        plain, identity = (with_seed(each, seeds[0]) for each in (cell.plain, cell.identity))
        identity["digest"] = digest_of(plain)
        return replace(cell, overrides=tuple(overrides), identity=identity, plain=plain)

    def cell_of_init(self, overrides: tuple[str, ...]) -> Cell:
        """A cell, made from that of another init where it was seen that their cells differ in it alone."""
        inits = [word.partition("=")[2] for word in overrides if word.startswith("init=")]
        others = tuple(word for word in overrides if not word.startswith("init="))
        if len(inits) != 1 or any(word.startswith(("init.", "scaffold.")) for word in others):
            return self.composed_cell(overrides)
        if others not in self.of_inits:
            self.of_inits[others] = (inits[0], self.composed_cell(overrides))
            return self.of_inits[others][1]
        family, first = self.family_of(inits[0]), self.of_inits[others][1]
        at_any_rank = tuple(word for word in others if not word.startswith("rank="))
        if not family or not first.plain.get("scaffold"):  # as of a cell with a problem
            return self.composed_cell(overrides)
        made = with_init(first, inits[0], family, overrides)
        if self.alike.get(at_any_rank):
            return made
        cell = self.composed_cell(overrides)
        self.alike.setdefault(at_any_rank, made == cell)
        return cell

    def load_family(self, init: str) -> dict:
        """Family and parameters of a file of conf/init; {} for one that is no plain file of these two."""
        found = self.loader.repository.load_config(f"init/{init}")
        plain = OmegaConf.to_container(found.config) if found and not found.header.get("package") else {}
        return plain if plain.keys() == {"family", "parameters"} and "${" not in str(plain) else {}

    @interpolations_parsed_once()
    def composed_cell(self, overrides: Sequence[str]) -> Cell:
        """A cell by composing its config."""
        cfg, hydra = self.config(overrides)
        hydra.hydra.overrides.task = list(overrides)
        HydraConfig.instance().cfg = hydra
        try:
            check(cfg, sweep=not self.jobs)
            plain = digest_config(cfg)
            identity = naming(cfg, hydra.hydra.runtime.choices, plain)
        except (ValueError, OmegaConfBaseException) as error:
            return Cell(overrides=tuple(overrides), identity={}, problem=in_one_line(error) or str(error))
        common = {}
        if cfg.ensemble:
            check_ensemble(cfg)
            common = common_settings(plain)
        return Cell(
            overrides=tuple(overrides),
            identity=identity,
            epochs=cfg.trainer.epochs,
            common=common,
            plain=plain,
        )


def with_init(cell: Cell, init: str, family: dict, overrides: tuple[str, ...]) -> Cell:
    """The same cell with another init: the family and parameters of its scaffold, and its name."""
    plain = cell.plain | {"scaffold": cell.plain["scaffold"] | family}
    identity = cell.identity | {"digest": digest_of(plain), "init": init}
    return replace(cell, overrides=overrides, identity=identity, plain=plain)


def with_seed(plain: Any, seed: int) -> Any:  # noqa: ANN401  plain data
    """The same plain data with `seed` wherever ANY_SEED stands."""
    if isinstance(plain, dict):
        return {key: with_seed(value, seed) for key, value in plain.items()}
    if isinstance(plain, list):
        return [with_seed(value, seed) for value in plain]
    return seed if type(plain) is int and plain == ANY_SEED else plain


@interpolations_parsed_once()
def cells_of(composer: Composer, jobs: Sequence[Sequence[str]]) -> list[Cell]:
    """The cells of these jobs, each run once: a baseline that stands beside eight ranks is one cell."""
    before = HydraConfig.instance().cfg
    unique: dict[str, Cell] = {}
    try:
        for overrides in jobs:
            cell = composer.cell(overrides)
            unique.setdefault(cell.digest or " ".join(overrides), cell)
    finally:
        HydraConfig.instance().cfg = before
    return list(unique.values())


def cells_of_overrides(overrides: Sequence[str]) -> tuple[list[Cell], Composer, DictConfig]:
    """The cells of `run.py -m OVERRIDES`, for commands that run nothing, with Hydra initialised."""
    from hydra.core.global_hydra import GlobalHydra

    hydra = GlobalHydra.instance().hydra
    master = hydra.compose_config("config", [*overrides, "hydra.mode=MULTIRUN"], RunMode.MULTIRUN)
    check_known(master, OF_SWEEP)
    composer = Composer(hydra.config_loader, master, jobs=True)
    task = list(master.hydra.overrides.task)
    return (
        cells_of(composer, jobs_of(task, hydra.config_loader, master)),
        composer,
        master,
    )


def in_job(overrides: Sequence[str]) -> str:
    """Return the note that is added to a job's error."""
    return f" (in job {' '.join(overrides)})"


def cell_name(cell: Cell) -> str:
    """Return the run's name, or its overrides where the cell could not be composed."""
    return rows.run_name(cell.identity) if cell.identity else " ".join(cell.overrides)


def key_of(cell: Cell) -> str:
    """Return the cell's digest, or its overrides where it could not be composed."""
    return cell.digest or " ".join(cell.overrides)
