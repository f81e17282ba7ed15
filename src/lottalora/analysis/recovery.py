"""Recovery: the score of a scaffold relative to full training."""

import math


def recovery(score: float, baseline: float, higher_is_better: bool) -> float:
    r"""The score as a share of the baseline's: 1 where they are equal, above 1 where the scaffold is better.

    .. math:: \text{recovery} = \frac{\text{score}}{\text{baseline}}
              \quad\text{or, where lower is better,}\quad \frac{\text{baseline}}{\text{score}}

    A ratio flatters a task with a high chance level: read it beside `share_above_chance`. It is NaN where the
    denominator is 0 or below, since a share of less than nothing would grow as the score gets worse.
    """
    above, below = (score, baseline) if higher_is_better else (baseline, score)
    return above / below if below > 0 else math.nan


def share_above_chance(score: float, baseline: float, chance: float, higher_is_better: bool) -> float:
    r"""The share of what full training gains over guessing: 0 at chance, 1 at the baseline.

    .. math:: \frac{\text{score} - \text{chance}}{\text{baseline} - \text{chance}}

    The same equation serves scores where lower is better: both differences then change their sign. It is NaN
    where the baseline is no better than chance.
    """
    gain = baseline - chance if higher_is_better else chance - baseline
    return (score - chance) / (baseline - chance) if gain > 0 else math.nan
