"""The score of every family of W_seed at each rank, the best first, those that fall out by name."""

import math
from statistics import median

from lottalora.analysis.paper import numbers
from lottalora.report.blocks import LABELS
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.grouping import FIRST_READING
from lottalora.report.main_blocks import leading_init
from lottalora.report.pictures.curve_words import runs_text
from lottalora.report.pictures.curve_words import said_of
from lottalora.report.pictures.curves import shown
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import INK
from lottalora.report.pictures.palette import PAPER
from lottalora.report.pictures.palette import TEXT
from lottalora.report.pictures.palette import rank_colours
from lottalora.report.pictures.picture import LETTER
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture
from lottalora.report.pictures.rank_curves import axis_label
from lottalora.report.words import scaffold_words

ROW = 19  # pixels of a family
COLUMN = 50  # pixels of a column of printed scores
FEWEST = 3  # families that make a picture
FAR = 6.0  # median absolute deviations from the median, beyond which a family falls out
ROOMY = 1.6  # an axis may grow by this factor for the sake of what falls out
READINGS = {parameter for parameter, _, _ in FIRST_READING.values()}  # that an older row may leave unsaid
OTHER = "another reading of its parameters"


def families_picture(block: Block, name: str) -> Picture | None:
    """The picture of a block; None where it has fewer than three families."""
    lines = family_lines(block)
    families = sorted_families(block, lines)
    if len(families) < FEWEST:
        return None
    others = [line for line in scaffold_lines(block) if line.init in families and is_another_reading(line)]
    ranks = sorted({line.rank for line in lines})
    height = 30 + 46 + ROW * len(families)

    def draw(pen: Pen) -> None:
        draw_families(pen, block, families, lines, others)

    left = int(24 + 1.08 * LETTER * max(len(scaffold_words(family)) for family in families))
    panels = [
        Panel(draw, width, height, left=left, right=14 + COLUMN * len(ranks), title=axis_label(block))
        for width in (760, 360)
    ]
    colours = rank_colours(ranks)
    legend = [Mark(f"r = {rank}", f"r = {rank}", colours[rank]) for rank in ranks]
    legend += [Mark(OTHER, OTHER, GREY, "o", True)] if others else []
    legend += [Mark("full", LABELS["full"], INK, "line")] if block.baseline else []
    title = f"{block.pair_title}, {block.size}: families of W_seed"
    said, numbers = caption(block, lines, families), families_csv(block, lines + others)
    return Picture(name, title, said, panels[:1], legend, numbers, narrow=panels[1:])


def scaffold_lines(block: Block) -> list[Line]:
    """Arms with a random scaffold and plain adapters."""
    lines = [line for line in block.lines if line.condition == "scaffold" and line.rank and not line.adapter]
    return [line for line in lines if not math.isnan(line.scores.mean)]


def is_another_reading(line: Line) -> bool:
    """Whether a line left its family's own in parameters of the family alone, such as std or scaling."""
    keys = [option.partition("=")[0] for option in line.options.split(", ")]
    parameters = READINGS | (line.runs[0]["config"].get("scaffold") or {}).get("parameters", {}).keys()
    return bool(line.options) and parameters.issuperset(keys)


def family_lines(block: Block) -> list[Line]:
    """Those whose family is as the paper's table has it, at the ranks that two families or more have."""
    plain = [line for line in scaffold_lines(block) if not line.options]
    inits = {
        rank: {line.init for line in plain if line.rank == rank} for rank in {line.rank for line in plain}
    }
    return [line for line in plain if len(inits[line.rank]) > 1]


def sorted_families(block: Block, lines: list[Line]) -> list[str]:
    """By the score at the rank that the most families have (the higher one of two), the best first."""
    ranks = [line.rank for line in lines]
    if not ranks:
        return []
    main = max(sorted(set(ranks)), key=lambda rank: (ranks.count(rank), rank))
    sign = -1 if block.higher_is_better else 1
    scores = {line.init: sign * line.scores.mean for line in lines if line.rank == main}
    return sorted({line.init for line in lines}, key=lambda init: (scores.get(init, math.inf), init))


def draw_families(pen: Pen, block: Block, families: list[str], lines: list[Line], others: list[Line]) -> None:
    """Draw each family's scores, one row per family and one colour per rank."""
    places = {family: place for place, family in enumerate(families)}
    ranks, fallen = sorted({line.rank for line in lines}), outliers(block, lines)
    colours, span = rank_colours(ranks), limits(block, lines, fallen)
    pen.rules(list(places.values()))
    for line in others:
        draw_score(pen, block, line, places[line.init], GREY, span, hollow=True)
    for line in lines:
        draw_score(pen, block, line, places[line.init], colours[line.rank], span)
        print_score(pen, block, line, places[line.init], ranks.index(line.rank), line in fallen)
    for column, rank in enumerate(ranks):
        pen.axes.annotate(f"r = {rank}", (1, 1), (COLUMN * (column + 1) + 4, 6), "axes fraction",
                          "offset points", ha="right", color=GREY, fontsize=TEXT - 0.5)  # fmt: skip
    draw_level(pen, block, *span)
    dress(pen, block, families, span)


