"""r*(ε) of every task: the least rank within ε of full training, plain and as a share of the net."""

import math
from collections.abc import Iterable
from collections.abc import Mapping

from lottalora.analysis.least_rank import least_rank
from lottalora.analysis.result import Analysis
from lottalora.analysis.result import Table
from lottalora.report.blocks import Block
from lottalora.report.blocks import Line
from lottalora.report.main_blocks import leading_init
from lottalora.report.pictures.picture import Picture
from lottalora.report.pictures.spread import points_picture

MARGINS = (1, 2, 5)  # ε as multiples of the metric's margin, within which two means match
HEADINGS = ["task", "ε", "r*", "r* of each seed", "r* / d", "trained, % of full", "ranks tried"]


def analyse(blocks: Iterable[Block]) -> Analysis:
    """Find r*(ε) of every task; raise ValueError if no task has a rank curve."""
    lines, numbers, without = [], [], []
    for block in blocks:
        curve = curve_of(block)
        if not curve or block.metric.margin != block.metric.margin:
            continue
        if not block.baseline.scores.n:
            without.append(task_of(block))
            continue
        for times in MARGINS:
            found = number_line(block, curve, times * block.metric.margin)
            numbers.append(found)
            lines.append(cells(block, found))
    left_out = [f"Left out, since every run of full training diverged: {'; '.join(without)}."]
    if not numbers:
        raise ValueError(
            f"{left_out[0] if without else 'No task has full training and a scaffold under one recipe.'} "
            "Make them: python run.py -m mode=baseline,scaffold rank=1,2,4,8 seed=42,43,44"
        )
    notes = NOTES + (left_out if without else [])
    return Analysis("Least sufficient rank", [Table("r*(ε)", HEADINGS, 2, lines, notes)], numbers)


def pictures(blocks: Iterable[Block], found: Analysis) -> list[Picture]:
    """One picture: r* of every task that reaches it, for the least ε."""
    first = {line["block"]: line for line in reversed(found.numbers)}
    points = [
        (task_of(block), *(math.nan if line[key] is None else line[key] for key in PLACED))
        for block in blocks
        if (line := first.get(block.title)) and line["r_star"] is not None
    ]
    if not points:
        return []
    label = "r*: least rank within the metric's margin of full training"
    return [points_picture("least_rank", "Least sufficient rank of every task", CAPTION, label, points)]


PLACED = ("r_star", "seed_least", "seed_greatest")
CAPTION = "Dots: of the means; bars: from least to greatest over seeds. Tasks without r* are left out."


def curve_of(block: Block) -> dict[int, Line]:
    """The recipe's own scaffold by rank, with nothing changed; empty without full training."""
    if block.baseline is None:
        return {}
    init = leading_init(block)
    lines = [line for line in block.lines if line.condition == "scaffold" and line.init == init]
    return {line.rank: line for line in lines if line.rank and not line.adapter and not line.options}


NOTES = [
    "r*: of the means over seeds. r* of each seed: over the seeds that full training and every rank "
    "tried have, least to greatest, with n; a range and no confidence interval, since r* takes only the"
    " ranks that were run. “> r” means that no rank up to r came within ε. d: the smaller side of the "
    "largest adapted matrix."
]


def number_line(block: Block, curve: Mapping[int, Line], epsilon: float) -> dict:
    """Return r*(ε) of one task, over all seeds and for each seed."""
    up = {"higher_is_better": block.higher_is_better}
    means = {rank: line.scores.mean for rank, line in curve.items()}
    found = least_rank(means, block.baseline.scores.mean, epsilon, **up)
    scores = {rank: line.by_seed for rank, line in curve.items()}
    by_seed = [
        least_rank({rank: found[seed] for rank, found in scores.items()}, full, epsilon, **up)
        for seed, full in sorted(block.baseline.by_seed.items())
        if full is not None and all(found.get(seed) is not None for found in scores.values())
    ]
    d = smaller_side(next(iter(curve.values())))
    return {
        "block": block.title,
        "metric": block.metric.name,
        "epsilon": epsilon,
        "r_star": found,
        "greatest_rank": max(curve),
        "ranks": " ".join(map(str, sorted(curve))),
        "seeds": len(by_seed),
        "reached_by": sum(rank is not None for rank in by_seed),
        "seed_least": min((rank for rank in by_seed if rank is not None), default=None),
        "seed_greatest": None if None in by_seed else max(by_seed, default=None),
        "d": d,
        "r_star_over_d": found / d if found and d else None,
        "trained_over_full": found and curve[found].trainable / curve[found].full,
    }


def smaller_side(line: Line) -> int | None:
    """min(out, in) of the largest adapted matrix; None where rows hold no account."""
    shapes = [entry["shape"] for entry in line.runs[0]["account"] if entry["place"] == "adapt"]
    sides = [(shape[0], size_of(shape) // shape[0]) for shape in shapes]
    return min(max(sides, key=lambda side: side[0] * side[1])) if sides else None


def size_of(shape: Iterable[int]) -> int:
    """Return the product of the sides of a shape."""
    size = 1
    for side in shape:
        size *= side
    return size


def task_of(block: Block) -> str:
    """Name a task."""
    recipe = "" if block.recipe == "paper" else f", recipe {block.recipe}"
    metric = "" if block.own else f", {block.metric.of_part}"
    return f"{block.pair_title}, {block.size}{metric}{recipe}"


def cells(block: Block, found: Mapping) -> list[str]:
    """Format r*(ε) of one task."""
    beyond = f"> {found['greatest_rank']}"
    rank = beyond if found["r_star"] is None else str(found["r_star"])
    over_seeds = "–"
    if found["seeds"]:
        low = beyond if found["seed_least"] is None else str(found["seed_least"])
        high = beyond if found["seed_greatest"] is None else str(found["seed_greatest"])
        over_seeds = f"{low if low == high else f'{low} … {high}'} (n = {found['seeds']})"
    epsilon = f"{found['epsilon'] * block.metric.scale:.3g} {block.metric.unit}".strip()
    reached = found["r_star"] is not None and found["d"]
    return [
        task_of(block),
        epsilon,
        rank,
        over_seeds,
        f"{found['r_star_over_d']:.4f}" if reached else "–",
        f"{100 * found['trained_over_full']:.3g}" if found["r_star"] is not None else "–",
        found["ranks"],
    ]
