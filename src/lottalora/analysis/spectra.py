"""Singular values, subspaces and amplification of weight matrices.

Letters: W (out, in); ΔW what training added; r rank; i, j numbers of directions.
"""

import math

import numpy as np
from scipy.linalg import svd
from scipy.sparse.linalg import svds

Matrix = np.ndarray


def largest_singular_value(W: Matrix) -> float:
    """σ₁ of W, by Lanczos' method from a fixed start."""
    start = np.ones(min(W.shape))
    return float(svds(W.astype(np.float64), k=1, v0=start, return_singular_vectors=False)[0])


def predicted_singular_value(shape: tuple[int, int], std: float) -> float:
    r"""σ₁ of a large matrix with independent entries of this standard deviation and a finite fourth moment.

    .. math:: \sigma_1 \to \sigma (\sqrt{out} + \sqrt{in}), \quad 2 \sqrt{d}\, \sigma \text{ for a square}

    Source: Yin, Bai and Krishnaiah 1988; the paper's Figure 17.
    """
    return std * (math.sqrt(shape[0]) + math.sqrt(shape[1]))


def truncated(W: Matrix, rank: int) -> Matrix:
    """The matrix of this rank that is nearest to W (Eckart and Young)."""
    U, s, Vt = svd(W, full_matrices=False)
    return (U[:, :rank] * s[:rank]) @ Vt[:rank]


def energy(s: np.ndarray, rank: int) -> float:
    """The share of ‖W‖²_F that the first `rank` singular values hold."""
    return float((s[:rank] ** 2).sum() / (s**2).sum())


def stable_rank(s: np.ndarray) -> float:
    """‖W‖²_F / σ₁²."""
    return float((s**2).sum() / s[0] ** 2)


def rank_for(s: np.ndarray, share: float) -> int:
    """The least rank whose truncation holds this share of ‖W‖²_F."""
    return int(np.searchsorted(np.cumsum(s**2) / (s**2).sum(), share) + 1)


def overlap(U: Matrix, V: Matrix) -> float:
    r"""How much of the smaller of two subspaces lies in the other: 1 if all of it, 0 if orthogonal.

    .. math:: \phi = \frac{\lVert U^T V \rVert_F^2}{\min(i, j)}

    Args:
        U: orthonormal columns, (d, i).
        V: orthonormal columns, (d, j).

    Source: Hu et al. 2021 (LoRA), Section 7.2.
    """
    return float((np.linalg.norm(U.T @ V) ** 2) / min(U.shape[1], V.shape[1]))


def random_overlap(d: int, i: int, j: int) -> float:
    """The mean `overlap` of two independent random subspaces: max(i, j) / d."""
    return max(i, j) / d


def amplification(W: Matrix, update: Matrix, rank: int) -> float:
    r"""How much the update enlarges the directions of W that it acts on.

    .. math:: \frac{\lVert \Delta W \rVert_F}{\lVert U^T W V \rVert_F}

    with the first `rank` singular vectors U, V of ΔW.

    Source: Hu et al. 2021 (LoRA), Section 7.3.
    """
    U, _, Vt = svd(update, full_matrices=False)
    seen = np.linalg.norm(U[:, :rank].T @ W @ Vt[:rank].T)
    return float(np.linalg.norm(update) / seen) if seen else math.nan


def directions(update: Matrix, rank: int) -> Matrix:
    """The first right singular vectors of ΔW, (in, rank): the input directions that it reads."""
    return svd(update, full_matrices=False)[2][:rank].T
