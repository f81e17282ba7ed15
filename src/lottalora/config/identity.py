"""Identify a run: the digest of all that can change its score, its name, the changes to its recipe."""

from hydra import compose
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from omegaconf import OmegaConf

from lottalora.messages import flatten
from lottalora.results.digest import digest_of
from lottalora.results.digest import told_of
from lottalora.results.digest import without_root
from lottalora.results.schema import DIGEST_DEFAULTS
from lottalora.results.schema import SCHEMA

# What a run is, as opposed to how its recipe trains it. Typing one of these leaves the recipe as it was.
IDENTITY = {
    "model", "model.size", "model.depth", "model.shortcut", "model.place",
    "data", "data.split", "data.variant", "data.name", "data.hold_out", "data.out_of_class",
    "data.vocabulary",
    "mode", "init", "rank", "seed", "backbone_seed",
    "adapter.rslora", "adapter.A_init", "adapter.B_init", "adapter.dora", "adapter.residual",
    "adapter.layer_norm", "resample.scaffolds", "resample.fresh",
}  # fmt: skip


def identify(cfg: DictConfig) -> dict:
    """Return the part of a row that is known before the run: which run it is."""
    changed = changes(cfg)
    return naming(cfg, HydraConfig.get().runtime.choices) | {
        "recipe": (cfg.recipe_name or "modified") if changed else cfg.recipe.name,
        "changed": changed,
    }


def naming(cfg: DictConfig, choices: DictConfig, plain: dict | None = None) -> dict:
    """Return the run's digest and the names of what it is made of.

    Args:
        cfg: the composed config.
        choices: the chosen config of each group, Hydra's `runtime.choices`.
        plain: `digest_config(cfg)`, where it is known already.
    """
    budget = cfg.get("budget") or {}
    scaffold = cfg.scaffold or DictConfig({"rank": budget.get("rank"), "alpha": None, "seed": None})
    return {
        "schema": SCHEMA,
        "digest": digest_of(plain or digest_config(cfg)),
        "model": choices.model,
        "size": cfg.model.size,
        "data": cfg.data.get("name") or choices.data,
        "sample": bool(cfg.data.get("sample", False)),
        "mode": cfg.mode,
        "init": choices.init if cfg.scaffold and scaffold.family == cfg.init.family else "",
        "rank": scaffold.rank,
        "alpha": scaffold.alpha or (cfg.scaffold and scaffold.rank) or None,
        "seed": cfg.seed,
        "backbone_seed": scaffold.seed,
    }


def digest(cfg: DictConfig) -> str:
    """12 hexadecimal digits of SHA-256 over everything that can change the score."""
    return digest_of(digest_config(cfg))


def digest_config(cfg: DictConfig) -> dict:
    """Everything that can change the score, resolved."""
    return told_of(OmegaConf.to_container(cfg, resolve=True))


def portable(cfg: DictConfig) -> dict:
    """The resolved config as plain data, without where data and results lie: rows travel between machines."""
    plain = OmegaConf.to_container(cfg, resolve=True)
    del plain["paths"]
    plain["data"] = without_root(plain["data"])
    model = plain["model"]
    model["net"] = without_root(model["net"])
    model["sizes"] = {name: without_root(size) for name, size in model["sizes"].items()}
    return plain


def changes(cfg: DictConfig) -> dict:
    """Return what differs from the recipe, key → value, by composing again with the run's identity alone.

    A word in the place of a number is refused here: an optimizer that got it would fail in its own way.
    """
    job = HydraConfig.get()
    identity = [word for word in job.overrides.task if word.partition("=")[0] in IDENTITY]
    untouched = flatten(digest_config(compose(job.job.config_name, overrides=identity)))
    ours = flatten(digest_config(cfg))
    first = flatten({"scaffold": DIGEST_DEFAULTS["scaffold"], "steps": DIGEST_DEFAULTS["trainer"]})
    set_back = first.keys() & untouched.keys() - ours.keys()  # to the default, which the recipe changed
    ours |= {key: first[key] for key in set_back}
    for key, value in ours.items():
        if isinstance(value, str) and isinstance(before := untouched.get(key), bool | int | float):
            wanted = "true or false" if isinstance(before, bool) else "a number"
            raise ValueError(f"{key} must be {wanted}, got {value!r}.")
    if untouched.get("scaffold.alpha", 0) is None and ours.get("scaffold.alpha") == ours.get("scaffold.rank"):
        ours["scaffold.alpha"] = None  # which means α = r
    return {key: value for key, value in ours.items() if key not in untouched or untouched[key] != value}
