"""The scores behind a line of the report, one for each training seed."""

from lottalora.analysis.statistics import finite
from lottalora.report.blocks import Line


def scores_of(line: Line) -> list[float]:
    """The finite scores behind a line, in the unit of rows."""
    return finite(line.by_seed.values()).tolist()


def scores_by_seed(line: Line) -> dict[int, float]:
    """The same by seed."""
    return {seed: score for seed, score in line.by_seed.items() if len(finite([score]))}
