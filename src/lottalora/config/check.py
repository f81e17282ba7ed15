"""Check a config before its run: folders, sections, numbers, choices and devices; `modes` checks the mode."""

import importlib.util
import math
import os
from collections.abc import Collection
from collections.abc import Sequence

from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora.config.modes import check_mode
from lottalora.config.modes import check_of_mode
from lottalora.distributed.environment import launched
from lottalora.messages import nearest_first
from lottalora.messages import run_command

WHOLE = {  # key → smallest value
    "rank": 0,
    "seed": 0,
    "backbone_seed": 0,
    "trainer.epochs": 1,
    "trainer.threads": 1,
    "trainer.devices": 1,
    "trainer.accumulate": 1,
    "trainer.checkpoint_every": 0,
    "trainer.patience": 1,
    "data.batch_size": 1,
}
OPTIONAL = ("trainer.patience",)  # of these: may be null
LARGEST = {  # key → largest value
    "seed": 2**64 - 1,
    "backbone_seed": 2**64 - 1,
    "trainer.threads": 1024,  # 9,999,999 of them end in a segmentation fault
}
POSITIVE = ("alpha", "optimizer.lr", "trainer.clip")
SCALES = ("std", "bound", "scale", "rate", "clip", "gain", "rho")  # of a family; at 0 W_seed is 0
FOLDERS = {  # key → what to do where it names no folder
    "paths.data": "Type paths.data=FOLDER, or set LOTTALORA_DATA=FOLDER (unset it for ~/.cache/lottalora).",
    "paths.results": "Type paths.results=FOLDER, or leave it out for results/ below the current folder.",
}
SECTIONS = (
    "model", "data", "task", "trainer", "optimizer", "schedule", "adapter", "recipe", "init.parameters",
    "save",
)  # fmt: skip
CHOICES = {
    "dry_run": (True, False, "json"),
    "force": (True, False),
    "ensemble": (True, False),
    "artifact": (True, False),
    "keep_weights": (True, False),
    "save.precision": ("fp32", "bf16", "fp16", "int8", "int4"),
    "save.zstandard": (True, False),
    "fused": ("auto", "force", "off"),
    "remove_scaffold": (True, False),
    "adapter.A_init": ("kaiming", "normal", "zeros"),
    "adapter.train_beta": (True, False),
    "adapter.rslora": (True, False),
    "adapter.dora": (True, False),
    "adapter.residual": (True, False),
    "adapter.layer_norm": (True, False),
    "adapter.ranks": ("equal", "first", "last", "spectral"),
    "trainer.accelerator": ("auto", "cpu", "gpu"),
    "trainer.strategy": ("ddp", "fsdp"),
    "trainer.average": (None, "ema", "swa"),
    "trainer.decay": ("all", "all_but_beta", "matrices"),
    "trainer.precision": ("32-true", "bf16-mixed", "16-mixed", "auto"),
}
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
    check_of_mode(typed)
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
    check_mode(cfg, words)
    check_save(cfg, words)


def check_no_sweep(typed: Sequence[str]) -> None:
    """Refuse sweeps=NAME without -m, unless the other words name one run of it, as in a Slurm job."""
    name = HydraConfig.get().runtime.choices.get("sweeps")
    if name is None:
        return
    keys = {override.partition("=")[0] for override in typed}
    if not any(grid.keys() <= keys for grid in HydraConfig.get().sweeper.grids or []):
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
    if "recipe" not in cfg:
        raise ValueError(no_recipe(HydraConfig.get().runtime.choices))
    for section in SECTIONS:
        if not OmegaConf.is_dict(OmegaConf.select(cfg, section)):
            raise ValueError(
                f"{section!r} holds no settings. Change what is in it, such as {section}.KEY=VALUE."
            )


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


