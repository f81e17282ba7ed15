"""Score against all trained parameters, head and embeddings included: the paper's Figures 2B, 7 and 14D."""

import math
from collections.abc import Iterable
from functools import partial

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.main_blocks import leading_init
from lottalora.report.names import block_names
from lottalora.report.number_text import percent
from lottalora.report.number_text import share
from lottalora.report.number_text import with_interval
from lottalora.report.pictures.curve_words import said_of
from lottalora.report.pictures.curves import shown
from lottalora.report.pictures.palette import colour_of
from lottalora.report.pictures.palette import marker_of
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture
from lottalora.report.pictures.rank_curves import axis_label

HEADINGS = [*ARM, "n", "trained, all", "of these in the body", "% of full", "score", "recovery, %"]
NOTES = [
    "Trained, all: every number that training changes, a dense head and embeddings included. In the body: "
    "without the layers that stay dense. Full training and narrow nets train all that they have."
]
CAPTION = "each mark: the mean of an arm over its seeds, at the number of all parameters that it trains"


def analyse(blocks: Iterable[Block]) -> Analysis:
    """List every arm by what it trains; raise ValueError if no task has two arms."""
    tables, numbers = [], []
    for block in blocks:
        lines = lines_of(block)
        if len(lines) < 2:
            continue
        numbers += [number_line(block, line) for line in lines]
        texts = [[*arm_cells(line), *cells(block, line)] for line in lines]
        tables.append(Table(block.title, HEADINGS, len(ARM), texts, NOTES))
    if not tables:
        raise ValueError(
            "No task has two arms under one recipe. Make them: python run.py -m mode=baseline,scaffold "
            "rank=1,8"
        )
    return Analysis("Score against trained parameters", tables, numbers)


def lines_of(block: Block) -> list[Line]:
    """The arms that were trained as they are scored, on the recipe's scaffold, the least trained first."""
    init = leading_init(block)
    kept = [line for line in block.lines if line.own_rows and line.init in ("", init)]
    return sorted(
        (line for line in kept if not math.isnan(line.scores.mean)), key=lambda line: line.trainable
    )


def number_line(block: Block, line: Line) -> dict:
    """One arm, unrounded."""
    return {
        **arm_columns(block, line),
        "trained": line.trainable,
        "trained_in_body": body_of(line),
        "trained_over_full": line.trainable / line.full,
        "n": line.scores.n,
        "mean": line.scores.mean,
        "low": line.scores.low,
        "high": line.scores.high,
        "recovery": line.recovery,
    }


def body_of(line: Line) -> int:
    """What is trained outside of the layers that stay dense."""
    return line.runs[0]["counts"]["internal_trainable"]


def cells(block: Block, line: Line) -> list[str]:
    """Format one arm."""
    return [
        str(line.scores.n),
        f"{line.trainable:,}",
        f"{body_of(line):,}",
        share(line.percent_of_full),
        with_interval(line.scores, block.metric),
        percent(100 * line.recovery),
    ]


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """For each block: score against all trained parameters, a curve through the ranks of an arm."""
    blocks = list(blocks)
    names = block_names(blocks)
    drawn = [block for block in blocks if len(lines_of(block)) > 1]
    return [picture_of(block, f"budget_{names[id(block)]}") for block in drawn]


def picture_of(block: Block, name: str) -> Picture:
    """Return the picture of one block."""
    curves: dict[str, list[Line]] = {}
    for line in lines_of(block):
        curves.setdefault(", ".join(filter(None, (line.label, line.options_text))), []).append(line)
    panel = Panel(partial(draw, block=block, curves=curves), height=300, title=axis_label(block))
    legend = [
        Mark(label, label, colour_of(lines[0]), marker_of(lines[0]), bool(lines[0].options))
        for label, lines in curves.items()
    ]
    numbers = csv_text([number_line(block, line) for line in lines_of(block)])
    title = f"{block.pair_title}, {block.size}: score against trained parameters"
    return Picture(name, title, CAPTION, [panel], legend, numbers)


def draw(pen: Pen, *, block: Block, curves: dict[str, list[Line]]) -> None:
    """Draw every arm at what it trains."""
    for label, lines in curves.items():
        x, y = [line.trainable for line in lines], [shown(block, line.scores.mean) for line in lines]
        colour, marker = colour_of(lines[0]), marker_of(lines[0])
        if len(lines) > 1:
            pen.note(pen.axes.plot(x, y, color=colour, linewidth=1.2)[0], label)
        for line, trained, score in zip(lines, x, y, strict=True):
            face = "none" if line.options else colour
            mark = "D" if marker == "_" else marker
            (drawn,) = pen.axes.plot(
                [trained], [score], mark, color=colour, markersize=6, markerfacecolor=face
            )
            pen.note(drawn, label, f"{said_of(block, line)}; {trained:,} trained")
    pen.axes.set_xscale("log")
    pen.axes.set_xlabel("trained parameters, head and embeddings included")
