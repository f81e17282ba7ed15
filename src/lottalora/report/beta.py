"""β of each adapted matrix after training, by layer: how much of the random scaffold the model kept."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

from lottalora.report.blocks import Block
from lottalora.report.csv_text import csv_text
from lottalora.report.figures import COLOURS
from lottalora.report.figures import GREY
from lottalora.report.figures import STYLE
from lottalora.report.figures import add_title
from lottalora.report.figures import save


@dataclass(frozen=True)
class Beta:
    run: str  # its digest
    layer: str
    init: str
    rank: int
    seed: int
    value: float


def betas_of(block: Block) -> list[Beta]:
    """β of the scaffold runs with adapters, by layer; runs that diverged are left out."""
    lines = [line for line in block.lines if line.condition == "scaffold" and line.own_rows]
    runs = [run for line in lines if line.rank for run in line.runs if not run["diverged"]]
    return [
        Beta(run["digest"], layer, run["init"], run["rank"], run["seed"], value)
        for run in runs
        for layer, value in run["beta"].items()
        if value is not None
    ]


def draw_beta(block: Block, name: str, folder: Path) -> list[Path]:
    """Write NAME.png, NAME.svg and NAME.csv, one line for each β; nothing without scaffold runs."""
    betas = betas_of(block)
    if not betas:
        return []
    with matplotlib.rc_context(STYLE):
        return save(beta_figure(block, betas), csv_text([vars(beta) for beta in betas]), folder / name)


def beta_figure(block: Block, betas: list[Beta]) -> Figure:
    by_layer: dict[str, list[float]] = {}
    for beta in betas:
        by_layer.setdefault(beta.layer, []).append(beta.value)
    figure = Figure(figsize=(7.2, 1.6 + 0.2 * len(by_layer)), layout="constrained")
    axes = figure.add_subplot()
    axes.boxplot(list(by_layer.values()), tick_labels=list(by_layer), orientation="horizontal",
                 patch_artist=True, boxprops={"facecolor": COLOURS[0], "alpha": 0.5},
                 medianprops={"color": "black"}, flierprops={"markersize": 3})  # fmt: skip
    axes.axvline(1.0, color=GREY, linewidth=1.0, linestyle=":")
    axes.invert_yaxis()  # from input to output
    axes.set_xlabel("β of the weights that are scored (starts at 1)")
    add_title(axes, block.name, beta_caption(betas))
    return figure


def beta_caption(betas: list[Beta]) -> str:
    ranks = sorted({beta.rank for beta in betas})
    runs = len({beta.run for beta in betas})
    ranks_said = f"rank{'s' if len(ranks) > 1 else ''} {', '.join(map(str, ranks))}"
    runs_said = f"n = {runs} run{'s' if runs > 1 else ''}"
    return f"box: median and quartiles, whiskers 1.5 × IQR; {runs_said}, {ranks_said}"
