"""The rank curves of a block: the arms that count in one panel, the controls in another."""

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass

from matplotlib.axes import Axes

from lottalora.analysis.benchmarks import BENCHMARKS
from lottalora.report.blocks import LABELS
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.palette import CONTROLS
from lottalora.report.palette import GREY
from lottalora.report.palette import INK
from lottalora.report.palette import PAPER
from lottalora.report.palette import RULE
from lottalora.report.palette import colour_of
from lottalora.report.palette import marker_of
from lottalora.report.picture import Mark
from lottalora.report.picture import Panel
from lottalora.report.picture import Pen
from lottalora.report.picture import Picture
from lottalora.report.tables import part_and_label
from lottalora.report.tables import with_interval

FULL = "full"
THEIRS = "paper"
OPTION_MARKERS = ("^", "v", "s", "p", "<", ">", "h", "d", "P")  # hollow, one for each set of options
FEW = 10  # runs behind a point, up to which each has a dot of its own


@dataclass(frozen=True)
class Curve:
    """One condition over ranks."""

    label: str
    lines: list[Line]  # by rank
    marker: str

    @property
    def first(self) -> Line:
        return self.lines[0]

    @property
    def key(self) -> str:
        return self.label

    @property
    def is_control(self) -> bool:
        return self.first.condition in CONTROLS


def rank_picture(block: Block, name: str, further: Iterable[Block] = ()) -> Picture | None:
    """The picture of a block; None if no arm has a rank over 0, or a shortened run a single one.

    Args:
        block: what is drawn.
        name: of its files.
        further: blocks with other scores of the same runs, a panel each.
    """
    curves = curves_of(block)
    if not curves or (is_shortened(block) and len(ranks_of(curves)) < 2):  # the table says it
        return None
    small = is_shortened(block)
    size = {"width": 320, "height": 220} if small else {}
    panels = [score_panel(each, size) for each in (block, *further)]
    if any(curve.is_control for curve in curves):
        panels.append(Panel(lambda pen: draw_controls(pen, block), title="Controls and other arms", **size))
    title = f"{block.pair_title}, {block.size}"
    return Picture(
        name,
        title,
        caption(block, curves),
        panels,
        legend(block, curves),
        curve_csv(block, curves),
        small=small,
    )


def is_shortened(block: Block) -> bool:
    """Whether the runs say nothing beside the paper: another recipe or other data."""
    return block.recipe != "paper" or bool(block.stand_in) or (block.model, block.data) not in BENCHMARKS


def leading_init(block: Block) -> str:
    """The scaffold that the recipe uses; where the benchmark names none, the one with the most ranks."""
    inits = [line.init for line in block.lines if line.condition == "scaffold" and line.rank]
    benchmark = BENCHMARKS.get((block.model, block.data))
    if benchmark and benchmark.init in inits:
        return benchmark.init
    return max(sorted(set(inits)), key=inits.count, default="")


def curves_of(block: Block) -> list[Curve]:
    """The arms on the recipe's scaffold, its own first. Other families have a picture of their own."""
    init = leading_init(block)
    curves: dict[str, list[Line]] = {}
    for line in block.lines:
        if line.rank and line.init in ("", init):
            label = ", ".join(word for word in (line.label, line.options_text) if word)
            curves.setdefault(label, []).append(line)
    options = list(dict.fromkeys(lines[0].options_text for lines in curves.values() if lines[0].options))
    markers = dict(zip(options, itertools.cycle(OPTION_MARKERS)))
    found = [
        Curve(label, lines, markers.get(lines[0].options_text) or marker_of(lines[0]))
        for label, lines in curves.items()
    ]
    return sorted(found, key=lambda curve: (bool(curve.first.options), curve.is_control))


def score_panel(block: Block, size: dict) -> Panel:
    """Return the panel of the arms' scores."""
    return Panel(lambda pen: draw_scores(pen, block), title=axis_label(block), **size)


