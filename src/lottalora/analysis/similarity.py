"""Linear CKA: how alike two nets see the same examples.

Letters: N examples.
"""

import math

import numpy as np


def linear_cka(X: np.ndarray, Y: np.ndarray) -> float:
    r"""The similarity of two sets of activations, 0 to 1; rotations and a common scale do not change it.

    .. math:: \frac{\lVert Y^T X \rVert_F^2}{\lVert X^T X \rVert_F \lVert Y^T Y \rVert_F}

    with each feature centred; computed from the N × N Gram matrices. NaN where a net gives all examples the
    same activations.

    Args:
        X: (N, features of the one net).
        Y: (N, features of the other).

    Source: Kornblith et al. 2019, https://arxiv.org/abs/1905.00414
    """
    K, L = gram(X), gram(Y)
    scale = np.linalg.norm(K) * np.linalg.norm(L)
    return float((K * L).sum() / scale) if scale else math.nan


def gram(X: np.ndarray) -> np.ndarray:
    """X Xᵀ of the centred features, (N, N)."""
    centred = X.astype(np.float64) - X.mean(axis=0, dtype=np.float64)
    return centred @ centred.T
