import math

import pytest

from lottalora.analysis.recovery import recovery
from lottalora.analysis.recovery import share_above_chance


def test_recovery_is_the_score_over_the_baseline():
    assert recovery(0.9, 0.96, higher_is_better=True) == pytest.approx(0.9375)


def test_recovery_is_the_inverse_where_lower_is_better():
    assert recovery(4.0, 2.0, higher_is_better=False) == 0.5
    assert recovery(4.0, 2.0, higher_is_better=False) == 1 / recovery(4.0, 2.0, higher_is_better=True)


@pytest.mark.parametrize("higher_is_better", [True, False])
def test_recovery_of_the_baseline_itself_is_one(higher_is_better):
    assert recovery(0.3, 0.3, higher_is_better) == 1


def test_share_above_chance_is_zero_at_chance_and_one_at_the_baseline():
    assert share_above_chance(0.1, 0.9, chance=0.1, higher_is_better=True) == 0
    assert share_above_chance(0.9, 0.9, chance=0.1, higher_is_better=True) == 1
    assert share_above_chance(0.5, 0.9, chance=0.1, higher_is_better=True) == pytest.approx(0.5)


def test_share_above_chance_serves_scores_where_lower_is_better():
    assert share_above_chance(6.0, 2.0, chance=10.0, higher_is_better=False) == pytest.approx(0.5)


def test_a_share_without_a_denominator_is_not_a_number():
    assert math.isnan(recovery(0.5, 0.0, higher_is_better=True))
    assert math.isnan(recovery(-20.0, -10.0, higher_is_better=True))
    assert math.isnan(recovery(0.0, 0.5, higher_is_better=False))
    assert recovery(-1.0, 50.0, higher_is_better=True) == -0.02


@pytest.mark.parametrize(("baseline", "higher_is_better"), [(0.1, True), (0.09, True), (0.12, False)])
def test_there_is_no_share_above_chance_of_a_baseline_that_is_no_better(baseline, higher_is_better):
    assert math.isnan(share_above_chance(0.08, baseline, 0.1, higher_is_better))
