"""Check a config before its run: folders, sections, numbers, choices and devices; `modes` checks the mode."""

import importlib.util
import logging
import os
from collections.abc import Collection
from collections.abc import Mapping
from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora import CONF
from lottalora.config.check_values import check_choices
from lottalora.config.check_values import check_numbers
from lottalora.config.check_values import check_patterns
from lottalora.config.grids import grids_of
from lottalora.config.modes import check_mode
from lottalora.config.modes import check_of_mode
from lottalora.distributed.environment import launched
from lottalora.messages import nearest_first
from lottalora.messages import run_command

FOLDERS = {  # key → what to do where it names no folder
    "paths.data": "Type paths.data=FOLDER, or set LOTTALORA_DATA=FOLDER (unset it for ~/.cache/lottalora).",
    "paths.results": "Type paths.results=FOLDER, or leave it out for results/ below the current folder.",
}
SECTIONS = (
    "model", "data", "task", "trainer", "optimizer", "schedule", "adapter", "recipe", "init.parameters",
    "save",
)  # fmt: skip
OF_FILES = {"task": "data", "optimizer": "recipe", "schedule": "recipe"}  # section → group that sets it
OF_MODEL = ("size", "sizes", "net", "keep", "freeze", "bias")
EXAMPLE = "docs/extending.md has a whole file of each kind."
log = logging.getLogger(__name__)
# For recipes in which one number follows another, such as α = 2r.
OmegaConf.register_new_resolver("times", lambda factor, number: factor * number, replace=True)


def check(cfg: DictConfig, *, sweep: bool | None = None) -> None:
    """Refuse values that cannot be used and choices that contradict each other, in one clear sentence.

    Args:
        cfg: the composed config.
        sweep: whether it is run by `run.py -m`, which gives each run one device; None: as Hydra says.
    """
    typed = HydraConfig.get().overrides.task  # such as rank=8
    for override in typed:
        if override[0] in "+~":
            raise ValueError(f"{override!r} adds or removes a key; nothing reads such a key. Type KEY=VALUE.")
    check_one_choice(typed)
    check_of_mode(typed)
    check_of_recipe(typed)
    check_sections(cfg)
    check_folders(cfg)
    check_numbers(cfg)
    check_choices(cfg)
    check_patterns(cfg)
    if sweep is None:
        sweep = HydraConfig.get().mode == RunMode.MULTIRUN
        if not sweep:
            check_no_sweep(typed)
            check_no_ensemble(cfg, typed)
            check_launcher(HydraConfig.get().launcher)
    check_devices(cfg.trainer.devices, sweep=sweep)
    words = {override.partition("=")[0]: override for override in typed}
    check_size(cfg, words)
    check_mode(cfg, words)
    check_save(cfg, words)


def check_one_choice(words: Sequence[str]) -> None:
    """Refuse a list of files for a config group: Hydra would merge them, and the last would win.

    Args:
        words: of the command line, such as mode=[baseline,scaffold].
    """
    for word in words:
        group, _, value = word.partition("=")
        if group and value.startswith("[") and (CONF / group).is_dir():
            names = value.strip("[]").replace(" ", "")
            raise ValueError(
                f"{word!r} names several files of conf/{group}, and a run takes one. Type {group}=NAME, or "
                f"`{run_command()} -m {group}={names}` for a run of each."
            )


def check_no_sweep(typed: Sequence[str]) -> None:
    """Refuse sweeps=NAME without -m, unless the other words name one run of it, as in a Slurm job."""
    name = HydraConfig.get().runtime.choices.get("sweeps")
    if name is None:
        return
    keys = {override.partition("=")[0] for override in typed}
    if not any(grid.keys() <= keys for grid in grids_of(HydraConfig.get().sweeper.grids)):
        raise ValueError(
            f"sweeps={name} names many runs, and without -m there is one. "
            f"Type `{run_command()} -m {' '.join(typed)}`, or leave out sweeps= and name the run."
        )


def check_no_ensemble(cfg: DictConfig, typed: Sequence[str]) -> None:
    """Refuse ensemble=true without -m, where there is one run."""
    if cfg.ensemble:
        raise ValueError(
            "ensemble=true trains several cells of a sweep at once, and without -m there is one run. "
            f"Type `{run_command()} -m {' '.join(typed)}`, or ensemble=false."
        )


def check_launcher(launcher: object) -> None:
    """Refuse hydra.launcher=NAME, which would replace the settings of the launcher and choose none."""
    if not OmegaConf.is_dict(launcher):
        raise ValueError(
            f"hydra.launcher holds the settings of a launcher, got {launcher!r}. "
            "Type hydra/launcher=NAME, or hydra.launcher.KEY=VALUE."
        )


def check_folders(cfg: DictConfig) -> None:
    """Raise ValueError where a folder's key is not a non-empty string."""
    for key, remedy in FOLDERS.items():
        folder = OmegaConf.select(cfg, key)
        if not isinstance(folder, str) or not folder.strip():
            raise ValueError(f"{key} must name a folder, got {folder!r}. {remedy}")


