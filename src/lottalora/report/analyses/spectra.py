"""Spectra: σ₁ of W_seed by family and width, which needs no runs, and the tables of `update_tables`."""

from collections.abc import Iterable
from functools import cache
from functools import partial

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.analysis.spectra import largest_singular_value
from lottalora.analysis.spectra import predicted_singular_value
from lottalora.artifacts.weights import Kept
from lottalora.report.analyses.kept_runs import COMMAND
from lottalora.report.analyses.kept_runs import kept_lines
from lottalora.report.analyses.updates import update_tables
from lottalora.report.blocks import Block
from lottalora.report.csv_text import csv_text
from lottalora.report.pictures.palette import COLOURS
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture
from lottalora.report.words import scaffold_words
from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Source
from lottalora.scaffold import draw

WIDTHS = (64, 128, 256, 512)  # of square matrices
NOT_DRAWN = ("zeros", "learned")
SEED = 42
SEED_KEYS = ("what", "family", "d", "std", "sigma_1", "predicted")  # of a line on W_seed
SHOWN = (
    "normal",
    "uniform",
    "orthogonal",
    "kaiming_normal",
    "student_t",
    "cauchy",
    "binary",
)  # in the figure
NOTES = [
    "One square W_seed of each width under backbone seed 42, the family's default parameters. Predicted: "
    "2 √d σ with the standard deviation σ of the drawn entries, the limit for independent entries with a "
    "finite fourth moment. All singular values of orthogonal are 1, half of that; student_t (ν = 3) has no "
    "fourth moment, so its σ₁ lies above."
]


def analyse(blocks: Iterable[Block], kept: Kept) -> Analysis:
    """Tables of W_seed's spectra, and of the kept runs' where there are any."""
    found = seed_lines()
    headings = ["family", *(f"σ₁, d = {d}" for d in WIDTHS), *(f"÷ predicted, d = {d}" for d in WIDTHS)]
    by_family = {name: [each for each in found if each["family"] == name] for name in names()}
    lines = [
        [
            scaffold_words(name),
            *(f"{each['sigma_1']:.3f}" for each in members),
            *(f"{each['sigma_1'] / each['predicted']:.3f}" for each in members),
        ]
        for name, members in by_family.items()
    ]
    tables, numbers = [Table("σ₁ of W_seed", headings, 1, lines, NOTES)], list(found)
    try:
        runs = kept_lines(blocks, kept)
    except ValueError:
        tables[0].notes.append(f"Spectra of trained weights need runs that kept them: {COMMAND}")
        runs = []
    for block, members in runs:
        for table, more in update_tables(block, members, kept):
            tables.append(table)
            numbers += more
    columns = list(dict.fromkeys(key for line in numbers for key in line))
    return Analysis("Spectra", tables, [{key: line.get(key) for key in columns} for line in numbers])


def names() -> list[str]:
    """The families that W_seed can be drawn from."""
    return [name for name in FAMILIES if name not in NOT_DRAWN]


@cache
def seed_lines() -> list[dict]:
    """σ₁ and its prediction for every family and width."""
    return [seed_line(name, d) for name in names() for d in WIDTHS]


def seed_line(name: str, d: int) -> dict:
    """σ₁ of one square W_seed beside its prediction."""
    W = draw(Source(SEED, "layer", (d, d), name)).double().numpy()
    std = float(W.std())
    predicted = predicted_singular_value((d, d), std)
    sigma_1 = largest_singular_value(W)
    return {"what": "W_seed", "family": name, "d": d, "std": std, "sigma_1": sigma_1, "predicted": predicted}


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """σ₁ against the width, for some families, beside the prediction for standard deviation 1/√d."""
    shown = [{key: line[key] for key in SEED_KEYS} for line in found.numbers if line["family"] in SHOWN]
    colours = dict(zip(SHOWN, COLOURS * 2, strict=False))
    legend = [Mark(name, scaffold_words(name), colour, "line") for name, colour in colours.items()]
    legend.append(Mark("predicted", "2 √d σ with σ = 1/√d", GREY, "dashes"))
    caption = "one W_seed of each width, backbone seed 42, the family's default parameters"
    panel = Panel(partial(draw_seeds, found=shown), title="σ₁ of W_seed against d")
    title = "Spectral norm of the scaffold"
    return [Picture("spectra_W_seed", title, caption, [panel], legend, csv_text(shown))]


def draw_seeds(pen: Pen, *, found: list[dict]) -> None:
    """Draw one line a family."""
    for name, colour in zip(SHOWN, COLOURS * 2, strict=False):
        members = [each for each in found if each["family"] == name]
        (line,) = pen.axes.plot(
            [each["d"] for each in members], [each["sigma_1"] for each in members], color=colour, marker="o",
            markersize=3,
        )  # fmt: skip
        pen.note(line, name, scaffold_words(name))
    pen.axes.axhline(2, color=GREY, linestyle="--", linewidth=1)
    pen.axes.set_xscale("log", base=2)
    pen.axes.set_yscale("log", base=2)
    pen.axes.set_xlabel("d")
