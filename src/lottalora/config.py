"""What of a config is checked before anything runs, what identifies a run, and whether its recipe was changed."""

import hashlib
import json
from collections.abc import Sequence

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora.errors import flatten
from lottalora.errors import nearest_first

WHOLE = {  # key → smallest value
    "rank": 0,
    "seed": 0,
    "backbone_seed": 0,
    "trainer.epochs": 1,
    "trainer.threads": 1,
    "trainer.checkpoint_every": 0,
    "data.batch_size": 1,
}
POSITIVE = ("alpha", "optimizer.lr")
# What a run is, as opposed to how its recipe trains it. Typing one of these leaves the recipe as it was.
IDENTITY = {"model", "model.size", "data", "mode", "init", "rank", "seed", "backbone_seed"}


def check(cfg: DictConfig, typed: Sequence[str]) -> None:
    """Refuse values that cannot be used and choices that contradict each other, in one clear sentence.

    Args:
        cfg: the composed config.
        typed: the overrides of the command line, such as rank=8.
    """
    for override in typed:
        if override[0] in "+~":
            raise ValueError(f"{override!r} adds or removes a key; nothing reads such a key. Type KEY=VALUE.")
    for key, smallest in WHOLE.items():
        value = OmegaConf.select(cfg, key, throw_on_missing=True)
        if type(value) is not int or value < smallest:
            raise ValueError(f"{key} must be a whole number, {smallest} or more, got {value!r}.")
    for key in POSITIVE:
        value = OmegaConf.select(cfg, key)
        if value is not None and (type(value) not in (int, float) or not 0 < value < float("inf")):
            raise ValueError(f"{key} must be a number above 0, got {value!r}.")
    check_choices(cfg)
    check_mode(cfg, {override.partition("=")[0] for override in typed})


def check_choices(cfg: DictConfig) -> None:
    if cfg.model.size not in cfg.model.sizes:
        known = ", ".join(nearest_first(str(cfg.model.size), cfg.model.sizes))
        raise ValueError(f"Unknown model.size {cfg.model.size!r}. Known: {known}.")
    if cfg.dry_run not in (True, False, "json"):
        raise ValueError(f"dry_run must be true, false or json, got {cfg.dry_run!r}.")
    if not isinstance(cfg.force, bool):
        raise ValueError(f"force must be true or false, got {cfg.force!r}.")
    if cfg.recipe_name == "paper":
        raise ValueError("recipe_name='paper' is kept for unchanged recipes of the paper. Choose another name.")


def check_mode(cfg: DictConfig, typed: set[str]) -> None:
    """Refuse a mode beside a choice that it would ignore. A baseline is let through, so that sweeps may hold it."""
    if cfg.mode == "head" and "rank" in typed and cfg.rank > 0:
        raise ValueError(f"mode=head has no adapter, so it contradicts rank={cfg.rank}. Leave out rank, or type mode=scaffold.")
    if cfg.mode == "zero" and "init" in typed:
        raise ValueError("mode=zero sets every W_seed to 0, so it contradicts init=. Leave out init, or type mode=scaffold.")
    if cfg.mode in ("scaffold", "zero") and cfg.rank == 0:
        raise ValueError(f"mode={cfg.mode} with rank=0 would train no adapter. Type mode=head for that, or a rank of 1 or more.")


def identify(cfg: DictConfig) -> dict:
    """The part of a row that is known before the run: which run it is."""
    choices = HydraConfig.get().runtime.choices
    scaffold = cfg.scaffold or DictConfig({"rank": None, "alpha": None, "seed": None})
    changed = changes(cfg)
    return {
        "schema": 1,
        "digest": digest(cfg),
        "model": choices.model,
        "size": cfg.model.size,
        "data": choices.data,
        "sample": bool(cfg.data.get("sample", False)),
        "mode": cfg.mode,
        "init": choices.init if cfg.scaffold and cfg.mode != "zero" else "",
        "rank": scaffold.rank,
        "alpha": scaffold.alpha or scaffold.rank,
        "seed": cfg.seed,
        "backbone_seed": scaffold.seed,
        "recipe": (cfg.recipe_name or "modified") if changed else cfg.recipe.name,
        "changed": changed,
    }


def digest(cfg: DictConfig) -> str:
    """12 hexadecimal digits of SHA-256 over everything that can change the score."""
    text = json.dumps(scored(cfg), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def scored(cfg: DictConfig) -> dict:
    """Everything that can change the score, resolved. A baseline has no scaffold, so rank, α, init and backbone seed are not
    in it, and one baseline serves a whole sweep of them."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    model = plain["model"]
    return {
        "data": {key: value for key, value in plain["data"].items() if key != "root"},
        "model": {key: value for key, value in model.items() if key != "sizes"} | model["sizes"][model["size"]],
        "task": plain["task"],
        "scaffold": plain["scaffold"],
        "optimizer": plain["optimizer"],
        "schedule": plain["schedule"],
        "epochs": plain["trainer"]["epochs"],
        "seed": plain["seed"],
        "recipe_version": plain["recipe"]["version"],
    }


def changes(cfg: DictConfig) -> dict:
    """What differs from the recipe of the pair: key → value. Found by composing again with the identity of the run alone."""
    job = HydraConfig.get()
    identity = [word for word in job.overrides.task if word.partition("=")[0] in IDENTITY]
    untouched = flatten(scored(compose(job.job.config_name, overrides=identity)))
    ours = flatten(scored(cfg))
    return {key: value for key, value in ours.items() if key not in untouched or untouched[key] != value}