def axis_label(block: Block) -> str:
    """Return the label of the score's axis."""
    direction = "" if block.higher_is_better else ", lower is better"
    what = part_and_label(block.metric)
    return f"{what[:1].upper()}{what[1:]}{direction}"


def draw_scores(pen: Pen, block: Block) -> None:
    """Draw full training, the curves of the arms and the paper's marks."""
    curves = [curve for curve in curves_of(block) if not curve.is_control]
    draw_full(pen, block)
    for curve in curves:
        draw_curve(pen, block, curve)
    draw_paper(pen, block, [line for curve in curves for line in curve.lines])
    dress(pen.axes, ranks_of(curves_of(block)))


def draw_controls(pen: Pen, block: Block) -> None:
    """Without the scaffold, with one of zeros, and the head alone; the scaffold's own curve stays pale."""
    curves = curves_of(block)
    draw_full(pen, block)
    draw_chance(pen, block)
    for curve in curves:
        if curve.is_control:
            draw_curve(pen, block, curve)
        elif curve.first.condition == "scaffold" and not curve.first.options and not curve.first.adapter:
            draw_pale(pen, block, curve)
    draw_heads(pen, block)
    draw_paper(pen, block, [line for curve in curves if curve.is_control for line in curve.lines])
    dress(pen.axes, ranks_of(curves))


def draw_full(pen: Pen, block: Block) -> None:
    """Full training's mean as a line, its 95 % interval as a band, the paper's as a diamond at the edge."""
    full = block.baseline
    if full is None or math.isnan(full.scores.mean):
        return
    if not math.isnan(full.scores.low):
        low, high = shown(block, full.scores.low), shown(block, full.scores.high)
        pen.note(pen.axes.axhspan(low, high, color=INK, alpha=0.12, linewidth=0), FULL)
    style = "--" if is_shortened(block) else "-"
    line = pen.axes.axhline(shown(block, full.scores.mean), color=INK, linewidth=1.2, linestyle=style)
    pen.note(line, FULL, said_of(block, full))
    if full.paper and not full.paper.all_sizes:
        at = [1.0], [shown(block, full.paper.mean)]
        drawn = pen.axes.plot(*at, "D", transform=pen.axes.get_yaxis_transform(), clip_on=False, markersize=7,
                              markerfacecolor=PAPER, markeredgecolor=INK, zorder=5)  # fmt: skip
        pen.note(drawn[0], THEIRS, f"paper, full training: {block.metric.text(full.paper.mean)}")


def draw_curve(pen: Pen, block: Block, curve: Curve) -> None:
    """Points, a line where there are two or more, the 95 % interval as a band, single runs as dots."""
    small, first = is_shortened(block), curve.first
    colour, marker = colour_of(first, small), curve.marker
    hollow = small or bool(first.options)
    x, y = [line.rank for line in curve.lines], [shown(block, line.scores.mean) for line in curve.lines]
    band = [line for line in curve.lines if not math.isnan(line.scores.low)]
    if len(band) > 1:
        low, high = ([shown(block, getattr(line.scores, end)) for line in band] for end in ("low", "high"))
        filled = pen.axes.fill_between(
            [line.rank for line in band], low, high, color=colour, alpha=0.18, linewidth=0
        )
        pen.note(filled, curve.key)
    if len(curve.lines) > 1:
        style = "--" if hollow else "-"
        pen.note(pen.axes.plot(x, y, style, color=colour, linewidth=1.5, zorder=2)[0], curve.key)
    for line, mean in zip(curve.lines, y, strict=True):
        if 1 < line.scores.n <= FEW:
            runs = [shown(block, score) for score in line.by_seed.values() if score is not None]
            dots = pen.axes.plot([line.rank] * len(runs), runs, ".", color=colour, markersize=3.5, alpha=0.5)
            pen.note(dots[0], curve.key)
        face = PAPER if hollow else colour
        drawn = pen.axes.plot([line.rank], [mean], marker, color=colour, markersize=5 if small else 6.5,
                              markerfacecolor=face, markeredgecolor=colour, zorder=4)  # fmt: skip
        pen.note(drawn[0], curve.key, said_of(block, line))


