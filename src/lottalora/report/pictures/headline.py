"""The first picture: how much of full training each of the paper's nine benchmarks recovers."""

import math
from dataclasses import dataclass

from lottalora.analysis.benchmarks import NINE
from lottalora.analysis.benchmarks import STANDS_IN_FOR
from lottalora.analysis.benchmarks import Benchmark
from lottalora.analysis.metrics import METRICS
from lottalora.analysis.paper import numbers
from lottalora.analysis.recovery import recovery
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.main_blocks import is_shortened
from lottalora.report.main_blocks import leading_init
from lottalora.report.main_blocks import main_block
from lottalora.report.pictures.curve_words import said_of
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import INK
from lottalora.report.pictures.palette import PAPER
from lottalora.report.pictures.palette import RULE
from lottalora.report.pictures.palette import TEXT
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture

LOW, HIGH = 50.0, 105.0  # of the axis, in percent
OURS, SHORT, THEIRS = "ours", "shortened", "paper"
FURTHER = {"halfcheetah_expert": ("d4rl_score",)}  # benchmark → what else the paper scores it by


@dataclass(frozen=True)
class Best:
    """One benchmark under one metric; recoveries in percent, NaN where they do not exist."""

    benchmark: Benchmark
    title: str
    block: Block | None
    line: Line | None
    paper: float
    paper_said: str
    begun: bool  # whether there are any runs of it

    @property
    def ours(self) -> float:
        return 100 * self.line.recovery if self.line else math.nan

    @property
    def counts(self) -> bool:
        """Whether the runs are of the paper's protocol and data."""
        return self.block is not None and not is_shortened(self.block)

    @property
    def runs_said(self) -> str:
        """Rank, n and the share above chance, which belong beside every recovery."""
        if self.line is None:
            return "run, but without full training under the same recipe" if self.begun else "not run yet"
        said = f"r = {self.line.rank}, n = {self.line.scores.n}"
        if not math.isnan(self.line.share_above_chance):
            said += f", above chance {100 * self.line.share_above_chance:.1f} %"
        return said if self.counts else f"{said}; {why_hollow(self.block)}"


def why_hollow(block: Block) -> str:
    """Say why the mark is hollow: other data, or a shortened recipe."""
    return "other data" if block.stand_in or (block.model, block.data) in STANDS_IN_FOR else "shortened"


def bests(blocks: list[Block]) -> list[Best]:
    """The nine in the paper's order, a line for each metric that the paper reports."""
    return [
        best_of(benchmark, metric, blocks)
        for benchmark in NINE
        for metric in (benchmark.metric, *FURTHER.get(benchmark.name, ()))
    ]


def best_of(benchmark: Benchmark, metric: str, blocks: list[Block]) -> Best:
    """The best rank under the paper's protocol, at the paper's size if it was run; else of the main runs."""
    pair = (benchmark.model, benchmark.data)
    mine = [b for b in blocks if pair in ((b.model, b.data), STANDS_IN_FOR.get((b.model, b.data)))]
    mine = [b for b in mine if b.metric.paper_name == metric or (b.own and metric == benchmark.metric)]
    kept = [b for b in mine if not is_shortened(b) and b.metric.paper_name == metric]
    sized = [b for b in kept if benchmark.variant_of(b.size) == benchmark.variant]
    main = [main_block(pair, mine)] if mine else []
    groups = [[(b, line) for b in group for line in recovered(b)] for group in (sized, kept, main)]
    found = next((group for group in groups if group), [])
    block, line = max(found, key=lambda pair: pair[1].recovery, default=(None, None))
    variant = benchmark.variant
    if (
        block
        and not is_shortened(block)
        and (benchmark.name, benchmark.variant_of(block.size), "full", "", metric) in numbers()
    ):
        variant = benchmark.variant_of(block.size)
    theirs, rank, table = paper_best(benchmark, variant, metric)
    several = metric != benchmark.metric or benchmark.name in FURTHER
    label = next(each.name for each in METRICS.values() if each.paper_name == metric)
    title = f"{benchmark.title}: {label}" if several else benchmark.title
    said = f"{theirs:.1f} % at r = {rank}, {variant.replace('_', ' ')}, the best of its ranks (Table {table})"
    return Best(benchmark, title, block, line, theirs, said, bool(mine))


