"""The scores behind a line of the report, one for each seed."""

import math

from lottalora.report.blocks import Line


def scores_of(line: Line) -> list[float]:
    """The finite scores behind a line, in the unit of rows."""
    return [score for _, score in seeds_and_scores(line)]


def scores_by_seed(line: Line) -> dict[int, float]:
    """The same by seed."""
    return dict(seeds_and_scores(line))


def seeds_and_scores(line: Line) -> list[tuple[int, float]]:
    """Seed and score of every run behind a line whose score is finite."""
    removed = line.condition == "no_scaffold"
    runs = [row for row in line.runs if not removed or "scaffold_removed" in row["arms"]]
    scores = [(row["seed"], row["arms"]["scaffold_removed"] if removed else row["score"]) for row in runs]
    return [(seed, score) for seed, score in scores if score is not None and math.isfinite(score)]
