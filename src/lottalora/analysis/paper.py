"""The paper's numbers, found for what one of our own rows measured."""

import csv
import math
from collections.abc import Callable
from collections.abc import Iterator
from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from functools import cache
from importlib import resources

from lottalora.analysis.metrics import Metric

ALL_SIZES = "all"  # Table 2 averages over the presets


@dataclass(frozen=True)
class Benchmark:
    """What the paper calls a pair of model and data.

    Args:
        name: in the column `benchmark` of paper.csv.
        init: the scaffold that its tables take, a name in conf/init.
        alpha: its α as a function of r.
        variants: our size, or size+option of the adapters, → the paper's variant, where the two differ.
    """

    name: str
    init: str = "normal"
    alpha: Callable[[int], float] = lambda rank: rank
    variants: Mapping[str, str] = field(default_factory=dict)

    def variant(self, size: str) -> str:
        return self.variants.get(size, size)


# A pair without an entry, or another scaffold, has no number of the paper beside it.
BENCHMARKS = {
    ("mlp", "mnist"): Benchmark("mnist", init="normal_0.1"),
    ("cfc", "physionet2012"): Benchmark("physionet2012"),
    ("resnet", "cifar10"): Benchmark("cifar10"),
    ("vit", "flowers102"): Benchmark("flowers102", variants={"base": "vit_b16_pretrained"}),
    ("vit_random", "flowers102"): Benchmark(
        "flowers102", variants={"base": "vit_b16_random", "base+layer_norm": "vit_b16_random+ln"}
    ),
    ("gin", "molhiv"): Benchmark("ogbg_molhiv", variants={"base": "gin"}),
    ("gcn", "arxiv"): Benchmark("ogbn_arxiv", variants={"base": "gcn"}),
    ("distilbert", "imdb"): Benchmark("imdb", alpha=lambda rank: 2 * rank, variants={"base": "distil3"}),
    ("gpt", "wikitext103"): Benchmark("wikitext103", alpha=lambda rank: 16),
    ("decision_transformer", "halfcheetah"): Benchmark("halfcheetah_expert"),
}


@dataclass(frozen=True)
class PaperNumber:
    """One number of the paper, in the unit of our rows (an accuracy is a fraction)."""

    mean: float
    std: float  # NaN where the paper gives none
    n: int | None  # seeds; None where the paper does not say
    table: str  # its number in the paper
    all_sizes: bool  # an average over model sizes, so no number to subtract from one size's


def paper_number(
    benchmark: Benchmark, size: str, condition: str, rank: int | None, metric: Metric
) -> PaperNumber | None:
    """The paper's number for this size or, where it has none, the average over sizes; None if it has neither.

    Args:
        size: ours, as rows say it.
        condition: full, scaffold, zero_scaffold or no_scaffold, as in the column of paper.csv.
        rank: r; None for full training.
    """
    for variant in (benchmark.variant(size), ALL_SIZES):
        key = (benchmark.name, variant, condition, "" if rank is None else str(rank), metric.paper_name)
        if key in numbers():
            line = numbers()[key]
            mean, std = (float(line[part] or math.nan) / metric.scale for part in ("mean", "std"))
            seeds = int(line["seeds"]) if line["seeds"] else None
            return PaperNumber(mean, std, seeds, line["table"], variant == ALL_SIZES)
    return None


@cache
def numbers() -> dict[tuple, dict[str, str]]:
    """The lines of paper.csv by benchmark, variant, condition, rank and metric; no two share a key."""
    return {tuple(line[part] for part in KEY): line for line in lines()}


KEY = ("benchmark", "variant", "condition", "rank", "metric")


def lines() -> Iterator[dict[str, str]]:
    text = resources.files("lottalora.analysis").joinpath("paper.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
