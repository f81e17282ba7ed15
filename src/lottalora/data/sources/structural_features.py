"""Features of nodes from their graph alone: no text, no label, the same bits on every machine.

Letters: N nodes, E edges, F features.
"""

import numpy as np

STEPS = 4  # of the random walk
ONE = 1 << 24  # as a fixed-point number; sums over neighbours and of squares stay far below 2^63
DEGREE = 0.2  # so that the most often cited of ogbn-arxiv's papers has 0.2 ln(13,156) = 1.9


def structural_features(edges: np.ndarray, count: int, features: int) -> np.ndarray:
    r"""Degrees, and random signs that walked over the graph.

    .. math:: x_i = \left[0.2 \ln(1 + d_i^{in}),\ 0.2 \ln(1 + d_i^{out}),\ u_i / \lVert u_i \rVert_2\right],
        \quad u = (D^{-1} A)^4 R

    A has a 1 for each edge, in both directions, D are its row sums, and R is one of ±1 at random for each
    node and column: nodes whose walks end at the same nodes have close features. It is FastRP with one
    power of the matrix (Chen et al. 2019, https://arxiv.org/abs/1908.11512).

    A sum of floats depends on its order, and so do singular vectors: their last digits differ by machine,
    and with them the fingerprint of the data. Here sums are of integers, with 24 bits after the point and
    quotients rounded down; square roots and divisions are exact by IEEE 754; logarithms, which are not, are
    rounded to four decimals.

    Args:
        edges: (2, E), from and to; an edge named twice counts once in A, twice in its degree.
        count: N.
        features: F, the two degrees among them.

    Returns:
        float32, (N, F).
    """
    walked = walk(edges, count, features - 2)
    lengths = np.sqrt(np.square(walked).sum(axis=1).astype(np.float64))
    degrees = np.stack([np.bincount(ends, minlength=count) for ends in (edges[1], edges[0])], axis=1)
    logarithms = np.round(DEGREE * np.log1p(degrees), 4)
    return np.hstack([logarithms, walked / np.maximum(lengths, 1)[:, None]]).astype(np.float32)


def walk(edges: np.ndarray, count: int, columns: int) -> np.ndarray:
    """(D⁻¹A)⁴R with 24 bits after the point, (N, columns) of int64; a node without an edge gets zeros."""
    from scipy.sparse import csr_array

    ones = np.ones(edges.shape[1], np.int64)
    directed = csr_array((ones, (edges[0], edges[1])), shape=(count, count))
    adjacency = ((directed + directed.T) > 0).astype(np.int64)
    degrees = np.maximum(adjacency.sum(axis=1), 1)[:, None]
    signs = 2 * np.random.RandomState(0).randint(0, 2, (count, columns), dtype=np.int8).astype(np.int64) - 1
    walked = ONE * signs
    for _ in range(STEPS):
        walked = adjacency @ walked // degrees
    return walked
