"""Linear CKA of every layer between full training and each arm, with a random net as control."""

import math
from collections.abc import Iterable

import numpy as np
from torch import Tensor
from torch import nn

from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.analysis.similarity import linear_cka
from lottalora.artifacts.weights import Kept
from lottalora.report.analyses.kept_runs import COMMAND
from lottalora.report.analyses.kept_runs import first_examples
from lottalora.report.analyses.kept_runs import kept_lines
from lottalora.report.analyses.kept_runs import seen_by_layers
from lottalora.report.analyses.least_rank import task_of
from lottalora.report.arms import ARM
from lottalora.report.arms import arm_cells
from lottalora.report.arms import arm_columns
from lottalora.report.arms import line_name
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.names import plain_name
from lottalora.report.pictures.layers import layer_pictures
from lottalora.report.pictures.picture import Picture
from lottalora.results.rows import Row

HEADINGS = [*ARM, "seed", "against"]
RANDOM = "untrained net"
NOTES = [
    "Linear CKA of each layer's outputs on the first 1,000 test examples: 1 for nets that see them alike up "
    "to rotation and scale. Against full training of the same seed; full training against another seed's is "
    "what two trainings share, and the untrained dense net (its start under another seed) is the floor."
]
UNTRAINED_SEED = 1_000_003  # of the control; no run's


def analyse(blocks: Iterable[Block], kept: Kept) -> Analysis:
    """Compare the activations of every kept arm with those of full training."""
    tables, numbers = [], []
    for block, runs in kept_lines(blocks, kept):
        found = compared(runs, kept)
        if not found:
            continue
        layers = list(dict.fromkeys(layer for _, _, _, values in found for layer in values))
        lines = []
        for line, seed, against, values in found:
            named = arm_cells(line) if line else [RANDOM, "–", "–"]
            lines.append([*named, str(seed), against, *(text(values.get(layer)) for layer in layers)])
            same = arm_columns(block, line) if line else arm_columns(block, runs[0][0]) | NO_ARM
            same |= {"arm": curve_name(line), "name": plain_name(block), "task": task_of(block)}
            numbers += [
                same | {"seed": seed, "against": against, "layer": layer, "cka": value}
                for layer, value in values.items()
            ]
        tables.append(Table(block.title, [*HEADINGS, *layers], len(HEADINGS), lines, NOTES))
    if not tables:
        raise ValueError(f"Similarity is to full training, and no kept run is one. Make some: {COMMAND}")
    return Analysis("Similarity to full training", tables, numbers)


NO_ARM = {"condition": "untrained", "adapter": "", "init": "", "options": "", "rank": None}


def compared(
    runs: list[tuple[Line, Row]], kept: Kept
) -> list[tuple[Line | None, int, str, dict[str, float]]]:
    """Line, seed, what it is compared with, and CKA by layer; None for the untrained net's line."""
    full = {row["seed"]: (line, row) for line, row in runs if line.condition == "full"}
    if not full:
        return []
    example = first_examples(kept, next(iter(full.values()))[1])
    seen = {seed: activations(kept.net(row), example) for seed, (_, row) in full.items()}
    found = []
    for line, row in runs:
        if line.condition != "full" and row["seed"] in full:
            mine = activations(kept.net(row), example)
            found.append((line, row["seed"], f"full, seed {row['seed']}", alike(mine, seen[row["seed"]])))
    seeds = sorted(full)
    for one, other in zip(seeds, seeds[1:], strict=False):
        found.append((full[one][0], one, f"full, seed {other}", alike(seen[one], seen[other])))
    for seed, (_, row) in full.items():
        floor = activations(kept.fresh(row, UNTRAINED_SEED), example)
        found.append((None, seed, f"full, seed {seed}", alike(floor, seen[seed])))
    return found


def activations(net: nn.Module, example: object) -> dict[str, np.ndarray]:
    """The outputs of every layer that is called, (N, features)."""
    found = {}

    def note(name: str, _: nn.Module, __: Tensor, output: Tensor) -> None:
        found[name] = output.detach().flatten(1).float().numpy()

    seen_by_layers(net, example, note)
    return found


def alike(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """CKA of the layers that both nets have."""
    return {layer: linear_cka(one[layer], other[layer]) for layer in one if layer in other}


def text(value: float | None) -> str:
    """Format a similarity."""
    return "–" if value is None or math.isnan(value) else f"{value:.3f}"


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """For each block: CKA against depth, a curve an arm."""
    words = {"title": "similarity to full training", "caption": CAPTION, "label": "linear CKA"}
    return layer_pictures(found.numbers, "similarity", "cka", **words)


CAPTION = "similarity of each layer's outputs to those of full training, on test data; mean over seeds"


def curve_name(line: Line | None) -> str:
    """Name a curve of the figure."""
    if line is None:
        return RANDOM
    return "full, another seed" if line.condition == "full" else line_name(line)
