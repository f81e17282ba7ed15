"""The picture of a block's rank curves: the arms that count in one panel, the controls in another."""

from collections.abc import Iterable

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.main_blocks import is_shortened
from lottalora.report.pictures.curve_drawing import draw_controls
from lottalora.report.pictures.curve_drawing import draw_scores
from lottalora.report.pictures.curve_words import caption
from lottalora.report.pictures.curve_words import legend
from lottalora.report.pictures.curves import Curve
from lottalora.report.pictures.curves import curves_of
from lottalora.report.pictures.curves import ranks_of
from lottalora.report.pictures.curves import shown
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Picture
from lottalora.report.tables import part_and_label


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


def score_panel(block: Block, size: dict) -> Panel:
    """Return the panel of the arms' scores."""
    return Panel(lambda pen: draw_scores(pen, block), title=axis_label(block), **size)


def axis_label(block: Block) -> str:
    """Return the label of the score's axis."""
    direction = "" if block.higher_is_better else ", lower is better"
    what = part_and_label(block.metric)
    return f"{what[:1].upper()}{what[1:]}{direction}"


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