def check_numbers(cfg: DictConfig) -> None:
    """Raise ValueError for the first number that is of a wrong type or out of range."""
    for key, smallest in WHOLE.items():
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
        if value is None and key in OPTIONAL:
            continue
        if type(value) is not int or value < smallest:
            null = ", or null" if key in OPTIONAL else ""
            raise ValueError(f"{key} must be a whole number, {smallest} or more{null}, got {value!r}.")
        if value > LARGEST.get(key, value):
            most = "2**64 - 1" if LARGEST[key] == 2**64 - 1 else LARGEST[key]
            raise ValueError(f"{key} must be {smallest} … {most}, got {value}.")
    for key in POSITIVE:
        value = OmegaConf.select(cfg, key)
        none = value is None and key != "optimizer.lr"
        if not none and not (is_number(value) and 0 < value < math.inf):
            raise ValueError(f"{key} must be a number above 0, got {value!r}.")
    for key in ("trainer.min_delta", "optimizer.weight_decay"):
        value = OmegaConf.select(cfg, key, default=0)
        if not (is_number(value) and 0 <= value < math.inf):
            raise ValueError(f"{key} must be a number, 0 or more, got {value!r}.")
    for name, value in cfg.init.parameters.items():
        if name in SCALES and not (is_number(value) and 0 < value < math.inf):
            raise ValueError(f"init.parameters.{name} must be a number above 0, got {value!r}.")
    for key in ("dropout", "attention_dropout"):
        dropout = cfg.model.net.get(key, 0)
        if not (is_number(dropout) and 0 <= dropout < 1):
            raise ValueError(f"model.net.{key} must be a number from 0 to below 1, got {dropout!r}.")


def is_number(value: object) -> bool:
    """Return whether `value` is an int or a float; a bool is not."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_choices(cfg: DictConfig) -> None:
    """Raise ValueError for an unknown size, place or option, or a recipe name that no row can hold."""
    if cfg.model.size not in cfg.model.sizes:
        known = ", ".join(nearest_first(str(cfg.model.size), cfg.model.sizes))
        raise ValueError(f"Unknown model.size {cfg.model.size!r}. Known: {known}.")
    if "places" in cfg.model and cfg.model.place not in cfg.model.places:
        known = ", ".join(nearest_first(str(cfg.model.place), cfg.model.places))
        raise ValueError(f"Unknown model.place {cfg.model.place!r}. Known: {known}.")
    for key, known in CHOICES.items():
        value = OmegaConf.select(cfg, key)
        if not any(value is each or (value == each and isinstance(value, str)) for each in known):
            words = ["null" if each is None else str(each).lower() for each in known]
            raise ValueError(f"{key} must be {' or '.join(words)}, got {value!r}.")
    if cfg.trainer.average and cfg.task.get("average"):
        raise ValueError(
            f"task.average={cfg.task.average} averages the weights already. Type trainer.average=null, or "
            "task.average=null."
        )
    if cfg.trainer.decay != "all" and not cfg.optimizer.get("weight_decay"):
        raise ValueError(
            f"trainer.decay={cfg.trainer.decay} keeps parameters out of weight decay, and there is none. "
            "Type trainer.decay=all, or optimizer.weight_decay=NUMBER."
        )
    check_recipe_name(cfg.recipe_name)


def check_patterns(cfg: DictConfig) -> None:
    """Refuse what is no list of patterns: of a word each letter would be one."""
    for key in ("model.keep", "model.freeze"):
        patterns = OmegaConf.select(cfg, key)
        if not OmegaConf.is_list(patterns) or not all(isinstance(each, str) for each in patterns):
            instead = f"[{patterns}]" if isinstance(patterns, str) and patterns else "[]"
            raise ValueError(f"{key} must be a list of patterns, got {patterns!r}. Type {key}={instead}.")


def check_recipe_name(name: object) -> None:
    """Refuse a name that is no text, such as 2048, and the one that is reserved: rows hold it."""
    if name is not None and not isinstance(name, str):
        raise ValueError(
            f"recipe_name must be null or a word, got {name!r}. Type one that is no number and not true or "
            "false, such as recipe_name=2048-steps."
        )
    if name == "paper":
        raise ValueError(
            "recipe_name='paper' is kept for unchanged recipes of the paper. Choose another name."
        )


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
        raise ValueError("save.zstandard=true needs a package. Type: pip install 'lottalora[zstd]'")
