"""Recovery: the score of a scaffold relative to full training."""

import math


def recovery(score: float, baseline: float, higher_is_better: bool) -> float:
    r"""The score as a share of the baseline's: 1 where they are equal, above 1 where the scaffold is better.

    .. math:: \text{recovery} = \frac{\text{score}}{\text{baseline}}
              \quad\text{or, where lower is better,}\quad \frac{\text{baseline}}{\text{score}}

    A ratio flatters a task with a high chance level: read it beside `share_above_chance`. It is NaN where the
    denominator is 0.
    """
    return ratio(score, baseline) if higher_is_better else ratio(baseline, score)


def share_above_chance(score: float, baseline: float, chance: float) -> float:
    r"""The share of what full training gains over guessing: 0 at chance, 1 at the baseline.

    .. math:: \frac{\text{score} - \text{chance}}{\text{baseline} - \text{chance}}

    The same equation serves scores where lower is better: both differences then change their sign. It is NaN
    where the baseline is at chance.
    """
    return ratio(score - chance, baseline - chance)


def ratio(above: float, below: float) -> float:
    """Return above / below, or NaN where `below` is 0."""
    return above / below if below else math.nan