def recovered(block: Block) -> list[Line]:
    """The recipe's own arm at every rank that has a recovery."""
    init = leading_init(block)
    lines = [line for line in block.lines if line.condition == "scaffold" and line.init == init and line.rank]
    plain = [line for line in lines if not line.adapter and not line.options]
    return [line for line in plain if not math.isnan(line.recovery)]


def paper_best(benchmark: Benchmark, variant: str, metric: str) -> tuple[float, int, str]:
    """The paper's highest recovery of this size, in percent, its rank, and the table."""
    full = numbers()[benchmark.name, variant, "full", "", metric]
    higher = benchmark.higher_is_better if metric == benchmark.metric else True
    found = []
    for (name, size, condition, rank, scored_by), line in numbers().items():
        if (name, size, condition, scored_by) == (benchmark.name, variant, "scaffold", metric):
            share = recovery(float(line["mean"]), float(full["mean"]), higher)
            found.append((100 * share, int(rank)))
    best, rank = max(found)
    return best, rank, full["table"]


def verdict_of(found: list[Best]) -> str:
    """The one sentence at the head of the page, made from what was run under the paper's protocol."""
    done = [best for best in found if best.counts and best.line]
    if not done:
        begun = len({best.benchmark.name for best in found if best.line})
        started = f"; {begun} of nine {'has' if begun == 1 else 'have'} other runs" if begun else ""
        return f"No benchmark has both a scaffold and full training under the paper's protocol yet{started}."
    said = "; ".join(
        f"{best.ours:.1f} % of full training's test score on {best.title} "
        f"(r = {best.line.rank}, n = {best.line.scores.n}; paper {best.paper:.1f} %)"
        for best in done
    )
    return (
        f"Adapters on a frozen random network reach {said}. By the paper's protocol, "
        f"{len(done)} of nine benchmarks were run so far."
    )


def headline_picture(blocks: list[Block]) -> Picture:
    """Return the dot plot of recovery over all benchmarks, for wide and narrow screens."""
    found = bests(blocks)
    wide = Panel(
        lambda pen: draw(pen, found, False), 900, 44 + 34 * len(found) + 46, left=322, right=130, top=34
    )
    narrow = Panel(
        lambda pen: draw(pen, found, True), 360, 34 + 58 * len(found) + 46, left=14, right=96, top=30
    )
    legend = [
        Mark(OURS, "ours, by the paper's protocol: its best rank", COLOURS[0]),
        Mark(SHORT, "ours, a shortened recipe or other data", GREY, "o", True),
        Mark(THEIRS, "the paper's best rank", INK, "D", True),
    ]
    title = "How much of full training's score comes back"
    caption = (
        "Recovery: the score as a share of full training's, the inverse where lower is better, in percent. "
        "A ratio flatters a task with a high chance level, so the share above chance stands beside it."
    )
    return Picture("headline", title, caption, [wide], legend, headline_csv(found), narrow=[narrow])


def draw(pen: Pen, found: list[Best], narrow: bool) -> None:
    """Draw the rows of the dot plot."""
    axes = pen.axes
    for place, best in enumerate(found):
        track = place + (0.22 if narrow else 0.0)
        axes.plot([LOW, HIGH], [track, track], color=RULE, linewidth=1.0, zorder=0)
        axes.plot([100, 100], [track - 0.18, track + 0.18], color=GREY, linewidth=1.0, zorder=1)
        name_row(pen, best, place, narrow)
        draw_best(pen, best, track, narrow)
    names = ("ours", "paper") if narrow else ("ours, %", "paper, %")
    for place, name in enumerate(names):
        axes.annotate(
            name, (1, 1), column(place, narrow, 10), "axes fraction", "offset points", ha="right", color=GREY
        )
    axes.set_xlim(LOW, HIGH)
    axes.set_ylim(len(found) - 0.35, -0.6)
    axes.set_yticks([])
    axes.set_xticks([50, 60, 70, 80, 90, 100])
    axes.spines["left"].set_visible(False)
    axes.set_xlabel("recovery, % of full training")


