"""One value for each arm with its interval, a picture a block: what analyses of arms have in common."""

import math
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from lottalora.analysis.metrics import Metric
from lottalora.analysis.result import Analysis
from lottalora.report.blocks import Block
from lottalora.report.csv_text import csv_text
from lottalora.report.names import block_names
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.palette import INK
from lottalora.report.pictures.palette import RULE
from lottalora.report.pictures.picture import LETTER
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture

ROW = 17  # pixels of an arm
SERIES = "value"


@dataclass(frozen=True)
class Spread:
    """What is drawn of each line of an analysis.

    Args:
        kind: of the picture, the first word of its name.
        what: in its title.
        keys: of the value and the two ends of its interval; ends that do not exist are "".
        label: of the axis, made of the block's metric.
        caption: what the marks mean.
        at: a value to compare with, drawn as a line; None for none.
        scaled: whether values are in the metric's unit of rows.
    """

    kind: str
    what: str
    keys: tuple[str, str, str]
    label: Callable[[Metric], str]
    caption: str
    at: float | None = None
    scaled: bool = False


def spread_pictures(blocks: Sequence[Block], found: Analysis, spread: Spread) -> list[Picture]:
    """A picture for each block that the analysis has two lines or more of."""
    blocks = list(blocks)
    names = block_names(blocks)
    pictures = []
    for block in blocks:
        lines = [line for line in found.numbers if line["block"] == block.title]
        points = [(line["arm"], *values_of(line, spread, block)) for line in lines]
        points = [point for point in points if not math.isnan(point[1])]
        if len(points) > 1:
            title = f"{block.pair_title}, {block.size}: {spread.what}"
            name, label = f"{spread.kind}_{names[id(block)]}", spread.label(block.metric)
            pictures.append(points_picture(name, title, spread.caption, label, points, spread.at))
    return pictures


def values_of(line: dict, spread: Spread, block: Block) -> tuple[float, float, float]:
    """Value and ends in the unit that is shown; NaN for what does not exist."""
    scale = block.metric.scale if spread.scaled else 1.0
    values = (line.get(key) if key else None for key in spread.keys)
    return tuple(math.nan if value is None else scale * value for value in values)


def points_picture(
    name: str, title: str, caption: str, label: str, points: list[tuple], at: float | None = None
) -> Picture:
    """Return the picture of points, each (arm, value, low, high)."""
    height = 30 + 46 + ROW * len(points)
    longest = max(len(arm) for arm, *_ in points)
    draw = partial(draw_points, points=points, label=label, at=at)
    panels = [
        Panel(draw, width, height, left=min(int(16 + LETTER * longest), width // 2)) for width in (640, 360)
    ]
    keys = ("arm", "value", "low", "high")
    numbers = csv_text([dict(zip(keys, point, strict=True)) for point in points])
    return Picture(name, title, caption, panels[:1], [], numbers, narrow=panels[1:])


def draw_points(pen: Pen, *, points: list[tuple], label: str, at: float | None) -> None:
    """Draw a row for each arm: a dot, and a bar from end to end."""
    axes = pen.axes
    for place, (arm, value, low, high) in enumerate(points):
        if not math.isnan(low):
            axes.plot([low, high], [place, place], color=COLOURS[0], linewidth=3, alpha=0.4)
        drawn = axes.plot([value], [place], "o", color=COLOURS[0], markersize=5)
        ends = "" if math.isnan(low) else f" [{low:.4g}, {high:.4g}]"
        pen.note(drawn[0], SERIES, f"{arm}: {value:.4g}{ends}")
    if at is not None:
        axes.axvline(at, color=INK, linewidth=1.0, linestyle=":", zorder=0)
    most = int((axes.get_position().x0 * axes.figure.get_figwidth() * 72 - 16) / LETTER)
    arms = [arm if len(arm) <= most else f"{arm[: most - 1]}…" for arm, *_ in points]
    axes.set_yticks(range(len(points)), arms, color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(points) - 0.5, -0.5)
    axes.grid(axis="x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.set_xlabel(label)
