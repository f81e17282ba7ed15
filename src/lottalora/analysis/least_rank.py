"""r*(ε): the least rank that comes within ε of full training, under the same protocol."""

from collections.abc import Mapping

from lottalora.analysis.statistics import DIGITS


def least_rank(
    scores: Mapping[int, float], full: float, epsilon: float, *, higher_is_better: bool
) -> int | None:
    r"""The smallest rank whose score is at most ε worse than full training's; None if none of them is.

    .. math:: r^*(\varepsilon) = \min \{ r : \mathrm{loss}(r) \le \mathrm{loss}_{full} + \varepsilon \}

    A larger rank may miss what a smaller one reached: the definition asks for the first.

    Args:
        scores: by rank.
        full: the score of full training.
        epsilon: ε ≥ 0, in the unit of the scores.
        higher_is_better: of the scores.
    """
    sign = 1 if higher_is_better else -1
    near = [rank for rank, score in scores.items() if round(sign * (full - score), DIGITS) <= epsilon]
    return min(near, default=None)
