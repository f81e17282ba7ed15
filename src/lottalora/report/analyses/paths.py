"""How much of each layer's output comes from its frozen path, on test data, and the score with β = 0."""

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.artifacts.weights import Kept
from lottalora.report.analyses.kept_runs import beta_zero
from lottalora.report.analyses.kept_runs import first_examples
from lottalora.report.analyses.kept_runs import kept_lines
from lottalora.report.analyses.kept_runs import score_again
from lottalora.report.analyses.kept_runs import seen_by_layers
from lottalora.report.analyses.least_rank import task_of
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.names import plain_name
from lottalora.report.pictures.layers import layer_pictures
from lottalora.report.pictures.picture import Picture
from lottalora.results.rows import Row
from lottalora.scaffold.layers.linear import LottaLinear

HEADINGS = [*ARM, "seed", "layer", "β", "‖β W_seed x‖ / ‖s B A x‖", "frozen share", "score", "with β = 0"]
NOTES = [
    "Norms are root mean squares over the first 1,000 test examples and the layer's outputs. Frozen share: "
    "‖β W_seed x‖² as a share of the sum of both squares. Layers whose weight is read and not called, as in "
    "CfC, and convolutions are left out. β = 0: of every layer at once, on the whole test part."
]


def analyse(blocks: Iterable[Block], kept: Kept) -> Analysis:
    """Compare the two paths of every kept run with a scaffold and adapters."""
    tables, numbers = [], []
    for block, runs in kept_lines(blocks, kept):
        found = [each for line, row in runs if row["beta"] for each in layers_of(block, line, row, kept)]
        if found:
            lines = [[*arm_cells(each.pop("line")), *cells(block, each)] for each in found]
            tables.append(Table(block.title, HEADINGS, len(ARM) + 2, lines, NOTES))
            numbers += found
    if not tables:
        raise ValueError(
            "No kept run has a scaffold with β. Make one: python run.py mode=scaffold keep_weights=true"
        )
    return Analysis("Frozen path and adapter path", tables, numbers)


def layers_of(block: Block, line: Line, row: Row, kept: Kept) -> list[dict]:
    """One entry for each adapted layer of a run."""
    net, found = kept.net(row), []

    def note(name: str, layer: nn.Module, x: Tensor, _: Tensor) -> None:
        if isinstance(layer, LottaLinear) and layer.A is not None and layer.beta is not None:
            found.append((name, layer, *norms(layer, x)))

    seen_by_layers(net, first_examples(kept, row), note)
    score = score_again(net, kept, row)
    with beta_zero(net):
        without = score_again(net, kept, row)
    return [
        {
            "line": line,
            **arm_columns(block, line),
            "name": plain_name(block),
            "task": task_of(block),
            "seed": row["seed"],
            "layer": name,
            "beta": layer.beta.item(),
            "ratio": frozen / update if update else np.nan,
            "frozen_share": frozen**2 / (frozen**2 + update**2),
            "score": score,
            "score_beta_0": without,
        }
        for name, layer, frozen, update in found
    ]


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """For each block: the frozen path's share of every layer's output, a curve an arm."""
    words = {"title": "frozen path and adapter path", "caption": CAPTION, "label": "share of the frozen path"}
    return layer_pictures(found.numbers, "paths", "frozen_share", **words)


CAPTION = "‖β W_seed x‖² as a share of the squares of both paths, on test data; mean over seeds"


@torch.no_grad()
def norms(layer: LottaLinear, x: Tensor) -> tuple[float, float]:
    """The root mean squares of β W_seed x and of s B A x."""
    frozen = layer.beta * F.linear(x, layer.W_seed)  # (*, in) → (*, out)
    update = layer.adapter.scale * F.linear(F.linear(x, layer.A), layer.B)
    return tuple(float(each.double().square().mean().sqrt()) for each in (frozen, update))


def cells(block: Block, found: dict) -> list[str]:
    """Format one layer."""
    ratio = found["ratio"]
    return [
        str(found["seed"]),
        found["layer"],
        f"{found['beta']:.3f}",
        "–" if np.isnan(ratio) else f"{ratio:.2f}",
        f"{100 * found['frozen_share']:.0f} %",
        block.metric.text(found["score"]),
        block.metric.text(found["score_beta_0"]),
    ]
