"""The rank curve of a block: score against rank, a series per condition and init, full training as a band."""

import io
import math
import textwrap
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottalora.report.blocks import LABELS
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.results.atomic_write import write_whole

# Okabe & Ito 2008: told apart with every common colour blindness. Markers differ as well, for print in grey.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#7F3C8D")
MARKERS = ("o", "s", "^", "v", "P", "X", "d")
GREY = "#6B6B6B"
PAPER = "paper"
WIDTH = 95  # letters of 8.5 points beside each other in a figure
LEGEND = 34  # letters of a line of the legend
OTHERS = "other inits"  # those after the seventh curve
STYLE = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.8,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "svg.fonttype": "none",
    "svg.hashsalt": "lottalora",  # the same figure is the same file
}


@dataclass(frozen=True)
class Series:
    name: str
    lines: list[Line]  # by rank
    colour: str
    marker: str


def draw_rank_curve(block: Block, name: str, folder: Path) -> list[Path]:
    """Write NAME.png, NAME.svg and NAME.csv (the numbers drawn); nothing if no line has a rank over 0."""
    series = series_of(block)
    if not series:
        return []
    with matplotlib.rc_context(STYLE):
        return save(rank_curve(block, series), curve_csv(block, series), folder / name)


def save(figure: Figure, numbers: str, path: Path) -> list[Path]:
    """PATH.png, PATH.svg and, with the numbers drawn, PATH.csv."""
    paths = [path.parent / f"{path.name}.{ending}" for ending in ("png", "svg", "csv")]
    drawn = [io.BytesIO(), io.BytesIO()]
    figure.savefig(drawn[0], format="png", dpi=200)
    figure.savefig(drawn[1], format="svg", metadata={"Date": None})
    for file, content in zip(paths, (drawn[0].getvalue(), drawn[1].getvalue(), numbers), strict=True):
        write_whole(file, content)
    return paths


def series_of(block: Block) -> list[Series]:
    """The conditions that have ranks, as curves. After the seventh they share one grey."""
    curves: dict[tuple[str, str, str], list[Line]] = {}
    for line in block.lines:
        if line.rank:
            curves.setdefault((line.label, line.init, line.options), []).append(line)
    inits = {init for _, init, _ in curves if init}
    series = []
    for place, ((label, init, options), lines) in enumerate(curves.items()):
        words = [label, init if len(inits) > 1 else "", options]
        known = place < len(COLOURS)
        colour, marker = (COLOURS[place], MARKERS[place]) if known else ("#B0B0B0", ".")
        series.append(Series(", ".join(word for word in words if word), lines, colour, marker))
    return series


def rank_curve(block: Block, series: list[Series]) -> Figure:
    figure = Figure(figsize=(7.2, 4.0), layout="constrained")
    axes = figure.add_subplot()
    for curve in series:
        draw_curve(axes, curve, block)
    draw_baseline(axes, block)
    draw_head(axes, block)
    draw_paper(axes, block)
    label_axes(axes, block, series)
    add_legend(axes, series)
    return figure


def add_legend(axes: Axes, series: list[Series]) -> None:
    """Beside the curves, so that it hides none; the curves first, each name once."""
    handles = dict(zip(*reversed(axes.get_legend_handles_labels()), strict=True))
    names = [*(curve.name for curve in series), OTHERS, LABELS["head"], LABELS["full"], PAPER]
    names = [name for name in names if name in handles]
    chosen = [handles[name] for name in names]
    names = [textwrap.fill(name, LEGEND) for name in names]
    axes.legend(chosen, names, loc="upper left", bbox_to_anchor=(1.02, 1.0), frameon=False)


def draw_baseline(axes: Axes, block: Block) -> None:
    """The mean of full training as a line, ± one standard deviation as a band."""
    if block.baseline is None or math.isnan(block.baseline.scores.mean):
        return
    mean, std = shown(block, block.baseline.scores.mean), shown(block, block.baseline.scores.std)
    if not math.isnan(std):
        axes.axhspan(mean - std, mean + std, color="black", alpha=0.13, linewidth=0)
    axes.axhline(mean, color="black", linewidth=1.0, label=LABELS["full"])


