"""Seed gating: what each scaffold answers to each digit, from rows of mode=gated."""

from collections.abc import Iterable
from functools import partial

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.report.blocks import Block
from lottalora.report.csv_text import csv_text
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture
from lottalora.results.rows import Row

COMMAND = "python run.py -m sweeps=figure3"
OUTSIDE = 10


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Show what each scaffold answers; raise ValueError without a gated run."""
    runs = gated_runs(blocks)
    if not runs:
        raise ValueError(f"No finished run of seed gating. Make some: {COMMAND}")
    tables = [table for row in runs for table in tables_of(row)]
    return Analysis("Seed gating", tables, [line for row in runs for line in number_lines(row)])


def gated_runs(blocks: Iterable[Block]) -> list[Row]:
    """Return the rows of seed gating that did not diverge."""
    lines = [line for block in blocks if block.own for line in block.lines if line.condition == "gated"]
    return [row for line in lines for row in line.runs if not row["diverged"]]


def tables_of(row: Row) -> list[Table]:
    """Return a run's confusion tables, one for each scaffold."""
    groups = row["config"]["data"]["groups"]
    answers = [*range(10), *([OUTSIDE] if row["config"]["data"]["out_of_class"] else [])]
    names = ["outside" if answer == OUTSIDE else str(answer) for answer in answers]
    found = []
    for place, group in enumerate(groups, start=1):
        lines = []
        for digit in range(10):
            own = (
                "own"
                if digit in group
                else "of others"
                if any(digit in each for each in groups)
                else "untrained"
            )
            shares = [row["further"].get(f"answers.{place}.{digit}.{answer}", 0.0) for answer in answers]
            lines.append([str(digit), own, *(f"{100 * share:.1f}" if share else "" for share in shares)])
        title = f"{title_of(row)}: scaffold {place}, digits {said(group)}"
        found.append(Table(title, ["digit", "", *names], 2, lines, notes_of(row, place)))
    return found


def title_of(row: Row) -> str:
    """Name a run: model, size, rank, seed and kind of label."""
    label = "with an out-of-class label" if row["config"]["data"]["out_of_class"] else "ten classes"
    return f"{row['model']}, {row['size']}, r = {row['rank']}, seed {row['seed']}, {label}"


def notes_of(row: Row, place: int) -> list[str]:
    """Say how many of its own digits a scaffold names, and how many others it rejects."""
    own = 100 * row["further"][f"own.{place}"]
    words = f"Share of the test images of a digit, in %. Own digits named: {own:.1f} %."
    rejected = row["further"].get(f"rejected.{place}")
    if rejected is not None:
        words += f" Digits of other scaffolds put outside: {100 * rejected:.1f} %."
    return [words]


def number_lines(row: Row) -> list[dict]:
    """Return the run's shares as lines for CSV."""
    same = {key: row[key] for key in ("digest", "model", "size", "rank", "seed")}
    same["out_of_class"] = row["config"]["data"]["out_of_class"]
    found = []
    for name, value in row["further"].items():
        kind, scaffold, *rest = name.split(".")
        digit, answer = rest or (None, None)
        found.append(
            same | {"what": kind, "scaffold": scaffold, "digit": digit, "answer": answer, "share": value}
        )
    return found


def picture_of(row: Row) -> Picture:
    """A heat map for each scaffold: digits down, answers across."""
    groups = row["config"]["data"]["groups"]
    panels = [
        Panel(
            partial(draw, row=row, place=place),
            width=320,
            height=330,
            title=f"scaffold {place}: {said(group)}",
        )
        for place, group in enumerate(groups, start=1)
    ]
    caption = "digits of the test part downwards, answers to the right; the darker, the more often"
    return Picture(f"gating_{row['digest']}", title_of(row), caption, panels, [], csv_text(number_lines(row)))


def said(group: list[int]) -> str:
    """List digits in words."""
    return ", ".join(map(str, group))


def draw(pen: Pen, *, row: Row, place: int) -> None:
    """Draw one scaffold's confusion matrix as a heat map."""
    width = 10 + row["config"]["data"]["out_of_class"]
    shares = [
        [row["further"].get(f"answers.{place}.{digit}.{answer}", 0.0) for answer in range(width)]
        for digit in range(10)
    ]
    pen.axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, aspect="auto")
    pen.axes.set_xticks(range(width), [*map(str, range(10)), "out"][:width])
    pen.axes.set_yticks(range(10))


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """Return one picture for each run."""
    return [picture_of(row) for row in gated_runs(blocks)]
