"""Cost, predicted from counts beside measured: Tables 9 and 10 of the paper."""

import math
from collections.abc import Iterable
from statistics import median

from lottalora.analysis.cost import flops_ratio
from lottalora.analysis.cost import memory_ratio
from lottalora.analysis.cost import shipped_bytes
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

HEADINGS = [
    *ARM, "trained", "FLOPs ÷ full", "seconds ÷ full", "memory ÷ full", "peak memory ÷ full", "shipped, KiB",
]  # fmt: skip


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Compare predicted with measured cost; raise ValueError if no task has two arms."""
    tables, numbers = [], []
    for block in blocks:
        shown = [line for line in block.lines if block.own and line.own_rows]
        if block.baseline is None or len(shown) < 2:
            continue
        found = [number_line(block, line) for line in shown]
        numbers += found
        lines = [[*arm_cells(line), *cells(each)] for line, each in zip(shown, found, strict=True)]
        tables.append(Table(block.title, HEADINGS, len(ARM), lines, NOTES))
    if not tables:
        raise ValueError(
            "No task has full training and another arm under one recipe. Make them: python run.py -m "
            "mode=baseline,scaffold"
        )
    return Analysis("Cost", tables, numbers)


SPREAD = Spread(
    "cost",
    "memory, predicted",
    ("memory_ratio", "", ""),
    lambda metric: "memory of weights, gradients and Adam ÷ full training's",
    "Counted, (2N + 14N_tr) ÷ 16N; the table has what was measured beside it.",
    at=1.0,
)


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """A picture for each block."""
    return spread_pictures(blocks, found, SPREAD)


NOTES = [
    "FLOPs: (4N + 2N_tr) ÷ 6N, and memory: (2N + 14N_tr) ÷ 16N, of weights, gradients and Adam's state "
    "in mixed precision: both counted from N weights and N_tr trained ones. Measured beside them: "
    "seconds an epoch and peak memory of the process, medians over runs on the same kind of device; "
    "seconds of runs that shared a machine say little, and in a process of a small net most memory is "
    "PyTorch's own. Shipped: the trained numbers in 16 bits."
]


def number_line(block: Block, line: Line) -> dict:
    """Return an arm's cost relative to full training, predicted and measured."""
    full, kind = block.baseline, device_of(line.runs[0])
    alike = [row for row in full.runs if device_of(row) == kind]
    dense = line.trainable == line.full
    return {
        **arm_columns(block, line),
        "trained": line.trainable,
        "flops_ratio": 1.0 if dense else flops_ratio(line.full, line.trainable),
        "seconds_ratio": ratio(line.runs, alike, lambda row: row["seconds"] / row["epochs"]),
        "memory_ratio": 1.0 if dense else memory_ratio(line.full, line.trainable),
        "peak_memory_ratio": ratio(line.runs, alike, lambda row: row["peak_memory_mb"]),
        "shipped_bytes": shipped_bytes(line.trainable),
        "device": kind,
    }


def device_of(row: dict) -> str:
    """Return the device on which times may be compared."""
    return row["device"]


def ratio(ours: list, theirs: list, measure) -> float:  # noqa: ANN001  row → number or None
    """Return the ratio of two medians of a measure; NaN where one side has no value."""
    sides = [[value for row in rows if (value := measure(row)) is not None] for rows in (ours, theirs)]
    return median(sides[0]) / median(sides[1]) if all(sides) else math.nan


def cells(found: dict) -> list[str]:
    """Format an arm's numbers."""
    ratios = ("flops_ratio", "seconds_ratio", "memory_ratio", "peak_memory_ratio")
    texts = ["–" if math.isnan(found[key]) else f"{found[key]:.2f}" for key in ratios]
    return [f"{found['trained']:,}", *texts, f"{found['shipped_bytes'] / 1024:,.1f}"]