def check_sections(cfg: DictConfig) -> None:
    """Raise ValueError where model and data have no recipe, or a section is no mapping."""
    choices = HydraConfig.get().runtime.choices
    if "recipe" not in cfg:
        raise ValueError(no_recipe(choices))
    check_files(cfg, choices)
    for section in SECTIONS:
        if section in OF_FILES and section not in cfg:
            raise ValueError(f"{file_of(OF_FILES[section], choices)} sets no {section!r}. {EXAMPLE}")
        if not OmegaConf.is_dict(OmegaConf.select(cfg, section)):
            raise ValueError(
                f"{section!r} holds no settings. Change what is in it, such as {section}.KEY=VALUE."
            )


def check_files(cfg: DictConfig, choices: DictConfig) -> None:
    """Refuse a file of conf/model or conf/recipe that lacks its first line, and a model that lacks a key."""
    for group in ("recipe", "model"):
        if OmegaConf.is_dict(cfg[group]) and group in cfg[group]:
            raise ValueError(
                f"The settings of {file_of(group, choices)} land below {group!r}, where nothing reads "
                "them. Its very first line, and that of each recipe in its defaults, has to be "
                "`# @package _global_`."
            )
    if OmegaConf.is_dict(cfg.model):
        for key in OF_MODEL:
            if key not in cfg.model:
                raise ValueError(f"{file_of('model', choices)} sets no model.{key}. {EXAMPLE}")


def file_of(group: str, choices: DictConfig) -> str:
    """Return the path of the file that was chosen for a config group."""
    name = choices.get(group) or f"{choices.model}_{choices.data}"
    return f"conf/{group}/{name}.yaml"


def no_recipe(choices: DictConfig) -> str:
    """Which data go with the model, and which models with the data; of a typed recipe, the nearest names."""
    options = GlobalHydra.instance().config_loader().get_group_options
    recipes = options("recipe")
    pair = f"{choices.model}_{choices.data}"
    asked = choices.get("recipe") or pair
    if asked != pair:
        known = ", ".join(nearest_first(asked, recipes))
        return f"Unknown recipe {asked!r}: conf/recipe has none of that name. Known: {known}."
    data = [name for name in options("data") if f"{choices.model}_{name}" in recipes]
    models = [name for name in options("model") if f"{name}_{choices.data}" in recipes]
    return (
        f"There is no recipe for model={choices.model} with data={choices.data}. "
        f"Data for model={choices.model}: {', '.join(data) or 'none'}. "
        f"Models for data={choices.data}: {', '.join(models) or 'none'}. "
        f"To add the pair, write conf/recipe/{pair}.yaml."
    )


def check_of_recipe(typed: Sequence[str]) -> None:
    """Refuse recipe.name: rows of a changed recipe would bear the name of another."""
    for override in typed:
        if override.startswith("recipe.name="):
            raise ValueError(f"{override!r} is for the recipe's file to set. Type recipe_name=NAME.")


def check_size(cfg: DictConfig, typed: Mapping[str, str]) -> None:
    """Refuse a part of a size's name beside a size that is another; warn of settings of a size not chosen.

    A sweep over sizes may have such settings, and so may its jobs.
    """
    chosen = cfg.model.sizes[cfg.model.size]
    for part in ("depth", "shortcut"):
        override, value = typed.get(f"model.{part}"), chosen.get(part)
        if override and value != cfg.model[part]:
            raise ValueError(
                f"{override} contradicts model.size={cfg.model.size}, whose {part} is {value}. "
                "Leave one of the two out."
            )
    for key, override in typed.items():
        name = key.removeprefix("model.sizes.")
        if name != key and name != cfg.model.size and not name.startswith(f"{cfg.model.size}."):
            log.warning("%s has no effect with model.size=%s", override, cfg.model.size)


def check_devices(devices: int, *, sweep: bool) -> None:
    """Raise ValueError for several devices in a sweep: such a run is a command of its own."""
    if sweep and devices > 1:
        raise ValueError(
            f"trainer.devices={devices} with -m: a sweep runs each cell in one process on one device. A run "
            f"on several is a job of its own: type `{run_command()} WORDS trainer.devices={devices}` for "
            f"one, without -m, or `python -m lottalora submit WORDS trainer.devices={devices}` for all."
        )
    processes = launched()
    if processes and processes != devices and (devices > 1 or "RANK" in os.environ):
        raise ValueError(
            f"{processes} processes were started for this run, but trainer.devices={devices}. "
            f"Type trainer.devices={processes}; or leave torchrun or srun out, and the processes are started "
            "for you."
        )


def check_save(cfg: DictConfig, typed: Collection[str]) -> None:
    """Refuse settings of an artifact where there is none, or whose package is missing."""
    if not cfg.artifact and any(key.startswith("save.") for key in typed):
        raise ValueError(
            "save.precision, save.zstandard and save.max_bytes are of the artifact. Type artifact=true too."
        )
    largest = cfg.save.max_bytes
    if largest is not None and (type(largest) is not int or largest < 1):
        raise ValueError(f"save.max_bytes must be null or a whole number of bytes, got {largest!r}.")
    if cfg.save.zstandard and importlib.util.find_spec("zstandard") is None:
        raise ValueError(
            "save.zstandard=true needs the package zstandard. Type: pip install 'lottalora[zstd]'"
        )
