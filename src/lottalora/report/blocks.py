"""Rows side by side: one block per benchmark, size and recipe, one line per condition, init and rank."""

import math
from collections.abc import Collection
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import replace

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.benchmarks import pair_title
from lottalora.analysis.equivalence import Equivalence
from lottalora.analysis.equivalence import published_equivalence
from lottalora.analysis.metrics import METRICS
from lottalora.analysis.metrics import Metric
from lottalora.analysis.metrics import metric_of
from lottalora.analysis.paper import PaperNumber
from lottalora.analysis.paper import paper_number
from lottalora.analysis.recovery import recovery
from lottalora.analysis.recovery import share_above_chance
from lottalora.analysis.statistics import Interval
from lottalora.analysis.statistics import finite
from lottalora.analysis.statistics import interval
from lottalora.report.grouping import PRECISION
from lottalora.report.grouping import adapter_of
from lottalora.report.grouping import block_key
from lottalora.report.grouping import changed_of_training
from lottalora.report.grouping import find_baseline
from lottalora.report.grouping import grouped
from lottalora.report.grouping import held_out
from lottalora.report.grouping import line_key
from lottalora.report.grouping import newest
from lottalora.report.grouping import options_of
from lottalora.report.grouping import place_of
from lottalora.report.grouping import precision_of
from lottalora.report.grouping import recipe_of
from lottalora.report.grouping import stand_in
from lottalora.report.words import adapter_words
from lottalora.report.words import changes_words
from lottalora.report.words import options_words
from lottalora.report.words import scaffold_words
from lottalora.report.words import setting_words
from lottalora.results.rows import Row

# mode → condition as in paper.csv, where the two differ. no_scaffold is a test-time arm of scaffold.
CONDITIONS = {
    "baseline": "full",
    "zero": "zero_scaffold",
    "resample_batch": "resample_batch_k2",
    "resample_microbatch": "resample_microbatch_k4",
}
ORDER = (
    "full", "scaffold", "no_scaffold", "resample_epoch", "resample_batch_k2", "resample_microbatch_k4",
    "zero_scaffold", "head", "small", "thawed", "full_from_scaffold", "lora", "probe",
)  # fmt: skip
LABELS = {
    "full": "full training",
    "scaffold": "scaffold",
    "no_scaffold": "scaffold removed",
    "resample_epoch": "scaffold redrawn each epoch",
    "resample_batch_k2": "several scaffolds each step",
    "resample_microbatch_k4": "a scaffold for each part of a batch",
    "zero_scaffold": "zero scaffold",
    "head": "head only",
    "thawed": "scaffold trained too",
    "full_from_scaffold": "full training from W_seed",
    "small": "narrow net of equal budget",
    "gated": "a scaffold for each group of digits",
    "lora": "LoRA on learned weights",
    "probe": "head on learned weights",
}


@dataclass(frozen=True)
class Line:
    """One condition at one rank, over seeds."""

    condition: str  # one of ORDER, or a mode that has no entry in CONDITIONS
    adapter: str  # the options that are on, such as "+dora+residual"; mostly ""
    init: str  # "" for full training
    rank: int | None
    alpha: float | None
    options: str  # what tells this line from another of the same name, such as "std=0.2"; mostly ""
    scores: Interval  # in the row's unit
    recovery: float  # NaN without a baseline
    share_above_chance: float  # NaN without a baseline
    trainable: int
    full: int
    full_plus_adapters: int
    paper: PaperNumber | None
    beside_paper: (
        Equivalence | None
    )  # the test of whether the means match; None where there is nothing to compare
    verdict: str  # of that test: agrees, above, below, undecided or untested; mostly ""
    runs: list[Row]  # behind the scores, one for each pair of seeds
    older: list[Row]  # of the same seeds, left out
    lost: int  # counted runs whose commit is in no history here
    own_rows: bool  # False for a test-time arm and a further score: their rows stand in another line

    @property
    def superseded(self) -> int:
        return len(self.older)

    @property
    def label(self) -> str:
        """The condition with the options of its adapters, in words."""
        return " + ".join([LABELS.get(self.condition, self.condition), *adapter_words(self.adapter)])

    @property
    def options_text(self) -> str:
        """The options in words; "" for none."""
        return options_words(self.options)

    @property
    def scaffold_text(self) -> str:
        """The scaffold and its options in words; – for none."""
        return ", ".join(each for each in (scaffold_words(self.init), self.options_text) if each) or "–"

    @property
    def percent_of_full(self) -> float:
        return 100 * self.trainable / self.full

    @property
    def percent_of_full_plus_adapters(self) -> float:
        return 100 * self.trainable / self.full_plus_adapters

    @property
    def by_seed(self) -> dict[int, float | None]:
        """Score by training seed, a mean over its scaffold seeds; None where every one of them diverged."""
        scores = {}
        for run in self.runs:
            if self.condition != "no_scaffold" or run["diverged"]:
                scores.setdefault(run["seed"], []).append(run["score"])
            elif "scaffold_removed" in run["arms"]:
                scores.setdefault(run["seed"], []).append(run["arms"]["scaffold_removed"])
        return {seed: interval(each).mean if len(finite(each)) else None for seed, each in scores.items()}

    @property
    def difference(self) -> float:
        """Ours minus the paper's; NaN where the paper has none for this size alone."""
        return difference(self.scores.mean, self.paper)


