"""Test whether two means match to within a stated margin: two one-sided t-tests (TOST)."""

import math
from collections.abc import Iterable
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.weightstats import ttost_paired

from lottalora.analysis.statistics import FEWEST
from lottalora.analysis.statistics import LEVEL
from lottalora.analysis.statistics import common
from lottalora.analysis.statistics import finite
from lottalora.analysis.statistics import paired


@dataclass(frozen=True)
class Equivalence:
    """Do two means match to within a margin? Two one-sided t-tests (TOST) at 5 %."""

    n: int  # pairs, or runs beside a published mean
    difference: float  # ours minus theirs
    margin: float
    p: float  # that the difference is the margin or more; NaN where there is no test
    difference_p: float  # that there is no difference, two-sided, from the same kind of test

    @property
    def verdict(self) -> str:
        """Agrees, above, below or undecided; without a test, on which side of the margin the mean is.

        The four outcomes of Lakens et al. 2018: equivalent; or else different; or neither was shown.
        """
        if math.isnan(self.difference) or math.isnan(self.margin):
            return ""
        if math.isnan(self.p):
            side = "within" if abs(self.difference) <= self.margin else "outside"
            return f"{side} the margin (n = {self.n}, untested)"
        if self.p < LEVEL:
            return "agrees"
        if self.difference_p < LEVEL:
            return "above" if self.difference > 0 else "below"
        return "undecided"


def paired_equivalence(
    first: Mapping[int, float | None],
    second: Mapping[int, float | None],
    margin: float,
    names: tuple[str, str] = ("the first arm", "the second arm"),
) -> Equivalence:
    """TOST over the common seeds of two arms; arguments and errors as of `paired`."""
    found = paired(first, second, names)
    p = math.nan
    if not math.isnan(found.p) and not math.isnan(margin):
        pairs = [pair for pair in common(first, second, names) if len(finite(pair)) == len(pair)]
        ours, theirs = np.array(pairs, dtype=float).T
        p = float(ttost_paired(ours, theirs, -margin, margin)[0])
    return Equivalence(found.difference.n, found.difference.mean, margin, p, found.p)


def published_equivalence(
    scores: Iterable[float | None],
    mean: float,
    margin: float,
    std: float = math.nan,
    n: int | None = None,
    *,
    exact: bool = True,
) -> Equivalence:
    """TOST of our scores against a published mean.

    One-sample, with the published mean taken as exact; Welch's test where its deviation and n are known.

    Args:
        scores: ours.
        mean: as published.
        margin: in the unit of the scores.
        std: the published deviation over seeds; NaN if not known.
        n: the published number of seeds; None if not known.
        exact: whether a mean of n runs without a deviation is taken as exact; False takes these runs to
            spread as ours do, with the degrees of freedom of ours.
    """
    values = finite(scores)
    p = difference_p = math.nan
    spread = len(values) >= FEWEST and np.ptp(values) > 0
    if spread and not math.isnan(margin):
        p = max(
            published_p(values, mean - margin, std, n, "greater", exact=exact),
            published_p(values, mean + margin, std, n, "less", exact=exact),
        )
        difference_p = published_p(values, mean, std, n, "two-sided", exact=exact)
    ours = float(np.mean(values)) if len(values) else math.nan
    return Equivalence(len(values), ours - mean, margin, p, difference_p)


def published_p(
    values: np.ndarray, mean: float, std: float, n: int | None, alternative: str, *, exact: bool
) -> float:
    """The p-value of a t-test against a published mean; arguments as of `published_equivalence`."""
    m, ours, spread = len(values), np.mean(values), np.std(values, ddof=1)
    if n is not None and n > 1 and not math.isnan(std):
        theirs = mean, std, n
        found = stats.ttest_ind_from_stats(ours, spread, m, *theirs, equal_var=False, alternative=alternative)
        return float(found.pvalue)
    if exact or n is None:
        return float(stats.ttest_1samp(values, mean, alternative=alternative).pvalue)
    t = (ours - mean) / (spread * math.sqrt(1 / m + 1 / n))
    tails = {"greater": stats.t.sf(t, m - 1), "less": stats.t.cdf(t, m - 1)}
    return float(tails.get(alternative, 2 * stats.t.sf(abs(t), m - 1)))
