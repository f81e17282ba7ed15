"""Variance components of scores over two crossed seeds, one run for each pair."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Components:
    """Of one arm; in the squared unit of its scores. An estimate below 0 is a component that was not seen."""

    scaffold: float  # of the scaffold seed
    training: float  # of data order, dropout and the start of the adapters
    rest: float  # their interaction and all else, which one run for each pair cannot tell apart

    def shares(self) -> tuple[float, float, float]:
        """Of the three in their sum, those below 0 counted as 0."""
        parts = np.clip([self.scaffold, self.training, self.rest], 0, None)
        total = parts.sum()
        return tuple(parts / total) if total else (np.nan, np.nan, np.nan)


def components(scores: np.ndarray) -> Components:
    r"""From the mean squares of a two-way table with random effects and one value in each cell.

    .. math:: y_{ij} = \mu + a_i + b_j + e_{ij}, \quad
              \sigma_a^2 = \frac{MS_a - MS_e}{m}, \quad \sigma_b^2 = \frac{MS_b - MS_e}{n}

    Args:
        scores: one row for each of n ≥ 2 scaffold seeds, one column for each of m ≥ 2 training seeds.
    """
    n, m = scores.shape
    mean, of_rows, of_columns = scores.mean(), scores.mean(axis=1), scores.mean(axis=0)
    rest = scores - of_rows[:, None] - of_columns[None, :] + mean
    within = (rest**2).sum() / ((n - 1) * (m - 1))
    between_rows = m * ((of_rows - mean) ** 2).sum() / (n - 1)
    between_columns = n * ((of_columns - mean) ** 2).sum() / (m - 1)
    return Components((between_rows - within) / m, (between_columns - within) / n, within)
