"""The figure of the README: score against rank for the benchmarks that were run by the paper's protocol."""

import hashlib
import json
import math
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottalora.analysis.benchmarks import NINE
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.evidence import scores_of
from lottalora.report.paper_lines import paper_block
from lottalora.report.paper_lines import protocol_lines
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import STYLE

POINTS = 3  # ranks, for a panel with a curve
NAME = "rank_curves.svg"
CONDITIONS = {
    "scaffold": (COLOURS[0], "o", "random scaffold + adapters"),
    "no_scaffold": (COLOURS[1], "s", "the same, scaffold removed"),
}


@dataclass(frozen=True)
class Point:
    line: Line
    scores: list[float]  # as shown, one for each seed
    paper: float  # NaN where the paper has none

    @property
    def mean(self) -> float:
        return math.fsum(self.scores) / len(self.scores)


@dataclass(frozen=True)
class Panel:
    title: str
    block: Block
    points: list[Point]


def panels(blocks: list[Block]) -> list[Panel]:
    """Benchmarks with full training and three ranks or more, by the paper's protocol."""
    found = []
    for benchmark in NINE:
        block = paper_block(blocks, benchmark.model, benchmark.data, benchmark.variant)
        if block is None or block.baseline is None or len(protocol_lines(block)) < POINTS:
            continue
        lines = [block.baseline, *(line for each in CONDITIONS for line in protocol_lines(block, each))]
        points = [point_of(block, line) for line in lines if scores_of(line)]
        found.append(Panel(benchmark.title, block, points))
    return found


def point_of(block: Block, line: Line) -> Point:
    """Return a line as a point of the figure, in the shown unit."""
    scale = block.metric.scale
    own = line.paper is not None and not line.paper.all_sizes
    return Point(
        line, [score * scale for score in scores_of(line)], line.paper.mean * scale if own else math.nan
    )


def fingerprint(blocks: list[Block]) -> str:
    """Digest of the numbers shown. The file carries it: another matplotlib draws other bytes of the same."""
    shown = [
        [panel.title, panel.block.size, point.line.condition, point.line.rank,
         [round(score, 4) for score in point.scores], f"{point.paper:.4f}"]
        for panel in panels(blocks)
        for point in panel.points
    ]  # fmt: skip
    return hashlib.sha256(json.dumps(shown).encode()).hexdigest()[:16]


def is_current(folder: Path, blocks: list[Block]) -> bool:
    """Return whether the figure in the folder was drawn from these rows."""
    path = folder / NAME
    return path.is_file() and f"rows {fingerprint(blocks)}" in path.read_text(encoding="utf-8")


def draw(folder: Path, blocks: list[Block]) -> Path:
    """Write the figure, and give its path."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = panels(blocks)
    style = STYLE | {"font.size": 9, "svg.fonttype": "path"}  # paths: the same on every machine
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(4.4 * max(1, len(chosen)), 3.5), layout="constrained")
        for place, panel in enumerate(chosen):
            draw_panel(figure.add_subplot(1, len(chosen), place + 1), panel)
        if chosen:
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=len(labels), frameon=False)
        metadata = {"Date": None, "Creator": None, "Description": f"rows {fingerprint(blocks)}"}
        figure.savefig(folder / NAME, metadata=metadata)
    return folder / NAME


def draw_panel(axes: Axes, panel: Panel) -> None:
    """Draw the rank curve of one benchmark."""
    full = next(point for point in panel.points if point.line.condition == "full")
    axes.axhline(full.mean, color="black", linewidth=1.0, label="full training")
    for condition, (colour, marker, label) in CONDITIONS.items():
        points = [point for point in panel.points if point.line.condition == condition]
        ranks = [point.line.rank for point in points]
        axes.plot(ranks, [point.mean for point in points], marker, linestyle="-", color=colour, markersize=5,
                  linewidth=1.5, label=label)  # fmt: skip
        for point in points:
            axes.plot(
                [point.line.rank] * len(point.scores),
                point.scores,
                ".",
                color=colour,
                markersize=3,
                alpha=0.6,
            )
    theirs = [
        point for point in panel.points if point.line.condition == "scaffold" and point.paper == point.paper
    ]
    axes.plot([point.line.rank for point in theirs], [point.paper for point in theirs], "D", label="paper",
              markersize=8, markerfacecolor="none", markeredgecolor="black")  # fmt: skip
    ranks = sorted({point.line.rank for point in panel.points if point.line.rank})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set_xlabel("rank of the adapters")
    axes.set_ylabel(f"test {panel.block.metric.label}")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.set_title(panel.title, loc="left", fontsize=10, fontweight="bold", color=GREY)
