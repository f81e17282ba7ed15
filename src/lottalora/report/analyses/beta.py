"""β of every arm beside what weight decay alone would make of it, by arm and against depth."""

import math
from collections.abc import Iterable

import numpy as np
from scipy import stats

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.pictures.picture import Picture
from lottalora.report.pictures.spread import Spread
from lottalora.report.pictures.spread import spread_pictures

HEADINGS = [*ARM, "runs", "β median", "IQR", "least", "greatest", "decay alone", "|β| median", "ρ with depth"]


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Analyse β by arm; raise ValueError if no run trains one."""
    tables, numbers = [], []
    for block in blocks:
        shown = [line for line in block.lines if block.own and has_beta(line)]
        found = [number_line(block, line) for line in shown]
        numbers += found
        lines = [[*arm_cells(line), *cells(each)] for line, each in zip(shown, found, strict=True)]
        if lines:
            tables.append(Table(block.title, HEADINGS, len(ARM), lines, NOTES))
    if not tables:
        raise ValueError("No finished run trains a β. Make one: python run.py mode=scaffold rank=8")
    return Analysis("β", tables, numbers)


SPREAD = Spread(
    "beta_arms",
    "β by arm",
    ("median", "q25", "q75"),
    lambda metric: "β, over layers and runs",
    "Dots: medians; bars: from quartile to quartile. β starts at 1 (dotted).",
    at=1.0,
)


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """A picture for each block."""
    return spread_pictures(blocks, found, SPREAD)


NOTES = [
    "Over layers and runs, at the best epoch; β starts at 1. Decay alone: Π(1 − lr · wd) up to the best"
    " epoch, its mean over runs; – where rows are older or no decay is a product. ρ: Spearman's, of β "
    "with the number of the layer from input to output, its mean over runs of three layers or more."
]


def has_beta(line: Line) -> bool:
    """Return whether the line's runs train β."""
    return line.own_rows and any(values_of(row) for row in line.runs)


def values_of(row: dict) -> list[float]:
    """From input to output; runs that diverged have none."""
    return [] if row["diverged"] else [value for value in row["beta"].values() if value is not None]


def number_line(block: Block, line: Line) -> dict:
    """Return the quantiles of an arm's β, and what weight decay alone would give."""
    runs = [values for row in line.runs if (values := values_of(row))]
    values = np.concatenate(runs)
    low, median, high = np.quantile(values, [0.25, 0.5, 0.75])
    decays = [row["beta_decay"] for row in line.runs if row["beta_decay"] is not None]
    return {
        **arm_columns(block, line),
        "runs": len(runs),
        "median": float(median),
        "q25": float(low),
        "q75": float(high),
        "least": float(values.min()),
        "greatest": float(values.max()),
        "negative": int((values < 0).sum()),
        "decay_alone": float(np.mean(decays)) if decays else math.nan,
        "median_magnitude": float(np.median(np.abs(values))),
        "rho_with_depth": mean_rho(runs),
    }


def mean_rho(runs: list[list[float]]) -> float:
    """Return the mean rank correlation of β and depth over runs; NaN without any."""
    rhos = [
        stats.spearmanr(range(len(values)), values).statistic
        for values in runs
        if len(values) >= 3 and np.ptp(values) > 0
    ]
    return float(np.mean(rhos)) if rhos else math.nan


def cells(found: dict) -> list[str]:
    """Format an arm's numbers."""
    return [
        str(found["runs"]),
        text(found["median"]),
        f"{text(found['q25'])} … {text(found['q75'])}",
        text(found["least"]),
        text(found["greatest"]),
        text(found["decay_alone"]),
        text(found["median_magnitude"]),
        text(found["rho_with_depth"], "+.2f"),
    ]


def text(value: float, form: str = ".3f") -> str:
    """Format a number, – for NaN."""
    return "–" if math.isnan(value) else format(value, form)
