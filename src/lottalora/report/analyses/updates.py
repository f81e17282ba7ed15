"""What training added to each matrix: the update of full training, and adapters.

ΔW is W − W_start of full training, and (α/r) B A of a scaffold.
"""

import itertools
import math

import numpy as np
import torch
from scipy.linalg import svdvals
from torch import nn

from lottalora.analysis.result import Table
from lottalora.analysis.spectra import amplification
from lottalora.analysis.spectra import directions
from lottalora.analysis.spectra import energy
from lottalora.analysis.spectra import overlap
from lottalora.analysis.spectra import random_overlap
from lottalora.analysis.spectra import rank_for
from lottalora.analysis.spectra import stable_rank
from lottalora.analysis.spectra import truncated
from lottalora.artifacts.weights import START
from lottalora.artifacts.weights import Kept
from lottalora.report.analyses.kept_runs import score_again
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.results.rows import Row
from lottalora.scaffold.layers.layer import LottaLayer

RANKS = (1, 2, 4, 8, 16, 32)  # of truncations
Made = tuple[Table, list[dict]]  # a table and its numbers
Runs = list[tuple[Line, Row]]


def update_tables(block: Block, runs: Runs, kept: Kept) -> list[Made]:
    """All tables that the kept runs of a block allow."""
    full = [row for line, row in runs if line.condition == "full"]
    adapted = [row for line, row in runs if line.condition == "scaffold" and not line.adapter]
    made = []
    if full:
        made += [spectrum_table(block, full, kept), truncation_table(block, full, adapted, kept)]
    if adapted:
        made += [overlap_table(block, adapted, kept), amplification_table(block, adapted, kept)]
    return [each for each in made if each[0].lines]


def matrices(row: Row) -> list[str]:
    """The names of a dense net's matrices that a scaffold would adapt: all but those that it keeps."""
    kept_dense = row["config"]["model"]["keep"]
    return [
        entry["name"].removesuffix(".weight")
        for entry in row["account"]
        if not any(entry["name"].startswith(f"{name}.") for name in kept_dense)
    ]


def changes_of(row: Row, kept: Kept) -> dict[str, np.ndarray]:
    """ΔW of full training, by layer."""
    end, start = kept.state(row), kept.state(row, START)
    return {
        name: (end[f"{name}.weight"] - start[f"{name}.weight"]).flatten(1).double().numpy()
        for name in matrices(row)
        if f"{name}.weight" in end and end[f"{name}.weight"].dim() > 1
    }


def spectrum_table(block: Block, full: list[Row], kept: Kept) -> Made:
    """Singular values of full training's update, layer by layer."""
    numbers = []
    for row in full:
        for layer, change in changes_of(row, kept).items():
            s = svdvals(change)
            shares = {f"energy_r{rank}": energy(s, rank) for rank in RANKS}
            more = {"sigma_1": float(s[0]), "stable_rank": stable_rank(s), "rank_90": rank_for(s, 0.9)}
            numbers.append({"what": "full update", "seed": row["seed"], "layer": layer, **more, **shares})
    lines = [
        [
            str(each["seed"]),
            each["layer"],
            f"{each['sigma_1']:.2f}",
            f"{each['stable_rank']:.1f}",
            str(each["rank_90"]),
            *(f"{100 * each[f'energy_r{rank}']:.0f} %" for rank in RANKS),
        ]
        for each in numbers
    ]
    headings = ["seed", "layer", "σ₁", "stable rank", "rank of 90 %", *(f"in r = {rank}" for rank in RANKS)]
    notes = ["ΔW = W − W_start of full training. Shares of ‖ΔW‖²_F within its first singular values."]
    return Table(f"{block.title}: the update of full training", headings, 2, lines, notes), numbers


def truncation_table(block: Block, full: list[Row], adapted: list[Row], kept: Kept) -> Made:
    """The score of W_start + ΔW cut off at rank r, beside that of the scaffold trained at that rank."""
    numbers = []
    for row, rank in itertools.product(full, RANKS):
        ours = [each["score"] for each in adapted if (each["rank"], each["seed"]) == (rank, row["seed"])]
        numbers.append(
            {
                "what": "truncated",
                "seed": row["seed"],
                "rank": rank,
                "score": truncated_score(row, rank, kept),
                "scaffold": ours[0] if ours else math.nan,
                "full": row["score"],
            }
        )
    shown = [[str(each["seed"]), str(each["rank"])] for each in numbers]
    texts = [[block.metric.text(each[key]) for key in ("score", "scaffold", "full")] for each in numbers]
    lines = [first + rest for first, rest in zip(shown, texts, strict=True)]
    notes = [
        "Truncated: full training, whose ΔW of every matrix that a scaffold would adapt is replaced by the "
        "nearest one of rank r; head and biases as trained. Nothing is trained after the cut."
    ]
    headings = ["seed", "rank", "truncated", "scaffold", "full training"]
    return Table(f"{block.title}: full training cut off at rank r", headings, 1, lines, notes), numbers


