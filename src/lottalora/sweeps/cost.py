"""Estimate what a run costs: from finished rows of its kind where there are any, else by the cost model.

The model: FLOPs of an epoch are 6 M N for a dense net and M (4 N + 2 N_tr) on a scaffold, for M examples,
N weights and N_tr trained ones (the paper, Table 9); beside them each step costs a fixed time, which rules
small networks. A convolution or a transformer uses a weight many times for one example, so recipes state what
an epoch was measured to take (`recipe.epoch_seconds`: full training, default size, one core), and the model
only scales that, with the pixels of an image or the tokens of a text where the data have a setting for them.
"""

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

from omegaconf import DictConfig

from lottalora.results.rows import Row
from lottalora.results.rows import precision_of
from lottalora.sweeps.cells import Cell
from lottalora.sweeps.cells import Composer

STEP = 2e-3  # seconds of a step beside its arithmetic; measured with the MLP, one core
FLOPS = {"cpu": 5e10, "gpu": 2e13}  # FLOP/s of one core and of one GPU, float32; assumed
WATTS = {"cpu": 15.0, "gpu": 700.0}  # of one busy core and of one GPU; assumed
LENGTHS = ("tokens", "image_size", "max_length", "batch_size")  # settings of data that change its work
DRAWN = ("seed", "family", "parameters", "alpha")  # of a scaffold; they change no count
NEAR = ("model", "data", "sample", "precision")  # of runs that differ in their size and training alone
START = 0.5  # seconds beside fit: start, data, test, row
PROCESS = 450.0  # MB of a process that has imported torch and lightning
FILES = 0.02  # MB of a row and its log


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Of one run: seconds (None: unknown), MB of memory, MB on disk, and where the seconds come from."""

    seconds: float | None
    memory_mb: float
    disk_mb: float
    source: str


class Estimate:
    """The cost of cells, given what has been measured so far.

    Args:
        rows: finished runs, of this sweep or of others.
        composer: makes configs of cells.
        kind: cpu or gpu, where the cells will run.
    """

    def __init__(self, rows: Sequence[Row], composer: Composer, kind: str) -> None:
        of_kind = [row for row in rows if kind_of(row) == kind and not row["diverged"]]
        self.rows = [row | {"precision": precision_of(row)} for row in of_kind]
        self.composer = composer
        self.kind = kind
        self.counted: dict[str, dict] = {}  # what is built and composed serves all seeds and families
        self.composed: dict[str, DictConfig] = {}
        self.grouped: dict[tuple[str, ...], dict[tuple, list[Row]]] = {}
        self.scales: dict[tuple, float | None] = {}

    def of(self, cell: Cell) -> Cost:
        counts = self.counts(cell)
        seconds, source = self.seconds(cell, counts)
        dense = cell.identity["mode"] == "baseline"
        memory = self.median("peak_memory_mb", self.alike(cell, "mode"))
        weights = counts["full"] * (16 if dense else 4) + (
            0 if dense else 16 * counts["trainable"]
        )  # bytes, Adam, float32
        return Cost(
            seconds=seconds if seconds is None else seconds + START,
            memory_mb=memory or PROCESS + weights / 1e6,
            disk_mb=4 * counts["trainable"] / 1e6 + FILES,
            source=source,
        )

    def seconds(self, cell: Cell, counts: dict) -> tuple[float | None, str]:
        """From rows of the same kind of run; scaled from rows of the same model and data; or modelled."""
        for keys in (("precision", "mode", "epochs"), ("precision", "epochs")):
            found = self.median("seconds", self.alike(cell, *keys))
            if found is not None:
                return found, "rows of the same model, size, data and epochs"
        cfg = self.config(cell)
        modelled = self.model(counts, cfg.data, cell.identity["mode"], cell.epochs)
        if modelled is None:
            return None, "unknown"
        if (scale := self.scale_of(cell)) is not None:
            return modelled * scale, "cost model, scaled to rows of the same model and data"
        if cfg.recipe.get("epoch_seconds"):
            return modelled * self.correction(cell, cfg), "cost model, scaled to the recipe's measured epoch"
        return modelled, "cost model"

    def scale_of(self, cell: Cell) -> float | None:
        """How many times longer than the model says rows of the same model and data took, or None."""
        near = tuple(self.run_of(cell)[name] for name in NEAR)
        if near not in self.scales:
            rows = [row for row in self.rows if tuple(row[name] for name in NEAR) == near]
            ratios = [row["seconds"] / of_row for row in rows if (of_row := self.model_of(row))]
            self.scales[near] = statistics.median(ratios) if ratios else None
        return self.scales[near]

    def correction(self, cell: Cell, cfg: DictConfig) -> float:
        """How many times longer an epoch takes than the model says, by the one that the recipe states."""
        pair = [word for word in cell.overrides if word.partition("=")[0] in ("model", "data")]
        default = self.composer.cell([*pair, "mode=baseline"])
        counts, data = self.counts(default), self.config(default).data
        return cfg.recipe.epoch_seconds / self.model(counts, data, "baseline", 1, kind="cpu")

    def alike(self, cell: Cell, *keys: str) -> list[Row]:
        """Rows of runs on the same work: the same model and settings of the data, and the same of `keys`."""
        names = ("model", "size", "data", "sample", *keys)
        if names not in self.grouped:
            self.grouped[names] = defaultdict(list)
            for row in self.rows:
                self.grouped[names][work_of(row, row["config"]["data"], names)].append(row)
        wanted = work_of(self.run_of(cell), cell.plain["data"], names)
        return self.grouped[names].get(wanted, [])

    def run_of(self, cell: Cell) -> dict:
        """What names the cell's run, with its epochs and the precision of its steps."""
        precision = cell.plain.get("steps", {}).get("precision", "32-true")
        if precision == "auto":
            precision = "bf16-mixed" if self.kind == "gpu" else "32-true"
        return cell.identity | {"epochs": cell.epochs, "precision": precision.removeprefix("32-true")}

    def median(self, key: str, rows: Sequence[Row]) -> float | None:
        values = [row[key] for row in rows if row[key] is not None]
        return statistics.median(values) if values else None

    def model(
        self, counts: dict, data: Mapping, mode: str, epochs: int, kind: str | None = None
    ) -> float | None:
        """Seconds of fit by the cost model; None where nobody knows how many examples an epoch has."""
        examples = examples_of(data)
        if examples is None:
            return None
        full, trained = counts["full"], counts["trainable"]
        flops = (6 * full if mode == "baseline" else 4 * full + 2 * trained) * uses_of(data)
        steps = examples / data["batch_size"]
        return epochs * (steps * STEP + examples * flops / FLOPS[kind or self.kind])

    def model_of(self, row: Row) -> float | None:
        return self.model(row["counts"], row["config"]["data"], row["mode"], row["epochs"])

    def config(self, cell: Cell) -> DictConfig:
        """The cell's config, or that of another cell with the same net and data."""
        key = net_of(cell)
        if key not in self.composed:
            self.composed[key], _ = self.composer.config(cell.overrides)
        return self.composed[key]

    def counts(self, cell: Cell) -> dict:
        """Parameters of the net: from a row of the same work, mode and rank; else by building it on meta.

        Building imports PyTorch, which takes two seconds. A row may differ in what is adapted beside the
        body, which changes an estimate by little.
        """
        if rows := self.alike(cell, "mode", "rank"):
            return rows[0]["counts"]
        from lottalora.build import account_of  # which imports torch

        key = net_of(cell)
        if key not in self.counted:
            self.counted[key] = account_of(self.config(cell)).counts()
        return self.counted[key]


