"""Learning curves from the rows' history: score and β over the epochs, and the effect of the budget."""

import math
from collections.abc import Iterable
from functools import partial

import numpy as np

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.analysis.statistics import interval
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.arms import line_name
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.names import block_names
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture

PARTS = (0.1, 0.25, 0.5, 0.75, 1.0)  # of the epochs trained
HEADINGS = [*ARM, "runs", *(f"{100 * part:.0f} %" for part in PARTS), "best", "at epoch", "last β median"]


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Analyse the histories of validations; raise ValueError if there are none."""
    tables, numbers = [], []
    for block in blocks:
        shown = [line for line in block.lines if block.own and line.own_rows and curves_of(line)]
        lines = []
        for line in shown:
            found = points(line)
            numbers += [arm_columns(block, line) | point for point in found]
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


def cells(block: Block, line: Line) -> list[str]:
    """Format an arm's scores at parts of the training and its β."""
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


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """For each block: the validation score over the epochs, and beside it the median of β."""
    blocks = list(blocks)
    names = block_names(blocks)
    made = (picture_of(block, f"curves_{names[id(block)]}") for block in blocks)
    return [picture for picture in made if picture]


def picture_of(block: Block, name: str) -> Picture | None:
    """Return the learning curves and β over time of a block, or None."""
    lines = [line for line in block.lines if block.own and line.own_rows and curves_of(line)][: len(COLOURS)]
    if not lines:
        return None
    panels = [
        Panel(partial(draw, lines=lines, name="validation_score", scale=block.metric.scale),
              title=f"validation {block.metric.label}"),
        Panel(partial(draw, lines=lines, name="beta_median", scale=1.0), title="median β"),
    ]  # fmt: skip
    legend = [
        Mark(line_name(line), line_name(line), colour, "line")
        for line, colour in zip(lines, COLOURS, strict=False)
    ]
    caption = "mean over runs against the epoch; band: 95 % interval, where there are three runs or more"
    numbers = csv_text([arm_columns(block, line) | point for line in lines for point in points(line)])
    return Picture(
        name, f"{block.pair_title}, {block.size}: learning curves", caption, panels, legend, numbers
    )


def draw(pen: Pen, *, lines: list[Line], name: str, scale: float) -> None:
    """Draw one quantity of every line over epochs; scores with their interval."""
    for line, colour in zip(lines, COLOURS, strict=False):
        found = points(line)
        epochs = [point["epoch"] for point in found]

        def column(key: str, found: list[dict] = found) -> np.ndarray:
            return scale * np.array([point[key] for point in found])

        pen.axes.plot(epochs, column(name), color=colour)
        if name == "validation_score":
            pen.axes.fill_between(epochs, column("low"), column("high"), color=colour, alpha=0.2, linewidth=0)
    pen.axes.set_xlabel("epoch")