@dataclass(frozen=True)
class Block:
    """What one table or one figure shows."""

    model: str
    size: str
    data: str
    stand_in: str  # what took the place of the official data; mostly ""
    held_out: str  # what becomes of the training examples, where it is not as in the paper; mostly ""
    recipe: str
    changed: dict  # of the training; what was changed of the scaffold stands with its line
    precision: str  # of the steps; "" for float32
    metric: Metric
    higher_is_better: bool
    chance: float
    full: int  # parameters of the whole model
    fingerprint: str  # of the data
    lines: list[Line]
    own: bool  # False for a further score of rows that stand in another block

    @property
    def pair_title(self) -> str:
        """Data and model by their proper names, such as `MNIST, MLP`."""
        title = pair_title(self.model, self.data)
        return f"{title} ({self.stand_in})" if self.stand_in else title

    @property
    def title(self) -> str:
        metric = "" if self.own else f", {self.metric.of_part}"
        return f"{self.pair_title}, {self.size}{metric}, {self.full:,} parameters, {self.recipe_text}"

    @property
    def recipe_text(self) -> str:
        changes = changes_words(self.changed)
        if self.precision and "steps.precision" not in self.changed:
            precision = setting_words("steps.precision", self.precision)
            changes = ", ".join(part for part in (changes, precision) if part)
        return f"recipe {self.recipe}" + (f": {changes}" if changes else "")

    @property
    def baseline(self) -> Line | None:
        return next((line for line in self.lines if line.condition == "full"), None)


def blocks_of(rows: Iterable[Row], *, lost: Collection[str] = ()) -> list[Block]:
    """All rows, each in the one block it belongs to; a benchmark's paper recipe stands first.

    A further score of a known metric has blocks of its own, behind those of what the rows are scored by.

    Args:
        rows: in any order.
        lost: commits that are in no history here (`results.ancestry`); lines with such rows are marked.
    """
    rows = list(rows)
    measured = {True: rows, False: [each for row in rows for each in further(row)]}
    blocks = [
        block_of(members, own=own, lost=lost)
        for own in measured
        for _, members in sorted(grouped(measured[own], block_key).items())
    ]
    return sorted(blocks, key=lambda block: (block.model, block.data, distance_from_paper(block)))


def distance_from_paper(block: Block) -> int:
    """0 for the paper's recipe, 1 for that in another precision, 2 for any other."""
    return len(block.changed) if block.recipe == "paper" else 2


def further(row: Row) -> list[Row]:
    """The same run as if it had been scored by each of its further metrics that are known."""
    if row["diverged"]:
        return []
    known = {name: METRICS[name] for name in row["further"] if name in METRICS}
    return [row | scored_by(name, metric, row["further"][name]) for name, metric in known.items()]


def scored_by(name: str, metric: Metric, score: float | None) -> dict:
    """What differs in a row that is read as scored by a further metric."""
    direction = {"higher_is_better": metric.higher_is_better, "chance": metric.chance}
    return direction | {"metric": name, "score": score, "arms": {}, "further": {}}


def block_of(rows: list[Row], *, own: bool, lost: Collection[str] = ()) -> Block:
    """Make a block of rows that may be compared."""
    first = rows[0]
    cells = grouped(rows, line_key)
    baseline = interval(row["score"] for row in newest(find_baseline(cells)))
    lines = [line for cell in cells.values() for line in lines_of(cell, baseline, cells, own=own)]
    lines = [replace(line, lost=sum(row["commit"] in lost for row in line.runs)) for line in lines]
    return Block(
        model=first["model"],
        size=first["size"],
        data=first["data"],
        stand_in=stand_in(first),
        held_out=held_out(first),
        recipe=recipe_of(first),
        changed=changed_of_training(first),
        precision=precision_of(first),
        metric=metric_of(first["metric"]),
        higher_is_better=first["higher_is_better"],
        chance=first["chance"],
        full=first["counts"]["full"],
        fingerprint=first["data_fingerprint"],
        lines=sorted(lines, key=line_order),
        own=own,
    )


