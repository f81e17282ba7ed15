"""Numbers as text, the same in every table and on every page: shares, intervals, differences, p-values."""

from lottalora.analysis.metrics import Metric
from lottalora.analysis.statistics import Interval
from lottalora.report.csv_text import is_nan

LEAST_SHOWN = 0.001  # of a p-value
NONE = "–"  # in place of a number that does not exist


def percent(value: float) -> str:
    """Format a percentage."""
    return NONE if is_nan(value) else f"{value:.1f}"


def share(value: float) -> str:
    """A share of parameters in percent, with three digits however small it is, and whole ones from 100 on."""
    return f"{value:,.0f}" if value >= 99.95 else f"{value:#.3g}"


def with_interval(scores: Interval, metric: Metric) -> str:
    """mean ± std [low, high], as far as n allows."""
    spread = "" if is_nan(scores.std) else f" ± {metric.text(scores.std)}"
    interval = "" if is_nan(scores.low) else f" {limits(scores, metric)}"
    return f"{metric.text(scores.mean)}{spread}{interval}"


def limits(scores: Interval, metric: Metric) -> str:
    """Format an interval."""
    return NONE if is_nan(scores.low) else f"[{metric.text(scores.low)}, {metric.text(scores.high)}]"


def signed(value: float, metric: Metric) -> str:
    """Format a difference of scores with its sign."""
    return NONE if is_nan(value) else f"{value * metric.scale:+.{metric.decimals}f}".replace("-", "−")


def margin_text(metric: Metric) -> str:
    """Format the metric's margin with its unit; a difference of percentages is in points."""
    return f"{metric.agrees:g} points" if metric.unit == "%" else f"{metric.agrees:g} {metric.unit}".strip()


def p_text(p: float) -> str:
    """Format a p-value."""
    if is_nan(p):
        return NONE
    return f"< {LEAST_SHOWN}" if p < LEAST_SHOWN else f"{p:.3f}"
