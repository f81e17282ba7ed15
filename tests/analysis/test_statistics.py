"""Our functions against scipy's and statsmodels' own results, published values and simulation."""

import math

import numpy as np
import pytest
from scipy import stats
from statsmodels.stats.power import TTestPower
from statsmodels.stats.weightstats import DescrStatsW
from statsmodels.stats.weightstats import ttost_paired

from lottalora.analysis.equivalence import paired_equivalence
from lottalora.analysis.equivalence import published_equivalence
from lottalora.analysis.statistics import holm
from lottalora.analysis.statistics import interval
from lottalora.analysis.statistics import paired
from lottalora.analysis.statistics import power
from lottalora.analysis.statistics import seeds_needed
from lottalora.analysis.statistics import students_t

# Stored: test accuracies of the committed MNIST rows, medium, five seeds.
FULL = {42: 0.9860, 43: 0.9855, 44: 0.9853, 45: 0.9857, 46: 0.9861}
RANK_8 = {42: 0.9728, 43: 0.9707, 44: 0.9697, 45: 0.9709, 46: 0.9710}
LONG = np.random.default_rng(3).lognormal(size=24)  # skewed, and long enough for the bootstrap


def test_interval_is_students_t_as_statsmodels_has_it():
    found = interval(FULL.values())
    assert (found.low, found.high) == pytest.approx(DescrStatsW(list(FULL.values())).tconfint_mean())
    assert (found.n, found.method) == (5, "Student's t")
    assert found.mean == pytest.approx(0.98572)
    assert found.std == pytest.approx(math.sqrt((2.8**2 + 2.2**2 + 4.2**2 + 0.2**2 + 3.8**2) / 4) / 1e4)


def test_interval_from_twenty_runs_on_is_scipys_bca_bootstrap():
    found = interval(LONG)
    theirs = stats.bootstrap((LONG,), np.mean, method="BCa", rng=np.random.default_rng(0))
    assert (found.low, found.high) == pytest.approx(tuple(theirs.confidence_interval), rel=1e-12)
    assert found.method == "BCa bootstrap"
    assert interval(LONG[:19]).method == "Student's t"
    assert interval(LONG) == found


@pytest.mark.parametrize("n", [3, 5, 10])
def test_intervals_cover_the_mean_in_95_of_100_experiments(n):
    draws = np.random.default_rng(n).normal(0.97, 0.002, size=(20_000, n))
    low, high = students_t(draws)
    assert 0.93 <= np.mean((low <= 0.97) & (0.97 <= high)) <= 0.97  # standard error 0.0015
    first = interval(draws[0])
    assert (first.low, first.high) == (low[0], high[0])


@pytest.mark.parametrize(("n", "said"), [(0, "none: n = 0, needs 3"), (2, "none: n = 2, needs 3")])
def test_too_few_runs_get_no_interval_and_say_so(n, said):
    found = interval([0.9, 0.8][:n])
    assert math.isnan(found.low) and math.isnan(found.high)
    assert (found.n, found.method) == (n, said)


@pytest.mark.parametrize("n", [3, 20])
def test_equal_scores_get_no_interval_and_say_so(n):
    found = interval([0.9] * n)
    assert math.isnan(found.low)
    assert found.method == f"none: all {n} scores are equal"


def test_one_run_has_no_standard_deviation():
    assert math.isnan(interval([1.0]).std)
    assert math.isnan(interval([None]).mean)


def test_diverged_runs_are_counted_and_in_no_number():
    found = interval([0.5, None, math.nan, math.inf, 0.6, 0.7])
    assert (found.n, found.diverged, found.mean) == (3, 3, pytest.approx(0.6))
    assert (found.low, found.high) == (interval([0.5, 0.6, 0.7]).low, interval([0.5, 0.6, 0.7]).high)


def test_paired_tests_are_those_of_scipy():
    found = paired(RANK_8, FULL)
    ours, theirs = list(RANK_8.values()), list(FULL.values())
    test = stats.ttest_rel(ours, theirs)
    assert found.p == pytest.approx(test.pvalue, rel=1e-6)
    low, high = test.confidence_interval()
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high), rel=1e-6)
    assert found.cohen_d == pytest.approx(test.statistic / math.sqrt(5), rel=1e-6)
    assert found.wilcoxon_p == stats.wilcoxon(ours, theirs).pvalue == found.wilcoxon_least_p == 0.0625


