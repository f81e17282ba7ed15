"""Rank curves as marks on axes."""

import math

from matplotlib.axes import Axes

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.main_blocks import is_shortened
from lottalora.report.pictures.curve_words import FEW
from lottalora.report.pictures.curve_words import FULL
from lottalora.report.pictures.curve_words import THEIRS
from lottalora.report.pictures.curve_words import said_of
from lottalora.report.pictures.curves import Curve
from lottalora.report.pictures.curves import curves_of
from lottalora.report.pictures.curves import ranks_of
from lottalora.report.pictures.curves import shown
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import INK
from lottalora.report.pictures.palette import PAPER
from lottalora.report.pictures.palette import RULE
from lottalora.report.pictures.palette import colour_of
from lottalora.report.pictures.picture import Pen


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
