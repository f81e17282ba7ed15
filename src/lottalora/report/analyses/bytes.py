"""Score against shipped bytes: kept weights in every precision that an artifact may have."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from matplotlib.ticker import LogLocator
from matplotlib.ticker import NullLocator
from matplotlib.ticker import StrMethodFormatter
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch import nn

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.artifacts.weights import Kept
from lottalora.report.analyses.kept_runs import kept_lines
from lottalora.report.analyses.kept_runs import score_again
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.arms import line_name
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.names import block_names
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.palette import colour_of
from lottalora.report.pictures.palette import marker_of
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture
from lottalora.results.rows import Row
from lottalora.scaffold.artifact.precision import PRECISIONS
from lottalora.scaffold.artifact.precision import compressible
from lottalora.scaffold.artifact.precision import encode
from lottalora.scaffold.artifact.precision import in_precision
from lottalora.scaffold.artifact.saving import save as save_artifact
from lottalora.scaffold.layers.frozen import Frozen

HEADINGS = [*ARM, "seed", "precision", "file, bytes", "tensors alone", "score"]
NOTES = [
    "Matrices are in that precision with their scales; biases, norms and β, frozen biases among them, "
    "have 32 bits. File: of a scaffold the artifact without a stored probe, whose header says how to "
    "draw and check each W_seed; of a dense net the safetensors file of the same kind. Nothing was "
    "trained for a precision: the score is that of the decoded weights on the whole test part."
]
PUBLISHED = {  # data → (bytes, score, who): the best that we know of for so few bytes
    "mnist": (2000, 0.986, "Kilobyte Models, arXiv 2608.00860"),
}
MEASURED = ("seed", "precision", "file", "tensors", "score")
PUBLISHED_COLOUR = COLOURS[1]


@dataclass(frozen=True)
class Point:
    """One run in one precision."""

    line: Line
    seed: int
    precision: str
    file: int  # bytes
    tensors: int  # bytes, without the header
    score: float


def analyse(blocks: Iterable[Block], kept: Kept) -> Analysis:
    """Score every kept run in every precision."""
    tables, numbers = [], []
    for block, points in measured(blocks, kept):
        lines = [[*arm_cells(each.line), *cells(block, each)] for each in points]
        tables.append(Table(block.title, HEADINGS, len(ARM) + 2, lines, NOTES))
        numbers += [columns(block, each) for each in points]
    return Analysis("Score against shipped bytes", tables, numbers)


def measured(blocks: Iterable[Block], kept: Kept) -> list[tuple[Block, list[Point]]]:
    """The points of each block that has kept weights."""
    return [
        (block, [point for line, row in runs for point in points_of(line, row, kept)])
        for block, runs in kept_lines(blocks, kept)
    ]


def points_of(line: Line, row: Row, kept: Kept) -> list[Point]:
    """One run in every precision."""
    net, found = kept.net(row), []
    for precision in PRECISIONS:
        with in_precision(net, precision):
            score = score_again(net, kept, row)
        file, tensors = sizes(net, precision)
        found.append(Point(line, row["seed"], precision, file, tensors, score))
    return found


def sizes(net: nn.Module, precision: str) -> tuple[int, int]:
    """The bytes of the file that a net is shipped as, and of the tensors in it."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        if any(isinstance(module, Frozen) for module in net.modules()):
            save_artifact(net, path, precision=precision)
        else:
            save_file(dense_tensors(net, precision), path)
        with safe_open(path, "pt") as file:
            tensors = sum(each.numel() * each.element_size() for each in map(file.get_tensor, file.keys()))
        return path.stat().st_size, tensors


def dense_tensors(net: nn.Module, precision: str) -> dict[str, Tensor]:
    """The tensors of a dense net in a precision, as an artifact would hold them."""
    matrices = compressible(net) if precision != "fp32" else {}
    whole = {name: tensor for name, tensor in net.state_dict().items() if name not in matrices}
    encoded = [encode(name, matrix, precision)[0] for name, matrix in matrices.items()]
    return {name: each.contiguous() for part in (whole, *encoded) for name, each in part.items()}


def columns(block: Block, point: Point) -> dict:
    """The columns of a point in the CSV."""
    numbers = {key: getattr(point, key) for key in MEASURED}
    return arm_columns(block, point.line) | numbers


def cells(block: Block, point: Point) -> list[str]:
    """Format a point."""
    sizes = f"{point.file:,}", f"{point.tensors:,}"
    return [str(point.seed), point.precision, *sizes, block.metric.text(point.score)]


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """For each block: the score over the bytes of the file, a line through the precisions of each run."""
    blocks = list(blocks)
    names = block_names(blocks)
    drawn = [(block, points_again(block, found)) for block in blocks]
    return [picture_of(block, points, f"bytes_{names[id(block)]}") for block, points in drawn if points]


def points_again(block: Block, found: Analysis) -> list[Point]:
    """The points of a block, from the numbers of the analysis."""
    arms = {line_name(line): line for line in block.lines}
    numbers = [each for each in found.numbers if each["block"] == block.title and each["arm"] in arms]
    return [Point(arms[each["arm"]], *(each[key] for key in MEASURED)) for each in numbers]


def picture_of(block: Block, points: list[Point], name: str) -> Picture:
    """The picture of a block."""
    published = PUBLISHED.get(points[0].line.runs[0]["data"])
    arms = {}
    for point in points:
        arms.setdefault(point.line.label, point.line)
    legend = [Mark(label, label, colour_of(line), marker_of(line)) for label, line in arms.items()]
    caption = "each line: one run in fp32, bf16, fp16, int8 and int4, from right to left"
    if published is not None:
        legend.append(Mark("published", published[2], PUBLISHED_COLOUR, "*"))
    drawing = partial(draw, block=block, points=points, published=published)
    heading = f"test {block.metric.label} against bytes"
    panels = [Panel(drawing, width, height, title=heading) for width, height in ((560, 360), (360, 300))]
    numbers = csv_text([columns(block, point) for point in points])
    title = f"{block.pair_title}, {block.size}: score against shipped bytes"
    return Picture(name, title, caption, panels[:1], legend, numbers, narrow=panels[1:])


def draw(pen: Pen, *, block: Block, points: list[Point], published: tuple[int, float, str] | None) -> None:
    """Draw a line through the precisions of each run, and the published mark."""
    scale = block.metric.scale
    runs: dict[tuple[str, int], list[Point]] = {}
    for point in points:
        runs.setdefault((line_name(point.line), point.seed), []).append(point)
    for (name, seed), found in runs.items():
        sizes, scores = [each.file for each in found], [scale * each.score for each in found]
        line = found[0].line
        (artist,) = pen.axes.plot(
            sizes, scores, color=colour_of(line), marker=marker_of(line), markersize=5, linewidth=0.9
        )
        pen.note(artist, line.label, f"{name}, seed {seed}")
        if line.rank is not None:
            pen.axes.annotate(f"r {line.rank}", (sizes[0], scores[0]), (5, -3), textcoords="offset points")
    if published is not None:
        size, score, who = published
        (artist,) = pen.axes.plot([size], [scale * score], "*", color=PUBLISHED_COLOUR, markersize=11)
        pen.note(artist, "published", who)
    pen.axes.set_xscale("log")
    pen.axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    pen.axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    pen.axes.xaxis.set_minor_locator(NullLocator())
    pen.axes.set_xlabel("bytes of the file")
