"""The one definition of a row: its keys, their types and units, and the check that a file keeps to them."""

import functools
import itertools
import math
import re
import types
from collections.abc import Mapping
from pathlib import Path
from typing import NotRequired
from typing import TypedDict
from typing import Union
from typing import get_args
from typing import get_origin
from typing import get_type_hints

SCHEMA = 3
POINTS = 200  # of a history, at most
DELETE = "Delete it and repeat its run."


class Row(TypedDict):
    """What one run leaves behind. A number that was not finite, because the run diverged, is null."""

    schema: int  # 3; 1 had no `further`, and 1 and 2 no history, diverged and beta_decay: read as well
    digest: str  # 12 hexadecimal digits over everything that can change the score
    model: str  # name of the config in conf/model
    size: str  # key of model.sizes
    data: str  # name of the config in conf/data
    sample: bool  # true: the small built-in stand-in, whose scores say nothing about the data set
    mode: str  # name of the config in conf/mode
    init: str  # name of the config in conf/init; "" where W_seed is not drawn from one
    rank: int | None  # r; null for a baseline
    alpha: float | None  # α; the adapters are scaled by α / r; null for a baseline
    seed: int  # of data order, dropout, A and the head
    backbone_seed: int | None  # of W_seed; null for a baseline
    recipe: str  # "paper", the name of a shortened recipe, or "modified"
    changed: dict  # what a "modified" run changed in its recipe: key → value
    metric: str  # what score measures, such as "accuracy"
    higher_is_better: bool
    chance: float  # score of guessing, in the metric's unit
    score: float | None  # on the test part, at the best validation epoch; accuracy is a fraction, 0–1
    validation_score: float | None  # of the best epoch; null where there is no validation part
    best_epoch: int | None  # counted from 0
    epochs: int  # epochs trained; where the run diverged, with the one in which it stopped
    diverged: bool  # loss, score or β was not finite, so score is null
    history: dict  # column → one value for each point of training, see HISTORY; {} in older rows
    arms: dict  # scores of the same trained weights used otherwise: {"scaffold_removed": score}
    further: (
        dict  # what else was measured of the same weights, such as {"d4rl_score": 91.2}; null: not finite
    )
    counts: dict  # parameters: trainable, internal_trainable, full, full_plus_adapters
    account: list  # one dict per matrix: name, shape, place, rank, trained, frozen
    beta: dict  # layer name → β at the best epoch; where the run diverged, at its end
    # Π(1 − lr·wd) over the steps up to the best epoch: what weight decay alone makes of β; null where no β is
    # trained, where decay is no product (L2), or the row is older
    beta_decay: float | None
    seconds: float  # of fit, by the wall clock
    peak_memory_mb: float | None  # MB of 10⁶ bytes; null where it was not measured
    device: str  # in words, such as "NVIDIA H200" or "cpu"
    versions: dict  # package → version
    commit: str  # of this repository; "" outside of one
    data_fingerprint: str  # of the data that were used; rows with different ones are never compared
    config: dict  # the resolved config, plain
    finished: str  # UTC, ISO 8601
    commits: NotRequired[list]  # where a run went on with other code: of all of it in turn; "" where unknown
    weights_fingerprint: NotRequired[str]  # SHA-256 of the file of learned weights that the run started from
    artifact: NotRequired[str]  # name of the file in RESULTS/artifacts, of a run with artifact=true
    weights: NotRequired[str]  # name of the file in RESULTS/weights, of a run with keep_weights=true


# What was not a choice when the first rows were written. It is part of a digest only where it is not this.
DIGEST_DEFAULTS = {
    "data": {"hold_out": True, "vocabulary": None},
    "scaffold": {
        "rslora": False,
        "A_init": "kaiming",
        "B_init": "zeros",
        "dropout": 0.0,
        "dora": False,
        "residual": False,
        "layer_norm": False,
        "ranks": "equal",
        "train_beta": True,
    },
    "trainer": {
        "accumulate": 1,
        "clip": None,
        "patience": None,
        "min_delta": 0.0,
        "precision": "32-true",
        "decay": "all",
        "average": None,
    },
    "run": {"resample": None, "budget": None, "thaw": None},
}
# The columns of a history, by rising epoch. Those of BETA are quantiles of β over all layers; a net without a
# scaffold has none.
HISTORY = (
    "epoch",  # trained so far: 0.05, …, 1.0
    "step",  # of the optimizer, so far
    "loss",  # mean over the training examples since the point before
    "validation_score",  # null within an epoch
    "learning_rate",  # of the last step
)
BETA = {"beta_min": 0.0, "beta_q25": 0.25, "beta_median": 0.5, "beta_q75": 0.75, "beta_max": 1.0}
LATER_KEYS = ("history", "diverged", "beta_decay")  # of schema 3
COUNTS = ("trainable", "internal_trainable", "full", "full_plus_adapters")


def row_of(identity: dict, measured: dict, scoring: dict, account: dict, config: dict) -> dict:
    """Put a row together from the run's identity, measurements, scoring, weights and config."""
    counted = {"counts": {key: account[key] for key in COUNTS}, "account": account["entries"]}
    return identity | measured | scoring | counted | {"config": config}