def lines_of(cell: list[Row], baseline: Interval, cells: dict[str, list[Row]], *, own: bool) -> list[Line]:
    """A line for the mode itself, and one for the test-time arm without the scaffold where rows have it."""
    mode = cell[0]["mode"]
    options = options_of(cell[0], cells)
    runs = newest(cell)
    scores = [row["score"] for row in runs]
    lines = [line_of(cell, CONDITIONS.get(mode, mode), scores, baseline, options, own_rows=own)]
    trained = [row for row in runs if not row["diverged"]]
    removed = [row["arms"]["scaffold_removed"] for row in trained if "scaffold_removed" in row["arms"]]
    if removed:
        lines.append(line_of(cell, "no_scaffold", removed, baseline, options, own_rows=False))
    return lines


def line_of(
    cell: list[Row], condition: str, scores: list, baseline: Interval, options: str, *, own_rows: bool
) -> Line:
    """Make the line of one condition of a cell."""
    row, ours, runs = cell[0], interval(scores), newest(cell)
    counted = {run["digest"] for run in runs}
    paper = paper_of(row, condition) if not options else None
    beside_paper = equivalence_of(scores, paper, row)
    return Line(
        condition=condition,
        adapter=adapter_of(row),
        init=row["init"],
        rank=row["rank"],
        alpha=row["alpha"],
        options=options,
        scores=ours,
        recovery=recovery(ours.mean, baseline.mean, row["higher_is_better"]),
        share_above_chance=share_above_chance(ours.mean, baseline.mean, row["chance"]),
        trainable=row["counts"]["trainable"],
        full=row["counts"]["full"],
        full_plus_adapters=row["counts"]["full_plus_adapters"],
        paper=paper,
        beside_paper=beside_paper,
        verdict=beside_paper.verdict if beside_paper else "",
        runs=runs,
        older=[row for row in cell if row["digest"] not in counted],
        lost=0,
        own_rows=own_rows,
    )


def difference(ours: float, paper: PaperNumber | None) -> float:
    """Return ours − the paper's; NaN where the paper has no number for this size."""
    if paper is None or paper.all_sizes:
        return math.nan
    return ours - paper.mean


def equivalence_of(scores: list, paper: PaperNumber | None, row: Row) -> Equivalence | None:
    """The test of our scores against the paper's number for this size, by the margin `Metric.agrees`."""
    margin = metric_of(row["metric"]).margin
    if paper is None or paper.all_sizes or math.isnan(margin):
        return None
    return published_equivalence(scores, paper.mean, margin, paper.std, paper.n)


def paper_of(row: Row, condition: str) -> PaperNumber | None:
    """The paper's number for what this row measured; None where its protocol is not the paper's."""
    if place_of(row) or not keeps_protocol(row, condition):
        return None
    benchmark = BENCHMARKS[row["model"], row["data"]]
    rank = None if condition == "full" else row["rank"]
    size, options = row["size"], adapter_of(row)
    if size + options in benchmark.variants:  # the paper calls these options a variant, not a condition
        size, options = size + options, ""
    return paper_number(benchmark, size, condition + options, rank, metric_of(row["metric"]))


def keeps_protocol(row: Row, condition: str) -> bool:
    """Whether the row ran the paper's protocol, on the real data, with the paper's scaffold and α."""
    if not keeps_recipe(row):
        return False
    benchmark = BENCHMARKS[row["model"], row["data"]]
    return condition not in ("scaffold", "no_scaffold") or row["init"] == benchmark.init


def keeps_recipe(row: Row) -> bool:
    """The same whatever the family of W_seed.

    Steps in another precision keep it, since the paper names one for GPT alone; tables say which it was.
    """
    benchmark = BENCHMARKS.get((row["model"], row["data"]))
    changed = row["changed"].keys() - {PRECISION}
    if benchmark is None or recipe_of(row) != "paper" or changed or stand_in(row):
        return False
    return row["alpha"] is None or row["alpha"] == benchmark.alpha(row["rank"])


def line_order(line: Line) -> tuple:
    """Return the sort key of a line."""
    place = ORDER.index(line.condition) if line.condition in ORDER else len(ORDER)
    return place, line.condition, line.adapter, line.init, line.rank or 0, line.alpha or 0, line.options