def test_pairs_are_made_by_seed_and_not_by_order():
    backwards = dict(reversed(FULL.items()))
    assert paired(RANK_8, backwards) == paired(RANK_8, FULL)


@pytest.mark.parametrize(("n", "least"), [(3, 0.25), (5, 0.0625), (6, 0.03125), (10, 2**-9)])
def test_wilcoxon_says_the_least_p_it_could_reach(n, least):
    first = {seed: 0.9 + 0.001 * seed for seed in range(1, n + 1)}
    found = paired(first, dict.fromkeys(first, 0.9))
    assert (found.wilcoxon_p, found.wilcoxon_least_p) == (pytest.approx(least), pytest.approx(least))


def test_ties_and_diverged_and_unpaired_runs_are_counted():
    first = {1: 0.9, 2: 0.8, 3: None, 4: 0.7, 5: 0.6, 6: 0.5, 9: 0.1}
    second = {1: 0.9, 2: 0.7, 3: 0.9, 4: math.nan, 5: 0.4, 6: 0.2, 8: 0.1}
    found = paired(first, second)
    assert (found.difference.n, found.difference.diverged) == (4, 2)
    assert (found.ties, found.unpaired) == (1, 2)
    assert found.p == pytest.approx(stats.ttest_rel([0.9, 0.8, 0.6, 0.5], [0.9, 0.7, 0.4, 0.2]).pvalue)
    assert found.wilcoxon_least_p == 0.25  # three pairs differ


def test_differences_that_float32_alone_tells_apart_are_equal():
    steps = {seed: 0.97 + 0.0007 * seed for seed in range(5)}
    rounded = {seed: float(np.float32(score + 0.0123)) for seed, score in steps.items()}
    assert paired(rounded, steps).difference.method == "none: all 5 scores are equal"


@pytest.mark.parametrize("shift", [0.0, 0.1])
def test_equal_differences_have_no_t_test(shift):
    found = paired({seed: score + shift for seed, score in FULL.items()}, FULL)
    assert math.isnan(found.p) and math.isnan(found.cohen_d)
    assert found.difference.method == "none: all 5 scores are equal"
    assert found.ties == (0 if shift else 5)
    assert math.isnan(found.wilcoxon_p) == (shift == 0)


def test_two_pairs_are_not_tested():
    found = paired({1: 0.9, 2: 0.8}, {1: 0.7, 2: 0.7})
    assert found.difference.mean == pytest.approx(0.15)
    assert all(math.isnan(p) for p in (found.p, found.wilcoxon_p, found.wilcoxon_least_p, found.cohen_d))


def test_arms_without_a_common_seed_are_refused_by_name():
    with pytest.raises(ValueError, match="head only and full training have no seed in common: 1, 2 .* 42"):
        paired({2: 0.9, 1: 0.8}, {42: 0.9}, names=("head only", "full training"))


def test_holm_is_the_textbooks():
    # Holm 1979: the sorted p times 4, 3, 2, 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_does_not_count_what_was_not_tested():
    adjusted = holm([math.nan, 0.01, math.nan, 0.04])
    assert adjusted[1::2] == pytest.approx([0.02, 0.04])
    assert math.isnan(adjusted[0]) and math.isnan(adjusted[2])
    assert holm([]) == []
    assert math.isnan(holm([math.nan])[0])


@pytest.mark.parametrize(("margin", "verdict"), [(0.02, "agrees"), (0.014, "below"), (0.005, "below")])
def test_paired_equivalence_is_statsmodels_tost(margin, verdict):
    found = paired_equivalence(RANK_8, FULL, margin)
    theirs = ttost_paired(np.array(list(RANK_8.values())), np.array(list(FULL.values())), -margin, margin)
    assert found.p == pytest.approx(theirs[0], rel=1e-9)
    assert found.verdict == verdict