def draw_head(axes: Axes, block: Block) -> None:
    """Rank 0 has no place on a logarithmic axis: the head alone is a level."""
    for line in block.lines:
        if line.condition == "head" and not math.isnan(line.scores.mean):
            axes.axhline(
                shown(block, line.scores.mean), color=GREY, linewidth=1.0, linestyle=":", label=line.label
            )


def draw_curve(axes: Axes, curve: Series, block: Block) -> None:
    means = [shown(block, line.scores.mean) for line in curve.lines]
    stds = [0.0 if math.isnan(line.scores.std) else shown(block, line.scores.std) for line in curve.lines]
    named = curve.colour in COLOURS
    axes.errorbar(
        [line.rank for line in curve.lines],
        means,
        yerr=stds,
        label=curve.name if named else OTHERS,
        color=curve.colour,
        marker=curve.marker,
        markersize=5 if named else 3,
        linewidth=1.5 if named else 0.8,
        elinewidth=1.0,
        capsize=2.5,
        zorder=2.5 if named else 1.5,
    )


def draw_paper(axes: Axes, block: Block) -> None:
    """The paper's numbers for this very size and scaffold, where it has them."""
    look = {
        "marker": "D", "markersize": 8, "markerfacecolor": "none", "markeredgecolor": "black",
        "markeredgewidth": 0.9, "linestyle": "none", "label": PAPER, "zorder": 4, "clip_on": False,
    }  # fmt: skip
    points = [line for line in block.lines if line.condition == "scaffold" and line.paper]
    if points:
        axes.plot([line.rank for line in points], [shown(block, line.paper.mean) for line in points], **look)
    full = block.baseline.paper if block.baseline else None
    if full:  # at the right end of the line of full training, which has no rank
        axes.plot([1.0], [shown(block, full.mean)], transform=axes.get_yaxis_transform(), **look)


def label_axes(axes: Axes, block: Block, series: list[Series]) -> None:
    ranks = sorted({line.rank for curve in series for line in curve.lines})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set_xlim(ranks[0] / 1.25, ranks[-1] * 1.25)
    axes.set_xlabel("rank r, logarithmic")
    axes.set_ylabel(f"{block.metric.part} {block.metric.label}")
    axes.grid(axis="y", color="#E6E6E6", linewidth=0.7)
    axes.set_axisbelow(True)
    data = ", ".join(part for part in (block.data, block.stand_in) if part)
    title = f"{block.model} on {data}, {block.size}"
    add_title(axes, title, f"{block.recipe_text}; mean ± std over {runs_text(series, block)}")


def add_title(axes: Axes, title: str, said: str) -> None:
    """A title, and between it and the axes what is said of it, in as many lines as it takes."""
    lines = textwrap.wrap(said, WIDTH)
    axes.set_title(title, loc="left", fontsize=11, fontweight="bold", pad=10 + 12 * len(lines))
    text = axes.annotate("\n".join(lines), (0, 1), (0, 7), "axes fraction", "offset points",
                         fontsize=8.5, color=GREY)  # fmt: skip
    text.set_in_layout(False)  # the title keeps its place free; the axes keep their width


def runs_text(series: list[Series], block: Block) -> str:
    """How many runs stand behind a point, such as `n = 2–5 seeds`."""
    counts = {line.scores.n for curve in series for line in curve.lines}
    if block.baseline:
        counts.add(block.baseline.scores.n)
    low, high = min(counts), max(counts)
    return f"n = {low}" + (f"–{high}" if high > low else "") + (" seeds" if high != 1 else " seed")


def curve_csv(block: Block, series: list[Series]) -> str:
    """The numbers of the figure, as drawn (an accuracy is in percent)."""
    drawn = [(curve.name, line) for curve in series for line in curve.lines]
    drawn += [(line.label, line) for line in block.lines if line.condition in ("full", "head")]
    return csv_text([point(block, name, line) for name, line in drawn])


def point(block: Block, name: str, line: Line) -> dict:
    own_size = line.paper is not None and not line.paper.all_sizes
    return {
        "series": name,
        "rank": line.rank,
        "n": line.scores.n,
        "metric": block.metric.name,
        "unit": block.metric.unit,
        "mean": shown(block, line.scores.mean),
        "std": shown(block, line.scores.std),
        "paper": shown(block, line.paper.mean) if own_size else None,
    }


def shown(block: Block, score: float) -> float:
    return score * block.metric.scale
