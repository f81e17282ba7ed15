"""β of each adapted matrix after training: how much of the random scaffold the model kept."""

from dataclasses import dataclass
from statistics import median
from statistics import quantiles

from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.csv_text import csv_text
from lottalora.report.main_blocks import is_shortened
from lottalora.report.main_blocks import leading_init
from lottalora.report.pictures.curves import MANY as MANY_ARMS
from lottalora.report.pictures.curves import has_single_runs
from lottalora.report.pictures.palette import GREY
from lottalora.report.pictures.palette import INK
from lottalora.report.pictures.palette import PAPER
from lottalora.report.pictures.palette import rank_colours
from lottalora.report.pictures.picture import LETTER
from lottalora.report.pictures.picture import Mark
from lottalora.report.pictures.picture import Panel
from lottalora.report.pictures.picture import Pen
from lottalora.report.pictures.picture import Picture
from lottalora.report.words import scaffold_words

ENOUGH = 5  # values, for a box of quartiles; fewer stay points
FEW = 10  # values of a layer, up to which each has a point of its own
MANY = 30  # layers; above it their names would hide each other, and only every so many is named
LANE = 6.5  # pixels of one rank within a layer's row


@dataclass(frozen=True)
class Arm:
    """The values of one arm: of one rank, α and set of options, over its seeds."""

    line: Line
    by_layer: dict[str, list[tuple[int, float]]]  # (seed, β)

    @property
    def name(self) -> str:
        options = self.line.options_text
        return f"r = {self.line.rank}" + (f", {options}" if options else "")


def arms_of(block: Block) -> list[Arm]:
    """The arms on the recipe's scaffold, each by itself; runs that diverged are left out."""
    init = leading_init(block)
    lines = [line for line in block.lines if line.condition == "scaffold" and line.own_rows and line.rank]
    arms = []
    for line in lines:
        if line.init != init or line.adapter:
            continue
        by_layer: dict[str, list[tuple[int, float]]] = {}
        for run in line.runs:
            for layer, value in {} if run["diverged"] else run["beta"].items():
                if value is not None:
                    by_layer.setdefault(layer, []).append((run["seed"], value))
        if by_layer:
            arms.append(Arm(line, by_layer))
    if len(arms) > MANY_ARMS:
        arms = [arm for arm in arms if not has_single_runs([arm.line])]
    return sorted(arms, key=lambda arm: (bool(arm.line.options), arm.line.rank))


