"""Batches that are more than one tensor."""

from typing import NamedTuple

from torch import Tensor


class Windows(NamedTuple):
    """Consecutive steps of N episodes, filled up on the left where an episode has fewer than K.

    Args:
        returns: returns-to-go, scaled, (N, K, 1).
        states: normalised, (N, K, states).
        actions: those taken, (N, K, actions); the one of a step is seen by later steps alone.
        steps: the number of each step in its episode, from 0, (N, K).
        mask: True where there is a step, False where it only fills up, (N, K).
    """

    returns: Tensor
    states: Tensor
    actions: Tensor
    steps: Tensor
    mask: Tensor


class Sequences(NamedTuple):
    """One batch: inputs (B, T, F), hours since the step before (B, T), steps of each (B,)."""

    inputs: Tensor
    elapsed: Tensor
    lengths: Tensor


class Texts(NamedTuple):
    """One batch: tokens (B, T), 0 behind the end of a review, and how many each review has, (B,)."""

    tokens: Tensor
    lengths: Tensor
