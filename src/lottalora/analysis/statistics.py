"""Intervals, tests and power for scores over seeds. The mathematics is scipy's and statsmodels'.

A score is None or NaN where the run diverged: it is counted and left out of every number. Nothing is stated
from fewer than `FEWEST` runs.
"""

import math
from collections.abc import Iterable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.power import TTestPower

FEWEST = 3  # runs, for an interval or a test
FEWEST_BOOTSTRAP = 20  # runs; BCa covers 92.7 % of 2,000 normal samples of 20 (Student's t: 95.4 %)
RESAMPLES = 9999
CONFIDENCE = 0.95
LEVEL = 0.05  # of every test
POWER = 0.8  # asked of an experiment
DIGITS = 6  # after the point, of a difference: scores were computed in float32, which tells equal ones apart


@dataclass(frozen=True)
class Interval:
    """Mean over runs and its 95 % interval; NaN where there is none, and `method` then says why."""

    n: int  # runs with a finite score
    mean: float
    std: float  # of the sample; NaN for n < 2
    low: float
    high: float
    method: str
    diverged: int  # runs without a finite score; in neither n nor the mean


def interval(scores: Iterable[float | None]) -> Interval:
    """Student's t from n = 3, BCa bootstrap (9,999 resamples, always the same ones) from n = 20."""
    scores = list(scores)
    values = finite(scores)
    n = len(values)
    low, high, method = bounds(values)
    mean = float(np.mean(values)) if n else math.nan
    std = float(np.std(values, ddof=1)) if n > 1 else math.nan
    return Interval(n, mean, std, low, high, method, len(scores) - n)


def bounds(values: np.ndarray) -> tuple[float, float, str]:
    """Return the 95 % interval of the mean of `values`, (n,), and which method gave it."""
    n = len(values)
    if n < FEWEST:
        return math.nan, math.nan, f"none: n = {n}, needs {FEWEST}"
    if np.ptp(values) == 0:
        return math.nan, math.nan, f"none: all {n} scores are equal"
    if n < FEWEST_BOOTSTRAP:
        low, high = students_t(values)
        return float(low), float(high), "Student's t"
    found = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="BCa",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high), "BCa bootstrap"


def students_t(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The interval of the mean of each sample; samples lie along the last axis."""
    mean, error = np.mean(values, axis=-1), stats.sem(values, axis=-1)
    return stats.t.interval(CONFIDENCE, values.shape[-1] - 1, loc=mean, scale=error)


@dataclass(frozen=True)
class Paired:
    """First minus second over the seeds that both arms have; p-values are NaN where there is no test."""

    difference: Interval  # of the means, over pairs; `diverged` counts pairs with a diverged run
    first: float  # mean over the same pairs; NaN where no pair has two finite scores
    second: float
    p: float  # paired t-test, two-sided
    wilcoxon_p: float  # signed-rank test, two-sided
    wilcoxon_least_p: float  # what it gives at best with so many pairs that differ: 0.0625 for 5
    cohen_d: float  # mean over standard deviation of the differences
    ties: int  # pairs with equal scores
    unpaired: int  # seeds that only one arm has


def paired(
    first: Mapping[int, float | None],
    second: Mapping[int, float | None],
    names: tuple[str, str] = ("the first arm", "the second arm"),
) -> Paired:
    """Compare two arms over their common seeds.

    Args:
        first: score by seed; None for a run that diverged.
        second: likewise.
        names: of the arms, for the error.

    Raises:
        ValueError: the arms have no seed in common.
    """
    pairs = common(first, second, names)
    differences = [differ(one, other) for one, other in pairs]
    found = interval(differences)
    values = finite(differences)
    both = [pair for pair, each in zip(pairs, differences, strict=True) if math.isfinite(each)]
    first_mean, second_mean = np.mean(both, axis=0).tolist() if both else (math.nan, math.nan)
    nonzero = values[values != 0]
    p = wilcoxon_p = cohen_d = math.nan
    if found.n >= FEWEST and np.ptp(values) > 0:
        p = float(stats.ttest_1samp(values, 0.0).pvalue)
        cohen_d = found.mean / found.std
    if found.n >= FEWEST and len(nonzero):
        wilcoxon_p = float(stats.wilcoxon(values).pvalue)
    return Paired(
        difference=found,
        first=first_mean,
        second=second_mean,
        p=p,
        wilcoxon_p=wilcoxon_p,
        wilcoxon_least_p=least_wilcoxon_p(len(nonzero)),
        cohen_d=cohen_d,
        ties=len(values) - len(nonzero),
        unpaired=len(first.keys() ^ second.keys()),
    )


def common(
    first: Mapping[int, float | None], second: Mapping[int, float | None], names: tuple[str, str]
) -> list[tuple[float | None, float | None]]:
    """The scores of each seed that both have."""
    seeds = sorted(first.keys() & second.keys())
    if not seeds:
        one, other = (", ".join(str(seed) for seed in sorted(arm)) or "none" for arm in (first, second))
        raise ValueError(
            f"{names[0]} and {names[1]} have no seed in common: {one} against {other}. "
            "Run both with the same seed=."
        )
    return [(first[seed], second[seed]) for seed in seeds]


def least_wilcoxon_p(n: int) -> float:
    """The signed-rank test's p-value where all of n pairs differ in the same direction."""
    return float(stats.wilcoxon(np.arange(1.0, n + 1)).pvalue) if n >= FEWEST else math.nan


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's adjusted p-values over one table; NaN, where there was no test, stays and does not count."""
    adjusted = np.array(p_values, dtype=float)
    tested = np.isfinite(adjusted)
    if tested.any():
        adjusted[tested] = multipletests(adjusted[tested], method="holm")[1]
    return adjusted.tolist()


def power(effect: float, n: int) -> float:
    """The chance that a paired t-test over n seeds finds an effect of this Cohen's d at 5 %, two-sided."""
    if n < FEWEST or math.isnan(effect):
        return math.nan
    found = float(TTestPower().power(abs(effect), n, LEVEL))
    if math.isnan(found):  # scipy's noncentral t fails for some large effects; the same test as t² = F
        found = float(stats.ncf.sf(stats.f.isf(LEVEL, 1, n - 1), 1, n - 1, n * effect**2))
    return found


def seeds_needed(effect: float) -> int | None:
    """The n with which a paired t-test finds an effect of this Cohen's d with 80 % power; None for d = 0."""
    if math.isnan(effect) or effect == 0:
        return None
    if power(effect, FEWEST) >= POWER:
        return FEWEST
    return math.ceil(TTestPower().solve_power(abs(effect), power=POWER, alpha=LEVEL))


def differ(one: float | None, other: float | None) -> float:
    """Return one − other, or NaN where either is None."""
    return math.nan if one is None or other is None else round(one - other, DIGITS)


def finite(scores: Iterable[float | None]) -> np.ndarray:
    """Return the finite scores, (n,); None, NaN and infinities are left out."""
    return np.array([score for score in scores if score is not None and math.isfinite(score)], dtype=float)
