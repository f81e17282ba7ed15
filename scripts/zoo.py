"""Wrap one model of every family of timm and every architecture of transformers, on the meta device.

    nice -n 10 python scripts/zoo.py timm --table docs/zoo.csv
    nice -n 10 python scripts/zoo.py transformers --table docs/zoo.csv

Each line says whether the model was built and wrapped with compose=["*"] and, where it has one,
keep=[nn.Embedding]; its matrices, how many are composed or kept; and how many trained tensors of two or
more long axes are left outside the account, which has to be 0. The table is written after every model; lines
of models that are not visited stay. `--missing` visits those that have no line yet.
"""

import argparse
import csv
import warnings
from collections.abc import Callable
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn

from lottalora.scaffold import LottaWeight
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.scaffold.layers.layer import LottaLayer

COLUMNS = ("zoo", "name", "built", "wrapped", "matrices", "composed", "kept", "left", "error")
Build = Callable[[], nn.Module]
Rows = dict[tuple[str, str], dict[str, object]]  # by (zoo, name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("zoo", choices=sorted(ZOOS))
    parser.add_argument("--table", type=Path, required=True, help="CSV, one line a model")
    parser.add_argument("--only", nargs="*", help="names of models")
    parser.add_argument("--missing", action="store_true", help="leave out models that have a line")
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = read(arguments.table)
    for name, build in ZOOS[arguments.zoo]():
        key = (arguments.zoo, name)
        if (arguments.only and name not in arguments.only) or (arguments.missing and key in rows):
            continue
        rows[key] = {"zoo": arguments.zoo, "name": name, **visit(build)}
        write(arguments.table, rows)
        if rows[key]["error"]:
            print(name, rows[key]["error"], flush=True)
    ours = [row for (zoo, _), row in rows.items() if zoo == arguments.zoo]
    for column in ("built", "wrapped"):
        print(f"{column}: {sum(row[column] == 'yes' for row in ours)} of {len(ours)}")
    print("with tensors left:", [row["name"] for row in ours if str(row["left"]) not in ("", "0")])


def timm_families() -> Iterator[tuple[str, Build]]:
    """The first model of each family of timm: of each name up to its first "_"."""
    import timm

    families: dict[str, str] = {}
    for name in timm.list_models():
        families.setdefault(name.split("_")[0], name)
    for name in families.values():
        yield name, lambda name=name: timm.create_model(name)


def transformers_architectures() -> Iterator[tuple[str, Build]]:
    """The base model of each architecture, from its default config."""
    from transformers import AutoConfig
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    for name in sorted(CONFIG_MAPPING.keys()):
        yield name, lambda name=name: AutoModel.from_config(AutoConfig.for_model(name))


ZOOS = {"timm": timm_families, "transformers": transformers_architectures}


def visit(build: Build) -> dict[str, object]:
    """The columns of one model."""
    row: dict[str, object] = dict.fromkeys(COLUMNS[2:], "")
    try:
        with torch.device("meta"):
            model = build()
    except Exception as error:  # of the other library: what does not build is listed
        return {**row, "built": "no", "error": short(error)}
    row["built"] = "yes"
    embeddings = any(isinstance(m, nn.Embedding) for m in model.modules())
    try:
        account = wrap(model, Scaffold(), compose=["*"], keep=[nn.Embedding] if embeddings else [])
    except Exception as error:
        return {**row, "wrapped": "no", "error": short(error)}
    places = [entry.place for entry in account.entries]
    composed = sum(isinstance(m, LottaWeight) for m in model.modules())
    counts = {"matrices": len(places), "composed": composed, "kept": places.count("keep")}
    return {**row, "wrapped": "yes", **counts, "left": left_outside(model, account)}


def left_outside(model: nn.Module, account: object) -> int:
    """Trained tensors of two or more long axes that are no adapter's and that the account does not keep."""
    ours = {id(p) for m in model.modules() if isinstance(m, LottaLayer) for p in m.parameters()}
    names = {entry.name for entry in account.entries if entry.place == "keep"}
    trained = ((n, p) for n, p in model.named_parameters() if p.requires_grad and id(p) not in ours)
    return sum(sum(axis > 1 for axis in p.shape) > 1 and name not in names for name, p in trained)


def short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:160]}"


def read(table: Path) -> Rows:
    if not table.exists():
        return {}
    with table.open(encoding="utf-8") as file:
        return {(row["zoo"], row["name"]): dict(row) for row in csv.DictReader(file)}


def write(table: Path, rows: Rows) -> None:
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows[key] for key in sorted(rows))


if __name__ == "__main__":
    main()