def check(row: object, path: Path) -> None:
    """Refuse what is no row of this schema: the first thing that is wrong, in one sentence."""
    if not isinstance(row, dict):
        raise unusable(path, f"a JSON {type(row).__name__}, not an object")
    schema = row.get("schema")
    if is_a(schema, int) and schema > SCHEMA:
        raise ValueError(
            f"{path} was written by a newer version of lottalora (schema {schema}; this one reads up to "
            f"{SCHEMA}). Update lottalora to read it; the row is as it should be."
        )
    if schema != SCHEMA:
        raise unusable(path, f"of schema {schema!r}; this version reads 1 to {SCHEMA}")
    missing, unknown = sorted(Row.__required_keys__ - row.keys()), sorted(row.keys() - hints_of_row().keys())
    if missing:
        raise unusable(path, f"without {', '.join(missing)}")
    if unknown:
        raise unusable(path, f"with keys that schema {SCHEMA} does not know: {', '.join(map(str, unknown))}")
    if wrong := wrong_type(row):
        raise unusable(path, wrong)
    check_contents(row, path)


def wrong_type(row: Mapping[str, object]) -> str | None:
    """The first key of a row, or of a part of one, whose value has not its type, in words; or None."""
    for key, hint in hints_of_row().items():
        if key in row and not is_a(row[key], hint):
            return f"wrong in {key}: {row[key]!r} is not {json_type(hint)}"
    return None


@functools.cache
def hints_of_row() -> dict[str, object]:
    """Key of a row → its type."""
    return get_type_hints(Row)


def check_contents(row: Row, path: Path) -> None:
    """Check what types cannot state."""
    if not re.fullmatch(r"[0-9a-f]{12}", row["digest"]):
        raise unusable(path, f"wrong in digest: {row['digest']!r} is not 12 hexadecimal digits")
    for key in COUNTS:
        if not is_a(row["counts"].get(key), int):
            raise unusable(path, f"wrong in counts: {key} is {row['counts'].get(key)!r}, not int")
    for key in ("arms", "further"):
        for name, score in row[key].items():
            if not is_a(score, float | None):
                raise unusable(path, f"wrong in {key}: {name} is {score!r}, not float or null")
    if row["diverged"] != (row["score"] is None):
        said = "true" if row["diverged"] else "false"
        raise unusable(path, f"wrong in diverged: it is {said}, and score is {row['score']!r}")
    if row["history"]:
        check_history(row, path)


def check_history(row: Row, path: Path) -> None:
    """Check that the history's columns are equally long and end with the run's last epoch."""
    history = row["history"]
    absent, unknown = sorted(set(HISTORY) - history.keys()), sorted(history.keys() - {*HISTORY, *BETA})
    if absent or unknown:
        raise unusable(path, f"wrong in history: {', '.join(absent + unknown)} missing or unknown")
    for name, column in history.items():
        if not isinstance(column, list) or not all(
            is_kind(kind, float | None) for kind in set(map(type, column))
        ):
            raise unusable(path, f"wrong in history: {name} is no list of numbers")
    lengths = {len(column) for column in history.values()}
    if len(lengths) > 1 or not 1 <= max(lengths) <= POINTS:
        raise unusable(path, f"wrong in history: columns of {sorted(lengths)} points, not of one to {POINTS}")
    epochs = history["epoch"]
    if None in epochs or any(later <= earlier for earlier, later in itertools.pairwise(epochs)):
        raise unusable(path, "wrong in history: its epochs do not rise")
    end = math.ceil(epochs[-1]) if row["diverged"] else epochs[-1]
    if end != row["epochs"]:
        said = f"it ends at epoch {epochs[-1]:g}, and epochs is {row['epochs']}"
        raise unusable(path, f"wrong in history: {said}")


def upgraded(row: object) -> object:
    """A row of schema 1 or 2 as schema 3 says it; anything else as it is."""
    if isinstance(row, dict) and row.get("schema") == 1 and "further" not in row:
        row = row | {"schema": 2, "further": {}}
    if isinstance(row, dict) and row.get("schema") == 2 and row.keys().isdisjoint(LATER_KEYS):
        row = row | {"schema": 3, "history": {}, "diverged": row.get("score") is None, "beta_decay": None}
    return row


def is_a(value: object, hint: object) -> bool:
    """Whether a JSON value has this type: a bool is no number, a whole number is a float too."""
    return is_kind(type(value), hint)


@functools.cache  # thousands of rows have the same few pairs
def is_kind(kind: type, hint: object) -> bool:
    """Whether JSON values of this class have this type."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(is_kind(kind, each) for each in get_args(hint))
    if issubclass(kind, bool):
        return hint is bool
    return issubclass(kind, (int, float) if hint is float else hint)


def json_type(hint: object) -> str:
    """Return a type in JSON's words: `int | None` is "int or null"."""
    names = ["null" if each is type(None) else each.__name__ for each in get_args(hint) or (hint,)]
    return " or ".join(names)


def unusable(path: Path, what: str) -> ValueError:
    """Return the error that says what is wrong with a row file."""
    return ValueError(f"{path} is no usable row: it is {what}. {DELETE}")


def chosen(settings: dict, kind: str) -> dict:
    """The settings without those of DIGEST_DEFAULTS that stand at their first value."""
    first = DIGEST_DEFAULTS[kind]
    return {key: value for key, value in settings.items() if key not in first or value != first[key]}
