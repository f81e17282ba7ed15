"""Scores as text: of a line, of its runs, and what they leave out."""

from lottalora.analysis.metrics import Metric
from lottalora.analysis.statistics import FEWEST
from lottalora.analysis.statistics import interval
from lottalora.report.blocks import Line
from lottalora.report.grouping import PRECISION
from lottalora.report.scores import scores_of


def line_text(line: Line, metric: Metric) -> str:
    """The scores of a line, and how many runs beside them diverged."""
    return runs_text(scores_of(line), metric, line.scores.diverged)


def named_text(line: Line, metric: Metric) -> str:
    """The same, with the precision where it is another one than the recipe's."""
    return line_text(line, metric) + precision_text(line)


def runs_text(scores: list[float], metric: Metric, diverged: int = 0) -> str:
    """Mean ± sample standard deviation from three runs on; below that the runs themselves."""
    made, lost = interval(scores), lost_text(diverged)
    if made.n < FEWEST:
        return f"{', '.join(map(metric.text, scores)) or '–'} (n = {made.n}{lost})"
    return f"{metric.text(made.mean)} ± {metric.text(made.std)} (n = {made.n}{lost})"


def lost_text(diverged: int) -> str:
    """Behind n: the runs that it leaves out; "" for none."""
    return f", {diverged} diverged" if diverged else ""


def precision_text(line: Line) -> str:
    """Name the precision, as in ", bf16-mixed", where the runs have another one than their recipe."""
    changed = line.runs[0]["changed"]
    return f", {changed[PRECISION]}" if PRECISION in changed else ""
