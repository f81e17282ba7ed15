"""Learning curves from the rows' history: score and β over the epochs, and the effect of the budget."""

import math
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.analysis.statistics import interval
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.figures import COLOURS
from lottalora.report.figures import STYLE
from lottalora.report.figures import add_title
from lottalora.report.figures import save
from lottalora.report.statistics_table import ARM
from lottalora.report.statistics_table import arm_cells
from lottalora.report.statistics_table import line_name

PARTS = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the epochs trained
HEADINGS = [*ARM, "runs", *(f"{100 * part:.0f} %" for part in PARTS), "best", "at epoch", "last β median"]


def analyse(blocks: Iterable[Block]) -> Analysis:
    tables, numbers = [], []
    for block in blocks:
        shown = [line for line in block.lines if block.own and line.own_rows and curves_of(line)]
        lines = []
        for line in shown:
            found = points(line)
            numbers += [head(block, line) | point for point in found]
            lines.append([*arm_cells(line), *cells(block, line)])
        if lines:
            tables.append(Table(block.title, HEADINGS, len(ARM), lines, NOTES))
    if not tables:
        raise ValueError("No finished run has a history of validations. Make one: python run.py data=digits")
    return Analysis("Learning curves", tables, numbers)


NOTES = [
    "Validation score after this part of the epochs trained, the mean over runs that have a history "
    "(schema 3); best: the mean of the runs' best epochs, and their median epoch, counted from 1. The "
    "CSV holds every epoch with its interval."
]


def curves_of(line: Line) -> list[dict[int, dict[str, float]]]:
    """For each run that has a history: epoch → validation score and median of β."""
    found = []
    for row in line.runs:
        history = row["history"]
        scores = history.get("validation_score", [])
        ends = [place for place, score in enumerate(scores) if score is not None]
        if row["diverged"] or not ends:
            continue
        betas = history.get("beta_median") or [None] * len(scores)
        found.append({round(history["epoch"][at]): {"score": scores[at], "beta": betas[at]} for at in ends})
    return found


def points(line: Line) -> list[dict]:
    """Mean and interval over the runs at every epoch that all of them have."""
    curves = curves_of(line)
    common = sorted(set.intersection(*(set(curve) for curve in curves)))
    found = []
    for epoch in common:
        scores = interval(curve[epoch]["score"] for curve in curves)
        betas = [curve[epoch]["beta"] for curve in curves if curve[epoch]["beta"] is not None]
        found.append(
            {
                "epoch": epoch,
                "n": scores.n,
                "validation_score": scores.mean,
                "low": scores.low,
                "high": scores.high,
                "beta_median": float(np.mean(betas)) if betas else math.nan,
            }
        )
    return found


def head(block: Block, line: Line) -> dict:
    keys = ("condition", "adapter", "init", "options", "rank")
    return {"block": block.title, **{key: getattr(line, key) for key in keys}}


def cells(block: Block, line: Line) -> list[str]:
    curves, found = curves_of(line), points(line)
    last = found[-1]["epoch"] if found else 0
    at_parts = []
    for part in PARTS:
        reached = [point for point in found if point["epoch"] <= math.ceil(part * last)]
        at_parts.append(block.metric.text(reached[-1]["validation_score"]) if reached else "–")
    choose = max if block.higher_is_better else min
    bests = [choose(curve, key=lambda epoch, curve=curve: curve[epoch]["score"]) for curve in curves]
    best = float(np.mean([curve[epoch]["score"] for curve, epoch in zip(curves, bests, strict=True)]))
    beta = found[-1]["beta_median"] if found else math.nan
    return [
        str(len(curves)),
        *at_parts,
        block.metric.text(best),
        f"{np.median(bests):g} of {last}",
        "–" if math.isnan(beta) else f"{beta:.3f}",
    ]


def figures(blocks: Iterable[Block], folder: Path) -> list[Path]:
    """For each block: the validation score over the epochs, and below it the median of β."""
    paths = []
    for place, block in enumerate(blocks, start=1):
        lines = [line for line in block.lines if block.own and line.own_rows and curves_of(line)][
            : len(COLOURS)
        ]
        if not lines:
            continue
        with matplotlib.rc_context(STYLE):
            figure = Figure(figsize=(7.2, 5.2), layout="constrained")
            above, below = figure.subplots(2, 1, sharex=True)
            for line, colour in zip(lines, COLOURS, strict=False):
                draw(above, below, line, colour, block.metric.scale)
            above.set_ylabel(f"validation {block.metric.label}")
            below.set_ylabel("median β")
            below.set_xlabel("epoch")
            above.legend(loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False)
            add_title(above, block.name, "mean over runs; band: 95 % interval where there are three or more")
            numbers = [head(block, line) | point for line in lines for point in points(line)]
            paths += save(figure, csv_text(numbers), folder / f"curves_{place}")
    return paths


def draw(above: Axes, below: Axes, line: Line, colour: str, scale: float) -> None:
    found = points(line)
    epochs = [point["epoch"] for point in found]

    def column(name: str) -> np.ndarray:
        return scale * np.array([point[name] for point in found])

    above.plot(epochs, column("validation_score"), color=colour, label=line_name(line))
    above.fill_between(epochs, column("low"), column("high"), color=colour, alpha=0.2, linewidth=0)
    below.plot(epochs, column("beta_median") / scale, color=colour)
