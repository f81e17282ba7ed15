"""Ranks that differ from matrix to matrix, with as many trained weights as one rank for all."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

import torch
from torch import Tensor
from torch import nn

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.drawing.draw import draw
from lottalora.scaffold.layers.compose import PREFIX
from lottalora.scaffold.layers.composed_weight import LottaWeight
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.wrapping.matrices import dotted
from lottalora.scaffold.wrapping.wrap import wrap

SHARES = ("first", "last", "spectral")
HALVINGS = 60  # of the interval in which the common factor lies


def share_ranks(
    model: nn.Module,
    scaffold: Scaffold,
    by: str,
    *,
    keep: Sequence[str | type[nn.Module]] = (),
    freeze: Sequence[str | type[nn.Module]] = (),
    compose: Sequence[str | type[nn.Module]] = (),
) -> dict[str, int]:
    r"""Share out the adapter weights of one rank for all: r_i ∝ w_i, at a Σ r_i (out_i + in_i) no larger.

    Every matrix keeps at least rank 1 and gets at most min(out, in). What rounding leaves over goes to the
    matrices that it cost most.

    Args:
        model: the plain model; it is not changed.
        scaffold: its settings; r (out + in), summed over the adapted matrices, is the budget.
        by: w_i. "first": n − i for the i-th of n adapted matrices, from 0, in order. "last": i + 1.
            "spectral": the spectral norm of its W_seed, ‖W_seed‖₂; draws every W_seed once.
        keep: as in `wrap`.
        freeze: as in `wrap`.
        compose: as in `wrap`.

    Returns:
        Name of each adapted matrix → its rank, for `Scaffold(ranks=…)`.

    Raises:
        ValueError: `by` is none of these, the rank is 0, or `wrap` refuses the model.
    """
    if by not in SHARES:
        raise ValueError(f"by must be one of {', '.join(SHARES)}, got {by!r}.")
    if scaffold.rank == 0:
        raise ValueError(f"A rank of 0 has no weights to share out by {by!r}: take a rank of 1 or more.")
    trial = copy.deepcopy(model)
    trial = trial if scaffold.family == LEARNED else trial.to("meta")  # nothing is drawn there
    account = wrap(trial, replace(scaffold, ranks={}), keep=keep, freeze=freeze, compose=compose)
    layers = {matrix_name(name): layer for name, layer in scaffold_layers(trial).items()}
    names = [entry.name for entry in account.entries if entry.place == "adapt"]
    adapted = [cast(LottaLayer, layers[name]) for name in names]
    if by == "spectral":
        wanted = [spectral_norm(layer) for layer in adapted]
    else:
        wanted = [float(len(names) - place if by == "first" else place + 1) for place in range(len(names))]
    costs = [
        sum(cast(Tensor, part).numel() for part in (layer.A, layer.B)) // scaffold.rank for layer in adapted
    ]
    largest = [min(_matrices(layer.W_seed, layer).shape[1:]) for layer in adapted]
    return dict(zip(names, fitted(wanted, costs, largest, scaffold.rank), strict=True))


def matrix_name(layer: str) -> str:
    """The name that a matrix had before it was wrapped, from that of the layer that holds it now."""
    owner, _, last = layer.rpartition(".")
    return dotted(owner, last.removeprefix(PREFIX)) if last.startswith(PREFIX) else dotted(layer, "weight")


def spectral_norm(layer: LottaLayer) -> float:
    """‖W_seed‖₂, the largest singular value; the largest of all in a stack of matrices.

    Raises:
        ValueError: it is 0.
    """
    with torch.device("cpu"):
        W_seed = draw(layer.source) if layer.source else layer.W_seed.float()
        norm = float(torch.linalg.matrix_norm(_matrices(W_seed, layer), 2).max())
    if norm == 0:
        raise ValueError("Ranks cannot be shared out by the spectral norm of a W_seed of zeros.")
    return norm


def _matrices(W_seed: Tensor, layer: LottaLayer) -> Tensor:
    """The matrices that are stacked in the W_seed of a layer, (E, out, in); one if it is no stack."""
    E = layer.layout.stack if isinstance(layer, LottaWeight) else 1
    matrices: Tensor = W_seed.unflatten(0, (E, -1))
    return matrices


def fitted(wanted: Sequence[float], costs: Sequence[int], largest: Sequence[int], rank: int) -> list[int]:
    """Whole ranks near c · wanted, for the largest c at which they cost no more than `rank` for all does.

    Args:
        wanted: w of each matrix.
        costs: trained weights of one rank more.
        largest: the rank from which on more would add nothing.
        rank: of all matrices, where the budget is spread evenly.
    """
    budget = rank * sum(costs)

    def ranks_at(factor: float) -> list[int]:
        return [min(max(1, int(factor * w)), most) for w, most in zip(wanted, largest, strict=True)]

    def cost(ranks: Sequence[int]) -> int:
        return sum(rank * each for rank, each in zip(ranks, costs, strict=True))

    low, high = 0.0, budget / min(wanted)
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if cost(ranks_at(middle)) <= budget else (low, middle)
    ranks = ranks_at(low)
    left = budget - cost(ranks)
    for place in sorted(range(len(ranks)), key=lambda place: ranks[place] - low * wanted[place]):
        if costs[place] <= left and ranks[place] < largest[place]:
            ranks[place] += 1
            left -= costs[place]
    return ranks