def dress(pen: Pen, block: Block, families: list[str], span: tuple[float, float]) -> None:
    """Label the axes, the recipe's own family in bold."""
    axes, leading = pen.axes, leading_init(block)
    axes.set_yticks(range(len(families)), [scaffold_words(family) for family in families], color=INK)
    for label, family in zip(axes.get_yticklabels(), families, strict=True):
        label.set_fontweight("bold" if family == leading else "normal")
    axes.set_ylim(len(families) - 0.4, -0.6)
    axes.set_xlim(*span)
    axes.locator_params(axis="x", nbins=5)
    axes.set_xlabel(axis_label(block).split(",")[0])
    axes.tick_params(axis="y", length=0, pad=8)
    axes.spines["left"].set_visible(False)


def print_score(pen: Pen, block: Block, line: Line, place: int, column: int, fallen: bool) -> None:
    """The score in the column of its rank, right of the axes."""
    pen.axes.annotate(
        block.metric.text(line.scores.mean), (1, place), (COLUMN * (column + 1) + 4, 0),
        pen.axes.get_yaxis_transform(), "offset points", ha="right", va="center", fontsize=TEXT - 0.5,
        color=COLOURS[1] if fallen else INK, fontweight="bold" if fallen else "normal", annotation_clip=False,
    )  # fmt: skip


def draw_score(
    pen: Pen,
    block: Block,
    line: Line,
    place: int,
    colour: str,
    limits: tuple[float, float],
    hollow: bool = False,
) -> None:
    """A dot at the score; an arrow at the edge where the score lies beyond it."""
    at, (low, high) = shown(block, line.scores.mean), limits
    marker = "<" if at < low else ">" if at > high else "o"
    drawn = pen.axes.plot(
        [min(max(at, low), high)], [place], marker, color=colour, markersize=5 if hollow else 7,
        markerfacecolor=PAPER if hollow else colour, clip_on=False, zorder=3,
    )  # fmt: skip
    series = OTHER if hollow else f"r = {line.rank}"
    pen.note(drawn[0], series, f"{line.scaffold_text}; {said_of(block, line)}")


def draw_level(pen: Pen, block: Block, low: float, high: float) -> None:
    """Draw full training's level where it lies in the picture."""
    full = block.baseline
    if full is not None and low <= shown(block, full.scores.mean) <= high:
        line = pen.axes.axvline(shown(block, full.scores.mean), color=INK, linewidth=1.2, zorder=1)
        pen.note(line, "full", said_of(block, full))


def outliers(block: Block, lines: list[Line]) -> list[Line]:
    """Families far on the worse side of the others at their rank."""
    found = []
    for rank in {line.rank for line in lines}:
        scores = [line.scores.mean for line in lines if line.rank == rank]
        middle = median(scores)
        spread = max(median(abs(score - middle) for score in scores), 0.1 * block.metric.margin)
        sign = -1 if block.higher_is_better else 1
        found += [
            line
            for line in lines
            if line.rank == rank
            and sign * (line.scores.mean - middle) > FAR * spread
            and len(scores) > FEWEST
        ]
    return found


def limits(block: Block, lines: list[Line], fallen: list[Line]) -> tuple[float, float]:
    """The axis: full training and all lines, but for what falls out so far that it would hide the others."""
    full = [] if block.baseline is None else [block.baseline]
    spans = []
    for counted in ([line for line in lines if line not in fallen], lines):
        values = [shown(block, line.scores.mean) for line in counted + full]
        spans.append((min(values), max(values)))
    (low, high), whole = spans
    if whole[1] - whole[0] < ROOMY * (high - low):
        low, high = whole
    room = 0.06 * (high - low or 1.0)
    return low - room, high + room


def caption(block: Block, lines: list[Line], families: list[str]) -> str:
    """Say what the points are and which families fail."""
    leading = leading_init(block)
    said = [f"Each family at each rank, {runs_text(lines)}"]
    if leading in families:
        said.append(f"in bold {scaffold_words(leading)}, the recipe's own")
    if fallen := sorted({scaffold_words(line.init) for line in outliers(block, lines)}):
        said.append(f"below the others: {', '.join(fallen)}")
    return "; ".join(said) + "." + paper_said(block, sorted({line.rank for line in lines}))


def paper_said(block: Block, ranks: list[int]) -> str:
    """The paper's mean and spread over its families, where its table has them."""
    kinds = ("mean", "spread")
    found = []
    for rank in ranks:
        scored_by = [f"{block.metric.paper_name}_{kind}_over_families" for kind in kinds]
        keys = [(block.data, "families", "scaffold", str(rank), each) for each in scored_by]
        if all(key in numbers() for key in keys):
            mean, spread = (numbers()[key]["mean"] for key in keys)
            found.append(f"{mean} ± {spread} at r = {rank}")
    return f" The paper's mean and spread over its families: {', '.join(found)}." if found else ""


def families_csv(block: Block, lines: list[Line]) -> str:
    """Return the drawn scores as CSV."""
    return csv_text(
        [
            {
                "family": line.init,
                "options": line.options,
                "rank": line.rank,
                "n": line.scores.n,
                "mean": shown(block, line.scores.mean),
                "std": shown(block, line.scores.std),
            }
            for line in lines
        ]
    )
