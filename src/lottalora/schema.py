"""The one definition of a row: its keys, their types and units, and the check that a file keeps to them."""

import re
import types
from pathlib import Path
from typing import TypedDict
from typing import Union
from typing import get_args
from typing import get_origin
from typing import get_type_hints

SCHEMA = 2


class Row(TypedDict):
    """What one run leaves behind. A number that was not finite, because the run diverged, is null."""

    schema: int  # 2; rows of schema 1, which had no `further`, are read as well
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
    epochs: int  # epochs trained
    arms: dict  # scores of the same trained weights used otherwise: {"scaffold_removed": score}
    further: (
        dict  # what else was measured of the same weights, such as {"d4rl_score": 91.2}; null: not finite
    )
    counts: dict  # parameters: trainable, internal_trainable, full, full_plus_adapters
    account: list  # one dict per matrix: name, shape, place, rank, trained, frozen
    beta: dict  # layer name → β at the best epoch
    # Π(1 − lr·wd) over the steps up to the best epoch: what weight decay alone makes of β; null where β is not
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


# What was not a choice when the first rows were written. It is part of a digest only where it is not this.
LATER = {
    "scaffold": {
        "rslora": False,
        "B_init": "zeros",
        "dropout": 0.0,
        "dora": False,
        "residual": False,
        "layer_norm": False,
        "train_beta": True,
    },
    "trainer": {
        "accumulate": 1,
        "clip": None,
        "patience": None,
        "min_delta": 0.0,
        "precision": "32-true",
        "decay": "all",
    },
    "run": {"resample": None},
}
COUNTS = ("trainable", "internal_trainable", "full", "full_plus_adapters")


def check(row: object, path: Path) -> None:
    """Refuse what is no row of this schema: the first thing that is wrong, in one sentence."""
    if not isinstance(row, dict):
        raise unusable(path, f"a JSON {type(row).__name__}, not an object")
    if row.get("schema") != SCHEMA:
        raise unusable(path, f"of schema {row.get('schema')!r}; this version reads {SCHEMA}")
    hints = get_type_hints(Row)
    missing, unknown = sorted(hints.keys() - row.keys()), sorted(row.keys() - hints.keys())
    if missing:
        raise unusable(path, f"without {', '.join(missing)}")
    if unknown:
        raise unusable(path, f"with keys that schema {SCHEMA} does not know: {', '.join(map(str, unknown))}")
    for key, hint in hints.items():
        if not is_a(row[key], hint):
            raise unusable(path, f"wrong in {key}: {row[key]!r} is not {name_of(hint)}")
    check_contents(row, path)


def check_contents(row: Row, path: Path) -> None:
    """The rules that a type cannot state."""
    if not re.fullmatch(r"[0-9a-f]{12}", row["digest"]):
        raise unusable(path, f"wrong in digest: {row['digest']!r} is not 12 hexadecimal digits")
    for key in COUNTS:
        if not is_a(row["counts"].get(key), int):
            raise unusable(path, f"wrong in counts: {key} is {row['counts'].get(key)!r}, not int")
    for key in ("arms", "further"):
        for name, score in row[key].items():
            if not is_a(score, float | None):
                raise unusable(path, f"wrong in {key}: {name} is {score!r}, not float or null")


def upgraded(row: object) -> object:
    """A row of schema 1 as schema 2 says it, and one that is older than a key with its null; else as it is."""
    if isinstance(row, dict) and row.get("schema") == 1 and "further" not in row:
        row = row | {"schema": 2, "further": {}}
    if isinstance(row, dict) and row.get("schema") == SCHEMA:
        return {"beta_decay": None} | row
    return row


def is_a(value: object, hint: object) -> bool:
    """Whether a JSON value has this type: a bool is no number, a whole number is a float too."""
    if get_origin(hint) in (Union, types.UnionType):
        return any(is_a(value, each) for each in get_args(hint))
    if isinstance(value, bool):
        return hint is bool
    return isinstance(value, (int, float) if hint is float else hint)


def name_of(hint: object) -> str:
    """`int | None` as a person reads it in JSON: int or null."""
    names = ["null" if each is type(None) else each.__name__ for each in get_args(hint) or (hint,)]
    return " or ".join(names)


def unusable(path: Path, what: str) -> ValueError:
    return ValueError(f"{path} is no usable row: it is {what}. Delete it and repeat its run.")


def chosen(settings: dict, kind: str) -> dict:
    """The settings without those of LATER that stand at their first value."""
    first = LATER[kind]
    return {key: value for key, value in settings.items() if key not in first or value != first[key]}
