"""Batches that are more than one tensor, and what they are made of."""

from typing import NamedTuple

import torch
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


def parts_of(batch: object) -> list[object]:
    """Return the leaves of nested tuples."""
    if isinstance(batch, tuple | list):
        return [each for part in batch for each in parts_of(part)]
    return [batch]


def row_count(part: object) -> int:
    """Return the length of a tensor's first axis; 0 for anything without one."""
    if not isinstance(part, Tensor) or part.layout != torch.strided or part.dim() == 0:
        return 0
    return len(part)
