"""Refuse a config whose numbers, choices or patterns no run can use."""

import math
from collections.abc import Iterable

from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora.messages import nearest_first

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
CHOICES = {
    "dry_run": (True, False, "json"),
    "force": (True, False),
    "ensemble": (True, False),
    "fail_fast": (True, False),
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
    period = cfg.schedule.get("T_max", 1)
    if period is None or is_number(period) and period <= 0:
        raise ValueError(f"schedule.T_max must be a number above 0, got {period!r}.")
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
    check_known(cfg, CHOICES)
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


def check_known(cfg: DictConfig, keys: Iterable[str]) -> None:
    """Raise ValueError for the first of these keys of CHOICES whose value is none of them."""
    for key in keys:
        value, known = OmegaConf.select(cfg, key), CHOICES[key]
        if not any(value is each or (value == each and isinstance(value, str)) for each in known):
            words = ["null" if each is None else str(each).lower() for each in known]
            raise ValueError(f"{key} must be {' or '.join(words)}, got {value!r}.")


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
