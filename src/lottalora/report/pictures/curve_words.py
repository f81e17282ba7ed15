"""What is said beside the rank curves: legend, caption, and the words under a pointer."""

import math

from lottalora.report.blocks import LABELS
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.main_blocks import is_shortened
from lottalora.report.number_text import with_interval
from lottalora.report.pictures.curves import Curve
from lottalora.report.pictures.curves import arms_of
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import INK
from lottalora.report.pictures.palette import colour_of
from lottalora.report.pictures.picture import Mark

FULL = "full"
THEIRS = "paper"
FEW = 10  # runs behind a point, up to which each has a dot of its own


def legend(block: Block, curves: list[Curve]) -> list[Mark]:
    """Return the marks of the legend."""
    small = is_shortened(block)
    marks = [
        Mark(curve.key, curve.label, colour_of(curve.first, small), curve.marker,
             small or bool(curve.first.options))
        for curve in curves
    ]  # fmt: skip
    if block.baseline:
        marks.append(Mark(FULL, LABELS["full"], INK, "dashes" if small else "line"))
    heads = [line for line in block.lines if line.condition == "head"]
    marks += [Mark(line.label, line.label, GREY, "dashes") for line in heads[:1]]
    lines = [line for curve in curves for line in curve.lines] + ([block.baseline] if block.baseline else [])
    if any(line.paper for line in lines):
        marks.append(Mark(THEIRS, "the paper's number", INK, "D", True))
    return marks


def caption(block: Block, curves: list[Curve]) -> str:
    """What the marks mean, and how many runs stand behind them."""
    lines = [line for curve in curves for line in curve.lines] + ([block.baseline] if block.baseline else [])
    said = [f"Large marks: means over {runs_text(lines)}"]
    if any(1 < line.scores.n <= FEW for line in lines):
        said[0] += "; small dots: the runs"
    if any(not math.isnan(line.scores.low) for line in lines):
        said[0] += "; bands: 95 % intervals of the mean, from n = 3 on"
    if any(line.paper for line in lines):
        said.append("Diamonds: the paper, at this size and rank; at the right edge its full training")
    if any(line.paper and line.paper.all_sizes for line in lines):
        said.append("The paper's controls are means over its sizes")
    if len(arms_of(block)) > len(curves):
        said.append("Variations of a single run have no curve; the table has them")
    if is_shortened(block):
        said.insert(0, f"Hollow and grey, since not the paper's protocol: {block.recipe_text}")
    return ". ".join(said) + "."


def runs_text(lines: list[Line]) -> str:
    """How many runs stand behind a point, such as `n = 2–5 seeds`."""
    counts = {line.scores.n for line in lines}
    low, high = min(counts), max(counts)
    return f"n = {low}" + (f"–{high}" if high > low else "") + (" seeds" if high != 1 else " seed")


def said_of(block: Block, line: Line) -> str:
    """What the page says under a pointer."""
    rank = "" if line.rank is None else f", r = {line.rank}"
    unit = f" {block.metric.unit}" if block.metric.unit == "%" else ""
    score = f"{with_interval(line.scores, block.metric)}{unit}, n = {line.scores.n}"
    said = f"{line.label}{rank}: {score}"
    if line.condition != "full" and not math.isnan(line.recovery):
        said += f"; recovery {100 * line.recovery:.1f} %, above chance {100 * line.share_above_chance:.1f} %"
    return said
