"""Tables of quantiles that are computed from the shipped ones, with the same bits on every machine."""

import math

import numpy as np

from lottalora.scaffold.families.family import Table
from lottalora.scaffold.families.quantiles import SIZE
from lottalora.scaffold.families.quantiles import quantiles


def uniform_table() -> Table:
    """The centres of 65,536 equal cells of [−1, 1]; each is exact in float32."""
    return ((2 * np.arange(SIZE) + 1 - SIZE) / SIZE).astype(np.float32)


def clipped(table: Table, clip: float) -> Table:
    """The table with each value clipped to ± clip.

    Raises:
        ValueError: clip is not a finite number above 0.
    """
    if not 0 < clip < math.inf:
        raise ValueError(f"clip must be a finite number above 0, got {clip}.")
    inside: Table = np.clip(table, -np.float32(clip), np.float32(clip))
    return inside


def sparse_table(zeros: float) -> Table:
    """The given share of zeros in the middle, and evenly thinned normal quantiles on both sides.

    Raises:
        ValueError: the share is not at least 0 and below 1.
    """
    if not 0 <= zeros < 1:
        raise ValueError(f"The share of zeros must be at least 0 and below 1, got {zeros}.")
    left = (SIZE - round(zeros * SIZE)) // 2  # entries below the zeros, and as many above
    kept = ((2 * np.arange(2 * left) + 1) * SIZE) // (4 * left)  # integers: no rounding
    values = quantiles("normal")[kept]
    return np.concatenate([values[:left], np.zeros(SIZE - 2 * left, np.float32), values[left:]])


def quantized_table(bits: int, limit: int = 4) -> Table:
    """Normal quantiles, each rounded to the centre of one of 2ᵇⁱᵗˢ equal cells of [−limit, limit]."""
    step = np.float32(2 * limit / 2**bits)  # a power of two: every operation below is exact
    cell = np.floor(quantiles("normal") / step)
    half = 2 ** (bits - 1)
    table: Table = (np.clip(cell, -half, half - 1) + np.float32(0.5)) * step
    return table