def net_of(cell: Cell) -> str:
    """What decides the net of a cell and its data, without what changes no count, such as the seed."""
    scaffold = {key: value for key, value in (cell.plain["scaffold"] or {}).items() if key not in DRAWN}
    same = {key: cell.plain.get(key) for key in ("model", "data", "budget", "thaw")}
    return json.dumps([cell.identity["model"], cell.identity["mode"], scaffold, same], sort_keys=True)


def work_of(run: Mapping, data: Mapping, names: Sequence[str]) -> tuple:
    """What runs on the same work share: the named parts of their identity and the lengths of their data."""
    return *(run[name] for name in names), *(data.get(key) for key in LENGTHS)


def examples_of(data: Mapping) -> int | None:
    """Training examples of an epoch, by the settings of the data; None where nobody knows."""
    from hydra.utils import get_class

    known = getattr(get_class(data["_target_"]), "train_examples", None)
    if not data.get("tokens"):  # of a text: at most so many
        return known
    return min(data["tokens"] // block(), known or data["tokens"])


def uses_of(data: Mapping) -> int:
    """How often an example uses a weight, up to a factor that is the model's own."""
    return data.get("image_size", 1) ** 2 * data.get("max_length", block() if "tokens" in data else 1)


def block() -> int:
    """Tokens of an example of a text."""
    from lottalora.data.batches.tokens import BLOCK  # which imports torch

    return BLOCK


def kind_of(row: Row) -> str:
    """Return "cpu" or "gpu": what the row's run was made on."""
    return "cpu" if row["device"].rpartition(" × ")[2].startswith("cpu") else "gpu"