def draw_pale(pen: Pen, block: Block, curve: Curve) -> None:
    """A curve of the other panel, for the eye to compare with."""
    at = [line.rank for line in curve.lines], [shown(block, line.scores.mean) for line in curve.lines]
    colour = colour_of(curve.first, is_shortened(block))
    drawn = pen.axes.plot(
        *at, "-" if len(curve.lines) > 1 else "o", color=colour, linewidth=1.2, alpha=0.5, zorder=1
    )
    pen.note(drawn[0], curve.key, f"{curve.label}, for comparison")


def draw_chance(pen: Pen, block: Block) -> None:
    """Draw the level of chance, where it is known."""
    if not math.isnan(block.chance) and block.higher_is_better:
        level = shown(block, block.chance)
        line = pen.axes.axhline(level, color=GREY, linewidth=1.0, linestyle=":")
        pen.note(line, "chance", f"chance: {block.metric.text(block.chance)}")


def draw_heads(pen: Pen, block: Block) -> None:
    """Rank 0 has no place on a logarithmic axis: the head alone is a level."""
    for line in block.lines:
        if line.condition == "head" and not math.isnan(line.scores.mean):
            level = pen.axes.axhline(
                shown(block, line.scores.mean), color=GREY, linewidth=1.2, linestyle="-."
            )
            pen.note(level, line.label, said_of(block, line))


def draw_paper(pen: Pen, block: Block, lines: list[Line]) -> None:
    """The paper's number at each rank: a diamond in the colour of its condition."""
    for line in lines:
        if not line.paper or line.options:
            continue
        colour = INK if line.condition == "scaffold" else colour_of(line)
        drawn = pen.axes.plot([line.rank], [shown(block, line.paper.mean)], "D", color=colour, markersize=9,
                              markerfacecolor="none", markeredgewidth=1.1, zorder=5)  # fmt: skip
        over = ", mean over its sizes" if line.paper.all_sizes else ""
        words = f"paper, {line.label}, r = {line.rank}: {block.metric.text(line.paper.mean)}{over}"
        pen.note(drawn[0], THEIRS, f"{words} (Table {line.paper.table})")


def dress(axes: Axes, ranks: list[int]) -> None:
    """Scale and label the axes of a rank curve."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(ranks, [str(rank) for rank in ranks])
    axes.minorticks_off()
    axes.set_xlim(ranks[0] / 1.35, ranks[-1] * 1.35)
    axes.set_xlabel("rank r")
    axes.grid(axis="y", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.margins(y=0.08)


def ranks_of(curves: list[Curve]) -> list[int]:
    """Return the ranks of all curves, sorted."""
    return sorted({line.rank for curve in curves for line in curve.lines})


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


def curve_csv(block: Block, curves: list[Curve]) -> str:
    """The numbers of the picture, as drawn (an accuracy is in percent)."""
    drawn = [(curve.label, line) for curve in curves for line in curve.lines]
    drawn += [(line.label, line) for line in block.lines if line.condition in ("full", "head")]
    return csv_text([point(block, name, line) for name, line in drawn])


def point(block: Block, name: str, line: Line) -> dict:
    """Return a line's numbers for CSV, in the shown unit."""
    own_size = line.paper is not None and not line.paper.all_sizes
    return {
        "series": name,
        "rank": line.rank,
        "n": line.scores.n,
        "metric": block.metric.name,
        "unit": block.metric.unit,
        "mean": shown(block, line.scores.mean),
        "std": shown(block, line.scores.std),
        "low": shown(block, line.scores.low),
        "high": shown(block, line.scores.high),
        "paper": shown(block, line.paper.mean) if own_size else None,
    }


def shown(block: Block, score: float) -> float:
    """Return a score in the unit that is shown."""
    return score * block.metric.scale