def column(place: int, narrow: bool, above: float = 0.0) -> tuple[float, float]:
    """Where a column of numbers ends, in pixels from the right edge of the axes."""
    return ((44, 92) if narrow else (60, 122))[place], above


def name_row(pen: Pen, best: Best, place: int, narrow: bool) -> None:
    """The benchmark's name, and what stands behind its dot."""
    axes, colour = pen.axes, INK if best.counts and best.line else GREY
    weight = "bold" if best.counts and best.line else "normal"
    if narrow:
        look = {
            "xycoords": axes.get_yaxis_transform(),
            "textcoords": "offset points",
            "annotation_clip": False,
        }
        axes.annotate(
            best.title, (0, place - 0.42), (-4, 0), color=colour, fontweight=weight, va="center", **look
        )
        axes.annotate(
            best.runs_said, (0, place - 0.12), (-4, 0), color=GREY, va="center", fontsize=TEXT - 0.5, **look
        )
        return
    look = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "annotation_clip": False}
    axes.annotate(best.title, (0, place), (-314, 7), color=colour, fontweight=weight, va="center", **look)
    axes.annotate(
        best.runs_said, (0, place), (-314, -8), color=GREY, va="center", fontsize=TEXT - 0.5, **look
    )


def draw_best(pen: Pen, best: Best, y: float, narrow: bool) -> None:
    """Draw the paper's mark and ours on one row, with their numbers."""
    axes = pen.axes
    words = f"paper: {best.paper_said}"
    drawn = axes.plot([inside(best.paper)], [y], "D", color=INK, markerfacecolor="none", markersize=9,
                      zorder=3, clip_on=False)  # fmt: skip
    pen.note(drawn[0], THEIRS, f"{best.title}; {words}")
    print_number(pen, f"{best.paper:.1f}", y, 1, INK, narrow, THEIRS)
    if best.line is None:
        print_number(pen, "–", y, 0, GREY, narrow, OURS)
        return
    colour = COLOURS[0] if best.counts else GREY
    series = OURS if best.counts else SHORT
    marker = "o" if best.ours >= LOW else "<"
    drawn = axes.plot([inside(best.ours)], [y], marker, color=colour, markersize=8 if best.counts else 6,
                      markerfacecolor=colour if best.counts else PAPER, zorder=4, clip_on=False)  # fmt: skip
    pen.note(drawn[0], series, f"{best.title}; {said_of(best.block, best.line)}")
    print_number(pen, f"{best.ours:.1f}", y, 0, colour, narrow, series)


def print_number(pen: Pen, text: str, y: float, place: int, colour: str, narrow: bool, series: str) -> None:
    """Print a number in one of the two columns on the right."""
    bold = "bold" if series == OURS and text != "–" else "normal"
    at = (1, y), column(place, narrow)
    look = {
        "xycoords": pen.axes.get_yaxis_transform(),
        "textcoords": "offset points",
        "annotation_clip": False,
    }
    drawn = pen.axes.annotate(text, *at, ha="right", va="center", color=colour, fontweight=bold, **look)
    pen.note(drawn, series)


def inside(value: float) -> float:
    """Return the value, moved to the nearest edge of the axis if it is outside."""
    return min(max(value, LOW), HIGH)


def headline_csv(found: list[Best]) -> str:
    """Return the plotted numbers as CSV."""
    return csv_text(
        [
            {
                "benchmark": best.title,
                "recipe": best.block.recipe if best.block else "",
                "rank": best.line.rank if best.line else None,
                "n": best.line.scores.n if best.line else 0,
                "recovery": best.ours,
                "above_chance": 100 * best.line.share_above_chance if best.line else None,
                "paper": best.paper,
            }
            for best in found
        ]
    )
