"""The paper's published numbers, looked up by what one of our rows measured."""

import csv
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib import resources

from lottalora.analysis.benchmarks import Benchmark
from lottalora.analysis.metrics import Metric

ALL_SIZES = "all"  # Table 2 averages over the presets


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
    for variant in (benchmark.variant_of(size), ALL_SIZES):
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
    """Yield the lines of `paper.csv`, the paper's published numbers, as dictionaries."""
    text = resources.files("lottalora.analysis").joinpath("paper.csv").read_text(encoding="utf-8")
    yield from csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
