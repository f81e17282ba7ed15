"""What tables show: a block for a benchmark, size and recipe, a line for a condition, init and rank."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from dataclasses import field

from lottalora.analysis.benchmarks import pair_title
from lottalora.analysis.equivalence import Equivalence
from lottalora.analysis.metrics import Metric
from lottalora.analysis.paper import PaperNumber
from lottalora.analysis.statistics import Interval
from lottalora.analysis.statistics import finite
from lottalora.analysis.statistics import interval
from lottalora.report.grouping import PRECISION
from lottalora.report.words import adapter_words
from lottalora.report.words import changes_words
from lottalora.report.words import options_words
from lottalora.report.words import scaffold_words
from lottalora.report.words import setting_words
from lottalora.results.rows import Row

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

    condition: str  # one of LABELS, or a mode that has no label
    adapter: str  # the options that are on, such as "+dora+residual"; mostly ""
    init: str  # "" for full training
    rank: int | None
    alpha: float | None
    options: str  # what tells this line from another of the same name, such as "std=0.2"; mostly ""
    scores: Interval  # in the row's unit, over training seeds
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
        """Score by training seed; None where every run of it diverged."""
        return score_of_each_seed(self.condition, self.runs)

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
    settings: dict  # what recipe and changes came to, flat
    metric: Metric
    higher_is_better: bool
    chance: float
    full: int  # parameters of the whole model
    fingerprint: str  # of the data
    lines: list[Line]
    own: bool  # False for a further score of rows that stand in another block
    apart: dict = field(default_factory=dict)  # settings that tell it from another of its title

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
        changes = changes_words(self.changed | self.apart)
        if self.precision and PRECISION not in self.changed:
            precision = setting_words(PRECISION, self.precision)
            changes = ", ".join(part for part in (changes, precision) if part)
        return f"recipe {self.recipe}" + (f": {changes}" if changes else "")

    @property
    def baseline(self) -> Line | None:
        return next((line for line in self.lines if line.condition == "full"), None)


def score_of_each_seed(condition: str, runs: Iterable[Row]) -> dict[int, float | None]:
    """Score by training seed: of the run whose scaffold seed is the same number, else a mean over its runs.

    Runs that share a seed are no independent samples, so each training seed counts once. None where every
    such run diverged.
    """
    runs = list(runs)
    scores: dict[int, list[float | None]] = {}
    own = {run["seed"] for run in runs if run["backbone_seed"] == run["seed"]}
    for run in runs:
        if run["seed"] in own and run["backbone_seed"] != run["seed"]:
            continue
        if condition != "no_scaffold" or run["diverged"]:
            scores.setdefault(run["seed"], []).append(run["score"])
        elif "scaffold_removed" in run["arms"]:
            scores.setdefault(run["seed"], []).append(run["arms"]["scaffold_removed"])
    return {seed: interval(each).mean if len(finite(each)) else None for seed, each in scores.items()}


def difference(ours: float, paper: PaperNumber | None) -> float:
    """Return ours − the paper's; NaN where the paper has no number for this size."""
    if paper is None or paper.all_sizes:
        return math.nan
    return ours - paper.mean