def test_equivalence_with_a_published_mean_is_two_one_sided_tests_of_one_sample():
    scores = np.array(list(RANK_8.values()))
    found = published_equivalence(scores, 0.968, 0.005)
    assert found.p == pytest.approx(stats.ttest_1samp(scores, 0.973, alternative="less").pvalue)
    assert found.difference == pytest.approx(scores.mean() - 0.968)
    assert DescrStatsW(scores).ttost_mean(0.963, 0.973)[0] == pytest.approx(found.p)


def test_equivalence_counts_the_papers_own_spread_where_it_is_known():
    theirs = np.array([0.966, 0.968, 0.970])
    found = published_equivalence(RANK_8.values(), 0.968, 0.005, theirs.std(ddof=1), 3)
    welch = stats.ttest_ind(list(RANK_8.values()), theirs + 0.005, equal_var=False, alternative="less")
    assert found.p == pytest.approx(welch.pvalue)
    assert found.p > published_equivalence(RANK_8.values(), 0.968, 0.005).p


def test_published_runs_that_spread_as_ours_are_those_of_a_prediction_interval():
    ours = np.array(list(RANK_8.values()))
    half = stats.t.ppf(0.975, len(ours) - 1) * ours.std(ddof=1) * np.sqrt(1 + 1 / len(ours))
    found = published_equivalence(ours, ours.mean() + half, 0.005, n=1, exact=False)
    assert found.difference_p == pytest.approx(0.05)
    beyond = published_equivalence(ours, ours.mean() + half + 0.005, 0.005, n=1, exact=False)
    assert beyond.p == pytest.approx(0.975)
    many = published_equivalence(ours, 0.968, 0.005, n=10**9, exact=False)
    assert many.p == pytest.approx(published_equivalence(ours, 0.968, 0.005).p, rel=1e-4)


@pytest.mark.parametrize(
    ("scores", "verdict"),
    [
        ([0.5], "within the margin (n = 1, untested)"),
        ([0.5, 0.7], "outside the margin (n = 2, untested)"),
        ([0.5, 0.5, 0.5], "within the margin (n = 3, untested)"),
        ([0.5, None, 0.51], "within the margin (n = 2, untested)"),
        ([0.49, 0.5, 0.51], "agrees"),
        ([0.40, 0.5, 0.60], "undecided"),
        ([0.69, 0.7, 0.71], "above"),
        ([0.29, 0.3, 0.31], "below"),
        ([None], ""),
    ],
)
def test_verdict_is_agreement_only_where_a_test_shows_it(scores, verdict):
    found = published_equivalence(scores, 0.5, 0.05)
    assert found.verdict == verdict


def test_false_agreement_is_as_rare_as_the_level_says():
    draws = np.random.default_rng(0).normal(0.05, 0.02, size=(400, 5))  # the margin itself: not equivalent
    agreed = np.mean([published_equivalence(scores, 0.0, 0.05).p < 0.05 for scores in draws])
    assert 0.03 <= agreed <= 0.07


@pytest.mark.parametrize(("effect", "n"), [(0.5, 34), (0.8, 15), (1.0, 10)])
def test_seeds_for_80_percent_are_those_of_cohens_tables(effect, n):
    # G*Power 3.1, t tests, difference from constant, two-sided, α = 0.05: 34, 15, 10.
    assert seeds_needed(effect) == seeds_needed(-effect) == n
    assert power(effect, n) >= 0.8 > power(effect, n - 1)


def test_power_is_statsmodels_where_that_exists_and_the_same_distribution_where_it_fails():
    assert power(1.0, 5) == pytest.approx(TTestPower().power(1.0, 5, 0.05))
    assert math.isnan(TTestPower().power(5.0, 10, 0.05))
    assert power(5.0, 10) == pytest.approx(1.0)
    assert all(power(low, 3) <= power(low + 0.1, 3) + 1e-9 for low in np.arange(0.1, 12, 0.1))


def test_power_of_too_few_seeds_or_no_effect_is_not_stated():
    assert math.isnan(power(1.0, 2)) and math.isnan(power(math.nan, 5))
    assert seeds_needed(0.0) is None and seeds_needed(math.nan) is None
    assert seeds_needed(1e3) == 3
