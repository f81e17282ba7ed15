"""A picture of the report, drawn by one code for the files and for the page.

A file has all panels side by side with title, caption and legend; the page has each panel as an SVG of its
own, so that they stand beside each other on a screen and below each other on a phone.
"""

import io
import textwrap
from collections.abc import Callable
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import INK
from lottalora.report.pictures.palette import RULE
from lottalora.report.pictures.palette import STYLE
from lottalora.report.pictures.palette import TEXT
from lottalora.results.atomic_write import write_whole

UNIT = 72  # pixels of the page, and points of a file, in one of matplotlib's inches
LETTER = 6.3  # pixels of a letter, on average
LEAST_WIDTH = 480  # of a file, so that its title has room
ROW = 18  # pixels of a line of the legend or the caption


class Pen:
    """Axes to draw on, and what the page says of each mark: its series, and its words under a pointer."""

    def __init__(self, axes: Axes) -> None:
        self.axes = axes
        self.said: dict[str, tuple[str, str]] = {}

    def note(self, artist: Artist, series: str, words: str = "") -> None:
        name = f"mark{len(self.said)}"
        artist.set_gid(name)
        self.said[name] = series, words

    def rules(self, places: Sequence[float]) -> None:
        """Faint lines across the axes at these heights, behind all that is drawn."""
        across = self.axes.get_yaxis_transform()
        self.axes.hlines(places, 0, 1, colors=RULE, linewidth=0.8, zorder=0, transform=across)


@dataclass(frozen=True)
class Panel:
    """One pair of axes.

    Args:
        draw: draws it.
        width, height: in pixels, with the room for what is written around the axes.
        left, right, top, bottom: that room.
        title: above the axes.
    """

    draw: Callable[[Pen], None]
    width: int = 360
    height: int = 270
    left: int = 54
    right: int = 14
    top: int = 30
    bottom: int = 46
    title: str = ""

    def draw_on(self, figure: Figure, x: float, y: float) -> Pen:
        """Draw with the lower left corner at (x, y) pixels of the figure."""
        wide, high = (UNIT * side for side in figure.get_size_inches())
        inner = self.width - self.left - self.right, self.height - self.top - self.bottom
        place = ((x + self.left) / wide, (y + self.bottom) / high, inner[0] / wide, inner[1] / high)
        pen = Pen(figure.add_axes(place, facecolor="none"))
        self.draw(pen)
        if self.title:
            pen.axes.annotate(
                self.title, (0, 1), (-self.left + 8, self.top - 8), "axes fraction", "offset points",
                va="top", fontsize=TEXT, fontweight="bold", color=INK,
            )  # fmt: skip
        return pen


@dataclass(frozen=True)
class Mark:
    """A line of the legend. `shape` is line, dashes, band, or a marker; hollow where so drawn."""

    series: str
    label: str
    colour: str
    shape: str = "o"
    hollow: bool = False


@dataclass(frozen=True)
class Picture:
    """What is drawn, and the same numbers as CSV. `narrow`: the panels for a phone, where they differ."""

    name: str
    title: str
    caption: str
    panels: list[Panel]
    legend: list[Mark]
    numbers: str
    narrow: list[Panel] = field(default_factory=list)
    small: bool = False  # of a shortened run


def save(picture: Picture, folder: Path) -> list[Path]:
    """Write NAME.png, NAME.svg and NAME.csv."""
    paths = [folder / f"{picture.name}.{ending}" for ending in ("png", "svg", "csv")]
    drawn = [io.BytesIO(), io.BytesIO()]
    with matplotlib.rc_context(STYLE):
        figure = figure_of(picture)
        figure.savefig(drawn[0], format="png", dpi=2 * UNIT)
        figure.savefig(drawn[1], format="svg", metadata={"Date": None})
    for path, content in zip(paths, (*(each.getvalue() for each in drawn), picture.numbers), strict=True):
        write_whole(path, content)
    return paths


def figure_of(picture: Picture) -> Figure:
    """All panels side by side, the title and the caption above, the legend below."""
    width = max(LEAST_WIDTH, sum(panel.width for panel in picture.panels))
    letters = int((width - 16) / LETTER)
    title, caption = (
        textwrap.wrap(picture.title, int(0.85 * letters)),
        textwrap.wrap(picture.caption, letters),
    )
    columns = legend_columns(picture.legend, width)
    rows = -(-len(picture.legend) // columns)
    high = max(panel.height for panel in picture.panels)
    head, foot = ROW * (len(title) + len(caption)) + 14, ROW * rows + (10 if rows else 0)
    size = width / UNIT, (high + head + foot) / UNIT
    figure = Figure(figsize=size, facecolor="white")
    total = high + head + foot
    figure.text(
        8 / width, 1 - 8 / total, "\n".join(title), va="top", fontsize=13, fontweight="bold", linespacing=1.1
    )
    below = 1 - (12 + ROW * len(title)) / total
    figure.text(
        8 / width, below, "\n".join(caption), va="top", fontsize=TEXT - 1, color=GREY, linespacing=1.3
    )
    x = 0.0
    for panel in picture.panels:
        panel.draw_on(figure, x, foot + high - panel.height)
        x += panel.width
    if picture.legend:
        handles = [handle(mark) for mark in picture.legend]
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0, 0), ncols=columns, frameon=False,
                      fontsize=TEXT - 1, handlelength=1.6, columnspacing=1.4, handletextpad=0.5)  # fmt: skip
    return figure


def legend_columns(legend: list[Mark], width: int) -> int:
    """Return how many columns of the legend fit the width."""
    longest = max((len(mark.label) for mark in legend), default=0)
    return max(1, min(len(legend), int((width - 16) / (44 + LETTER * longest))))


def handle(mark: Mark) -> Artist:
    """Return Matplotlib's artist for a mark of the legend."""
    if mark.shape == "band":
        return Patch(facecolor=mark.colour, alpha=0.2, label=mark.label)
    if mark.shape in ("line", "dashes"):
        style = "-" if mark.shape == "line" else "--"
        return Line2D([], [], color=mark.colour, linewidth=1.5, linestyle=style, label=mark.label)
    face = "none" if mark.hollow else mark.colour
    return Line2D([], [], color=mark.colour, marker=mark.shape, markersize=6, linestyle="none",
                  markerfacecolor=face, label=mark.label)  # fmt: skip
