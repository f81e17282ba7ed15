"""Hold out training examples for validation where a data set has no validation part."""

from dataclasses import fields
from typing import TypeVar

import numpy as np
import torch

Part = TypeVar("Part")

SPLIT_SEED = 0  # of the part held out; never the run's seed


def held_out(labels: np.ndarray, *, each: int) -> tuple[np.ndarray, np.ndarray]:
    """Places for training and for validation, these drawn within each class from NumPy's frozen stream.

    Args:
        labels: of all places, (N,).
        each: places held out of each class.
    """
    random = np.random.RandomState(SPLIT_SEED)
    validation = np.sort(
        np.concatenate(
            [random.permutation(np.flatnonzero(labels == label))[:each] for label in np.unique(labels)]
        )
    )
    return np.setdiff1d(np.arange(len(labels)), validation), validation


def parts_of(hold_out: bool, train: Part, validation: Part) -> tuple[Part, Part | None]:
    """Both parts as they are; or, without holding out, all examples to train on and no validation part.

    Args:
        hold_out: whether the second part stays apart.
        train: a frozen dataclass of tensors with the examples along axis 0.
        validation: of the same class.
    """
    if hold_out:
        return train, validation
    pairs = ((getattr(train, each.name), getattr(validation, each.name)) for each in fields(train))
    return type(train)(*map(torch.cat, pairs)), None


def checked_hold_out(hold_out: object) -> bool:
    """Return data.hold_out; raise ValueError unless it is true or false."""
    if not isinstance(hold_out, bool):
        raise ValueError(f"data.hold_out must be true or false, got {hold_out!r}.")
    return hold_out