def beta_picture(block: Block, name: str) -> Picture | None:
    """The picture of a block; None where no run has a β."""
    arms = arms_of(block)
    if not arms:
        return None
    layers = list(dict.fromkeys(layer for arm in arms for layer in arm.by_layer))
    row = min(max(16.0, LANE * len(arms) + 6), 64.0) if len(layers) <= MANY else 9.0
    height = int(10 + 46 + row * len(layers))
    left = int(20 + LETTER * max(map(len, layers)))

    def draw(pen: Pen) -> None:
        draw_betas(pen, arms, layers)

    panels = [Panel(draw, width, height, left=min(left, width // 2), top=10) for width in (560, 360)]
    colours = arm_colours(arms)
    legend = [Mark(arm.name, arm.name, colours[arm.name], "o", bool(arm.line.options)) for arm in arms]
    title = f"{block.pair_title}, {block.size}: β by layer"
    return Picture(name, title, caption(block, arms), panels[:1], legend, betas_csv(arms), narrow=panels[1:],
                   small=is_shortened(block))  # fmt: skip


def arm_colours(arms: list[Arm]) -> dict[str, str]:
    """A blue for each rank; grey for an arm with options."""
    blues = rank_colours([arm.line.rank for arm in arms if not arm.line.options])
    return {arm.name: GREY if arm.line.options else blues[arm.line.rank] for arm in arms}


def draw_betas(pen: Pen, arms: list[Arm], layers: list[str]) -> None:
    """Draw the β of every arm, layer by layer."""
    axes, colours = pen.axes, arm_colours(arms)
    lane = 0.8 / len(arms)
    for place, arm in enumerate(arms):
        heights = {
            layer: layers.index(layer) + lane * (place - (len(arms) - 1) / 2) for layer in arm.by_layer
        }
        for layer, values in arm.by_layer.items():
            draw_layer(pen, arm, layer, values, heights[layer], colours[arm.name])
        draw_medians(pen, arm, heights)
    axes.axvline(1.0, color=INK, linewidth=1.0, linestyle=":", zorder=0)
    pen.rules([place - 0.5 for place in range(1, len(layers))])
    step = -(-len(layers) // MANY)
    axes.set_yticks(range(0, len(layers), step), layers[::step], color=INK)
    axes.tick_params(axis="y", length=0)
    axes.set_ylim(len(layers) - 0.5, -0.5)  # from input to output
    axes.set_xlabel("β of the weights that are scored (starts at 1)")
    axes.margins(x=0.04)


def draw_layer(
    pen: Pen, arm: Arm, layer: str, values: list[tuple[int, float]], y: float, colour: str
) -> None:
    """The values of one layer: up to ten as points, and from five on their quartiles and median."""
    betas = [value for _, value in values]
    if len(betas) >= ENOUGH:
        low, middle, high = quantiles(betas, n=4, method="inclusive")
        box = pen.axes.plot([low, high], [y, y], color=colour, linewidth=5, alpha=0.35, solid_capstyle="butt")
        quartiles = f"{layer}, {arm.name}: median {middle:.3f}, quartiles {low:.3f} and {high:.3f}"
        pen.note(box[0], arm.name, quartiles if len(betas) > FEW else "")  # else the points say their values
    if len(betas) > FEW:
        return
    face = PAPER if arm.line.options else colour
    drawn = pen.axes.plot(
        betas, [y] * len(betas), "o", color=colour, markerfacecolor=face, markersize=3.6, zorder=3
    )
    listed = ", ".join(f"{value:.3f} (seed {seed})" for seed, value in values)
    pen.note(drawn[0], arm.name, f"{layer}, {arm.name}: β = {listed}")


def draw_medians(pen: Pen, arm: Arm, heights: dict[str, float]) -> None:
    """A stroke at the median of each layer that has quartiles."""
    boxed = {layer: values for layer, values in arm.by_layer.items() if len(values) >= ENOUGH}
    medians = [median(value for _, value in values) for values in boxed.values()]
    at = [heights[layer] for layer in boxed]
    pen.note(pen.axes.plot(medians, at, "|", color=INK, markersize=6, zorder=4)[0], arm.name)


def caption(block: Block, arms: list[Arm]) -> str:
    """Say what the points are, how many runs they come from and the range of β."""
    counts = {len(values) for arm in arms for values in arm.by_layer.values()}
    low, high = min(counts), max(counts)
    runs = f"n = {low}" + (f"–{high}" if high > low else "") + " runs"[: 5 if high > 1 else 4]
    boxes = (
        f"; from n = {ENOUGH} on, bars from quartile to quartile with the median" if high >= ENOUGH else ""
    )
    values = [value for arm in arms for each in arm.by_layer.values() for _, value in each]
    return (
        f"One point for each run and matrix, each rank by itself, {runs}{boxes}. "
        f"Scaffold: {scaffold_words(leading_init(block))}. "
        f"β starts at 1 (dotted); here it ends between {min(values):.2f} and {max(values):.2f}."
    )


def betas_csv(arms: list[Arm]) -> str:
    """Return every drawn β as CSV."""
    return csv_text(
        [
            {"arm": arm.name, "layer": layer, "rank": arm.line.rank, "alpha": arm.line.alpha, "seed": seed,
             "beta": beta, "median": median(value for _, value in values)}
            for arm in arms
            for layer, values in arm.by_layer.items()
            for seed, beta in values
        ]
    )  # fmt: skip
