"""The command that makes a row again, from the row alone."""

import re
import shlex
from collections.abc import Iterator
from typing import Any

from lottalora.results.schema import DIGEST_DEFAULTS
from lottalora.results.schema import Row

# Of a run's identity, see lottalora.config.
ADAPTER = ("rslora", "A_init", "B_init", "dora", "residual", "layer_norm")
OF_SCAFFOLD = {  # key of the wrapped layers → where it is typed; any other is an option of the adapter
    "alpha": "alpha",
    "family": "init.family",
    "parameters": "init.parameters",
    "keep": "model.keep",
    "freeze": "model.freeze",
    "bias": "model.bias",
    "seed": "backbone_seed",
    "rank": "rank",
}
OF_RUN = {"epochs": "trainer.epochs", "steps": "trainer", "recipe_version": "recipe.version"}


def command_of(row: Row) -> str:
    """The command line that makes this row, ready for a shell."""
    return shlex.join(["python", "run.py", *overrides_of(row)])


def overrides_of(row: Row) -> list[str]:
    """The overrides of that command: what the run is, then what it changed in its recipe.

    A text of one's own lies where the row does not say: its `data.root` is FOLDER, and to be replaced.
    """
    return [f"{key}={literal(value)}" for key, value in settings_of(row)]


def settings_of(row: Row) -> Iterator[tuple[str, Any]]:
    """Yield the (key, value) pairs that tell the row's run from the default run."""
    config = row["config"]
    data = config["data"]
    own_text = "name" in data
    yield "model", row["model"]
    yield "data", "text" if own_text else row["data"]
    if own_text:
        yield from (("data.root", "FOLDER"), ("data.name", row["data"]))
    yield from ((f"data.{key}", data[key]) for key in ("split", "variant") if key in data)
    if data.get("vocabulary"):
        yield "data.vocabulary", data["vocabulary"]
    if data.get("out_of_class"):
        yield "data.out_of_class", True
    if data.get("hold_out") is False:
        yield "data.hold_out", False
    yield "model.size", row["size"]
    if "place" in config["model"] and config["model"]["place"] != next(iter(config["model"]["places"])):
        yield "model.place", config["model"]["place"]
    yield "mode", row["mode"]
    if row["init"]:
        yield "init", row["init"]
    if row["rank"]:
        yield "rank", row["rank"]
    yield "seed", row["seed"]
    if row["backbone_seed"] not in (None, row["seed"]):
        yield "backbone_seed", row["backbone_seed"]
    if row["mode"] != "baseline":
        first, adapter = DIGEST_DEFAULTS["scaffold"], config.get("adapter", {})
        options = [key for key in ADAPTER if adapter.get(key, first[key]) != first[key]]
        yield from ((f"adapter.{key}", adapter[key]) for key in options)
    if isinstance(resample := config.get("resample"), dict):
        yield from ((f"resample.{key}", resample[key]) for key in ("scaffolds", "fresh"))
    yield from at_first_value(row)
    yield from ((typed(key, config["model"]), value) for key, value in row["changed"].items())
    if config.get("recipe_name"):
        yield "recipe_name", config["recipe_name"]


def at_first_value(row: Row) -> Iterator[tuple[str, Any]]:
    """Options of a changed run that stand where `changed` did not look in the first rows: at their default,
    which the recipe may have changed."""
    if not row["changed"]:
        return
    trainer, scaffold, config = DIGEST_DEFAULTS["trainer"], DIGEST_DEFAULTS["scaffold"], row["config"]
    for key, value in trainer.items():
        if (
            key in config["trainer"]
            and config["trainer"][key] == value
            and f"steps.{key}" not in row["changed"]
        ):
            yield f"trainer.{key}", value
    dropout = (config["scaffold"] or {}).get("dropout")
    if dropout == scaffold["dropout"] and "scaffold.dropout" not in row["changed"]:
        yield "adapter.dropout", dropout


def typed(key: str, model: dict) -> str:
    """Where a key of `changed`, which are those of a digest, is typed on the command line."""
    section, _, rest = key.partition(".")
    if section == "model":
        size = model["size"]
        return f"model.sizes.{size}.{rest}" if rest in model["sizes"][size] else f"model.net.{rest}"
    if section in ("scaffold", "budget"):
        option, dot, below = rest.partition(".")
        return OF_SCAFFOLD.get(option, f"adapter.{option}") + dot + below
    return key.replace(section, OF_RUN.get(section, section), 1)


def literal(value: Any) -> str:  # noqa: ANN401  any JSON value
    """A value as Hydra's command line reads it."""
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, list):
        return f"[{','.join(map(literal, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{literal(each)}" for key, each in value.items()) + "}"
    if not isinstance(value, str) or is_plain(value):
        return str(value)
    return f"'{quotes_escaped(value)}'"


def quotes_escaped(text: str) -> str:
    """The text with its single quotes escaped; of backslashes those that stand before one, or last."""
    return re.sub(r"(\\*)('|$)", lambda found: found[1] * 2 + found[2].replace("'", "\\'"), text)


def is_plain(text: str) -> bool:
    """Whether Hydra reads these letters, without quotes, as this string and not as a number."""
    try:
        float(text)
    except ValueError:
        return bool(re.fullmatch(r"[\w./-]+", text, re.ASCII)) and text.lower() not in (
            "true",
            "false",
            "null",
        )
    return False
