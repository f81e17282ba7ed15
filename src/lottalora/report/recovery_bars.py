"""Recovery at each rank, as bars: one group for each block that has full training."""

import math
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.analysis.recovery import recovery
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.figures import COLOURS
from lottalora.report.figures import GREY
from lottalora.report.figures import STYLE
from lottalora.report.figures import save

SAID = "bar: mean score over seeds against the mean of full training; whisker: ± std of the score, same scale"


@dataclass(frozen=True)
class Bar:
    """Everything in percent of full training."""

    block: Block
    line: Line
    recovery: float
    spread: float  # NaN for n < 2; the spread of full training is not in it
    paper: float  # NaN where the paper has no such pair

    @property
    def rank(self) -> str:
        return f"r = {self.line.rank}"


def bars_of(blocks: list[Block]) -> list[Bar]:
    """Scaffold lines by rank, of one init for each block: the benchmark's own or, without it, the first.

    A further score has bars only if the paper states it too; the others are in the tables.
    """
    shown = [block for block in blocks if block.own or block.metric.paper_name]
    return [bar_of(block, line) for block in shown for line in lines_of_one_init(block)]


def lines_of_one_init(block: Block) -> list[Line]:
    plain = [line for line in block.lines if line.condition == "scaffold" and not line.adapter]
    lines = [line for line in plain if line.rank and not line.options]
    lines = [line for line in lines if not math.isnan(line.recovery)]
    inits = [line.init for line in lines]
    benchmark = BENCHMARKS.get((block.model, block.data))
    wanted = benchmark.init if benchmark and benchmark.init in inits else next(iter(inits), "")
    return [line for line in lines if line.init == wanted]


def bar_of(block: Block, line: Line) -> Bar:
    full, paper = block.baseline.scores.mean, block.baseline.paper
    theirs = line.paper and paper and not line.paper.all_sizes and not paper.all_sizes
    return Bar(
        block=block,
        line=line,
        recovery=100 * line.recovery,
        spread=100 * spread(line, full, block.higher_is_better),
        paper=100 * recovery(line.paper.mean, paper.mean, block.higher_is_better) if theirs else math.nan,
    )


def spread(line: Line, full: float, higher_is_better: bool) -> float:
    """One std of the score on the scale of recovery; to first order where the score is the denominator."""
    if higher_is_better:
        return line.scores.std / full
    return line.recovery * line.scores.std / line.scores.mean


def draw_recovery_bars(blocks: list[Block], folder: Path) -> list[Path]:
    """Write recovery_bars.png, .svg and .csv; nothing if no block has a recovery."""
    bars = bars_of(blocks)
    if not bars:
        return []
    with matplotlib.rc_context(STYLE):
        return save(recovery_bars(bars), bars_csv(bars), folder / "recovery_bars")


def recovery_bars(bars: list[Bar]) -> Figure:
    """Bars under the names of their blocks, from top to bottom."""
    groups = [(block.name, list(members)) for block, members in groupby(bars, key=attrgetter("block"))]
    lines = [line for name, members in groups for line in (name, *members)]
    figure = Figure(figsize=(7.2, 1.3 + 0.22 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    axes.set_ylim(len(lines) - 0.4, -0.6)
    places = [place for place, line in enumerate(lines) if isinstance(line, Bar)]
    axes.barh(places, [bar.recovery for bar in bars], xerr=[bar.spread for bar in bars], color=COLOURS[0],
              height=0.72, error_kw={"ecolor": "black", "elinewidth": 1.0, "capsize": 2})  # fmt: skip
    for place, line in enumerate(lines):
        if not isinstance(line, Bar):
            axes.text(0.01, place, line, transform=axes.get_yaxis_transform(), va="center")
    theirs = [
        (bar.paper, place) for place, bar in zip(places, bars, strict=True) if not math.isnan(bar.paper)
    ]
    if theirs:
        axes.plot(
            *zip(*theirs, strict=True), "D", color="black", markerfacecolor="white", label="paper", zorder=4
        )
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1.0), frameon=False)
    axes.axvline(100, color=GREY, linewidth=1.0)
    axes.set_yticks(places, [f"{bar.rank}, n = {bar.line.scores.n}" for bar in bars])
    axes.set_xlabel("recovery of the score, % of full training")
    figure.supxlabel(SAID, fontsize="small", color=GREY, x=0.01, ha="left", wrap=True)
    return figure


def bars_csv(bars: list[Bar]) -> str:
    return csv_text(
        [
            {
                "block": bar.block.title,
                "metric": bar.block.metric.name,
                "init": bar.line.init,
                "rank": bar.line.rank,
                "n": bar.line.scores.n,
                "recovery": bar.recovery,
                "spread": bar.spread,
                "paper": bar.paper,
            }
            for bar in bars
        ]
    )
