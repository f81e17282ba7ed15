"""The digest of a run: 12 hexadecimal digits over all of its config that can change the score.

It follows from the config that a row holds, too, which may lack what was no choice when it was written.
"""

import hashlib
import json
from collections.abc import Collection

from lottalora.results.schema import DIGEST_DEFAULTS
from lottalora.results.schema import chosen

PLACES = ("root", "tokenizers")  # keys that say where files lie
SPEED = ("recompute",)  # keys of a net that change its speed and memory, and no score
DIGEST_TARGETS = {  # target → the name it had when the first rows were written, which their digests hold
    "lottalora.tasks.schedules.PerStep": "lottalora.schedules.PerStep",
    "lottalora.tasks.binary.balanced": "lottalora.tasks.screening.Screening",
    "lottalora.data.batches.augmentation.Augmentation": "lottalora.data.augmentation.Augmentation",
}


def digest_of(told: dict) -> str:
    """The digest of what `told_of` returned; an α that equals the rank is that of null, and 16.0 is 16."""
    scaffold = told["scaffold"]
    if scaffold and (alpha := scaffold["alpha"]) is not None:
        alpha = None if alpha == scaffold["rank"] else int(alpha) if alpha == int(alpha) else alpha
        told = told | {"scaffold": scaffold | {"alpha": alpha}}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def told_of(config: dict) -> dict:
    """Everything of a resolved config, as plain data, that can change the score.

    A baseline has no scaffold, so rank, α, init and backbone seed are not in it: one serves a whole sweep.
    """
    model, scaffold = config["model"], config["scaffold"]
    if scaffold:
        scaffold = chosen(scaffold, "scaffold") | {"keep": model["keep"], "freeze": model["freeze"]}
    return {
        **told_of_training(config),
        "scaffold": scaffold,
        "seed": config["seed"],
        **chosen({key: config.get(key) for key in DIGEST_DEFAULTS["run"]}, "run"),
    }


def told_of_training(config: dict) -> dict:
    """The part of it that a run and the full training beside it have in common: recipe, data and net."""
    model, first = config["model"], DIGEST_DEFAULTS["trainer"]
    trainer = first | config["trainer"]
    steps = chosen({key: trainer[key] for key in first}, "trainer")
    told = {
        "data": chosen(without_root(config["data"]), "data"),
        "model": without(without_root(model["net"] | model["sizes"][model["size"]]), SPEED),
        "task": config["task"],
        "optimizer": config["optimizer"],
        "schedule": config["schedule"],
        "epochs": trainer["epochs"],
        "recipe_version": config["recipe"]["version"],
        **({"steps": steps} if steps else {}),
    }
    return with_first_names(told)


def with_first_names(section: object) -> object:
    """Replace each `_target_` of plain settings by the name that digests hold."""
    if not isinstance(section, dict):
        return section
    return {
        key: DIGEST_TARGETS.get(value, value) if key == "_target_" else with_first_names(value)
        for key, value in section.items()
    }


def without_root(section: dict) -> dict:
    """A section without the keys that say where its files lie."""
    return without(section, PLACES)


def without(section: dict, keys: Collection[str]) -> dict:
    """Return the section less these keys."""
    return {key: value for key, value in section.items() if key not in keys}
