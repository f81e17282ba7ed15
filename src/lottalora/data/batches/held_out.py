"""The part of the training examples by which an epoch is chosen, where a data set brings none."""

import numpy as np

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