def truncated_score(row: Row, rank: int, kept: Kept) -> float:
    """Score full training with ΔW of rank r."""
    net, start = kept.net(row), kept.state(row, START)
    weights = dict(net.named_parameters())
    with torch.no_grad():
        for layer, change in changes_of(row, kept).items():
            first, weight = start[f"{layer}.weight"], weights[f"{layer}.weight"]
            cut = torch.from_numpy(truncated(change, rank)).to(weight.dtype)
            weight.copy_(first + cut.view_as(first))
    return score_again(net, kept, row)


def adapters(net: nn.Module) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """β W_seed and (α/r) B A of each adapted layer, by name."""
    found = {}
    for name, layer in net.named_modules():
        if isinstance(layer, LottaLayer) and layer.A is not None and layer.B is not None:
            beta = 1.0 if layer.beta is None else layer.beta.item()
            update = layer.adapter.scale * (layer.B @ layer.A)
            found[name] = (beta * layer.W_seed.double().numpy(), update.detach().double().numpy())
    return found


def overlap_table(block: Block, adapted: list[Row], kept: Kept) -> Made:
    """Overlap of the input directions of adapters of two runs, beside that of random subspaces."""
    parts = {row["digest"]: adapters(kept.net(row)) for row in adapted}
    numbers = []
    for one, other in itertools.combinations(adapted, 2):
        if one["seed"] != other["seed"] and one["rank"] != other["rank"]:
            continue  # either rank or seed differs
        for layer, (_, update) in parts[one["digest"]].items():
            U = directions(update, one["rank"])
            V = directions(parts[other["digest"]][layer][1], other["rank"])
            chance = random_overlap(len(U), U.shape[1], V.shape[1])
            names = {"rank": one["rank"], "seed": one["seed"]}
            others = {"other_rank": other["rank"], "other_seed": other["seed"]}
            found = {"overlap": overlap(U, V), "random": chance}
            numbers.append({"what": "overlap", **names, **others, "layer": layer, **found})
    lines = [
        [
            f"r = {each['rank']}, seed {each['seed']}",
            f"r = {each['other_rank']}, seed {each['other_seed']}",
            each["layer"],
            f"{each['overlap']:.3f}",
            f"{each['random']:.3f}",
            f"{each['overlap'] / each['random']:.1f}",
        ]
        for each in numbers
    ]
    notes = [
        "φ of the first r right singular vectors of B A, 0 to 1 (Hu et al. 2021, Section 7.2); random: its "
        "mean for independent random subspaces, max(i, j) / d. Runs of different seeds have different "
        "scaffolds, so their hidden units have nothing in common: only the first layer reads the same "
        "in both, the data."
    ]
    headings = ["one", "other", "layer", "overlap", "random", "÷ random"]
    return Table(f"{block.title}: subspaces of adapters", headings, 3, lines, notes), numbers


def amplification_table(block: Block, adapted: list[Row], kept: Kept) -> Made:
    """How much adapters enlarge the directions that they act on."""
    numbers, generator = [], np.random.default_rng(0)
    for row in adapted:
        for layer, (W, update) in adapters(kept.net(row)).items():
            rank = min(row["rank"], *W.shape)
            left = generator.standard_normal((W.shape[0], rank))
            random = left @ generator.standard_normal((rank, W.shape[1]))
            random *= np.linalg.norm(update) / np.linalg.norm(random)
            names = {"rank": row["rank"], "seed": row["seed"], "layer": layer}
            found = {"norm": float(np.linalg.norm(update)), "amplification": amplification(W, update, rank)}
            found["random"] = amplification(W, random, rank)
            numbers.append({"what": "amplification", **names, **found})
    lines = [
        [
            str(each["seed"]),
            str(each["rank"]),
            each["layer"],
            f"{each['norm']:.2f}",
            f"{each['amplification']:.1f}",
            f"{each['random']:.1f}",
        ]
        for each in numbers
    ]
    notes = [
        "‖ΔW‖_F / ‖Uᵀ β W_seed V‖_F with the r singular vectors of ΔW = (α/r) B A (Hu et al. 2021, Section "
        "7.3); random: of a random matrix of that rank and norm. Below it, training acts where the scaffold "
        "is strong; above it, where it is weak."
    ]
    headings = ["seed", "rank", "layer", "‖ΔW‖_F", "amplification", "random"]
    return Table(f"{block.title}: amplification", headings, 3, lines, notes), numbers
