"""Scaffold seed against training seed: the share of the spread of each, and another draw at test time."""

from collections.abc import Iterable

import numpy as np

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.analysis.variance import components
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.pictures.picture import Picture
from lottalora.report.pictures.spread import Spread
from lottalora.report.pictures.spread import spread_pictures

HEADINGS = [*ARM, "scaffold × training seeds", "std", "scaffold", "training", "rest", "on another draw"]
NOTES = [
    "std: over all runs. Shares of the variance by the mean squares of a crossed table with one run for "
    "each pair of seeds, negative estimates as 0; the rest holds their interaction. With few seeds these "
    "shares are rough. On another draw: the mean score of the same trained weights on another scaffold."
]


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Split the variance between scaffold seeds and training seeds; raise ValueError without a table."""
    tables, numbers = [], []
    for block in blocks:
        found = [(line, table) for line in block.lines if (table := crossed(line)) is not None]
        if not found:
            continue
        made = [number_line(block, line, table) for line, table in found]
        numbers += made
        lines = [[*arm_cells(line), *cells(block, each)] for (line, _), each in zip(found, made, strict=True)]
        tables.append(Table(block.title, HEADINGS, len(ARM), lines, NOTES))
    if not tables:
        raise ValueError(
            "No arm has two scaffold seeds with the same two training seeds. Make some: python run.py -m "
            "sweeps=seeds"
        )
    return Analysis("Two seeds", tables, numbers)


SPREAD = Spread(
    "seeds",
    "the scaffold seed's share of the variance",
    ("share_scaffold", "", ""),
    lambda metric: "share of the variance over scaffold seeds",
    "The rest is over training seeds and what neither explains. With few seeds the share is rough.",
)


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """A picture for each block."""
    return spread_pictures(blocks, found, SPREAD)


def crossed(line: Line) -> np.ndarray | None:
    """Scores by scaffold seed and training seed, without the seeds that some of the others lack."""
    scores = {(run["backbone_seed"], run["seed"]): run["score"] for run in line.runs if not run["diverged"]}
    if not line.own_rows or None in {scaffold for scaffold, _ in scores}:
        return None
    scaffolds = sorted({scaffold for scaffold, _ in scores})
    trainings = sorted({seed for _, seed in scores})
    full = [seed for seed in trainings if sum((scaffold, seed) in scores for scaffold in scaffolds) > 1]
    scaffolds = [each for each in scaffolds if all((each, seed) in scores for seed in full)]
    if len(full) < 2 or len(scaffolds) < 2:
        return None
    return np.array([[scores[scaffold, seed] for seed in full] for scaffold in scaffolds])


def number_line(block: Block, line: Line, table: np.ndarray) -> dict:
    """Return the variance components of one arm."""
    found = components(table)
    shares = found.shares()
    swapped = [run["arms"]["scaffold_swapped"] for run in line.runs if "scaffold_swapped" in run["arms"]]
    return {
        **arm_columns(block, line),
        "scaffold_seeds": table.shape[0],
        "training_seeds": table.shape[1],
        "std": float(table.std(ddof=1)),
        "variance_scaffold": found.scaffold,
        "variance_training": found.training,
        "variance_rest": found.rest,
        **dict(zip(("share_scaffold", "share_training", "share_rest"), map(float, shares), strict=True)),
        "swapped": float(np.mean(swapped)) if swapped else None,
    }


def cells(block: Block, found: dict) -> list[str]:
    """Format the variance components of one arm."""
    shares = [found[f"share_{part}"] for part in ("scaffold", "training", "rest")]
    return [
        f"{found['scaffold_seeds']} × {found['training_seeds']}",
        block.metric.text(found["std"]),
        *("–" if np.isnan(share) else f"{100 * share:.0f} %" for share in shares),
        "–" if found["swapped"] is None else block.metric.text(found["swapped"]),
    ]
