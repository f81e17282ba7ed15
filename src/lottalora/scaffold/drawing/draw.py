"""Drawing a frozen weight: W_seed as a pure function of (version, seed, layer name, shape, family)."""

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lottalora.scaffold.drawing.prng import halves
from lottalora.scaffold.drawing.prng import key_of
from lottalora.scaffold.drawing.seeds import check_seed
from lottalora.scaffold.families.family import Parameter
from lottalora.scaffold.families.family import Table
from lottalora.scaffold.families.family import distribution_of
from lottalora.scaffold.families.family import find_family

MANY = 2**22  # values, from which on several threads draw them
MOST_THREADS = 8  # beyond, memory is the limit


@dataclass(frozen=True)
class Source:
    """Everything that is needed to draw a W_seed again, on any machine.

    Two sources that differ in seed, name, shape, family or redraw have independent weights. The parameters of
    the family do not change the random words, only what they are mapped to. So runs that differ only in
    these parameters, such as the scale, are paired.

    Args:
        seed: the backbone seed, 0 … 2⁶⁴ − 1.
        name: the layer's dotted name in its model.
        shape: (out, in); (out, in / groups · Πk) for the kernel of a convolution.
        family: a key of FAMILIES.
        parameters: the family's parameters that differ from its defaults.
        redraw: 0 for the backbone itself; k ≥ 1 for the k-th scaffold of `resample`.
        stack: the number of matrices stacked along the rows, such as experts; each has the family's
            distribution.

    Raises:
        ValueError: `seed` or `redraw` is not a whole number in 0 … 2⁶⁴ − 1, `shape` is not that of a matrix,
            or `stack` does not divide its rows.
    """

    seed: int
    name: str
    shape: tuple[int, int]
    family: str = "normal"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    redraw: int = 0
    stack: int = 1

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_seed(self.redraw, "redraw")
        pair = isinstance(self.shape, tuple | list) and len(self.shape) == 2
        if not pair or not all(_counts(number) for number in self.shape):
            raise ValueError(f"shape must be (out, in), two whole numbers above 0, got {self.shape!r}.")
        if not _counts(self.stack) or self.shape[0] % self.stack:
            raise ValueError(f"stack must divide the rows of {self.shape}, got {self.stack!r}.")

    def with_seed(self, seed: int) -> "Source":
        """The source of the same layer under another backbone seed."""
        return replace(self, seed=seed, redraw=0)

    @property
    def exact(self) -> bool:
        """Whether the drawn bits are the same on every machine."""
        return find_family(self.family).exact


def _counts(number: object) -> bool:
    """Whether it is a whole number above 0."""
    return isinstance(number, int) and not isinstance(number, bool) and number > 0


def draw(source: Source, rows: tuple[int, int] | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """Draw W_seed, or a block of its rows, on the CPU.

    Values are drawn in float32 and rounded once to `dtype`, so a half-precision scaffold equals the rounded
    float32 one.

    Args:
        source: what to draw.
        rows: (first, last + 1), to draw only these rows, for example the shard of one process; None for all.
        dtype: the dtype of the result.

    Returns:
        The matrix, (out, in), or the block, (last + 1 − first, in).

    Raises:
        ValueError: the family or a parameter of it is unknown, the rows are outside the matrix, or the dtype
            holds whole numbers only.
    """
    if not isinstance(dtype, torch.dtype) or not (dtype.is_floating_point or dtype.is_complex):
        raise ValueError(f"dtype must be a floating-point dtype, for example torch.float32, got {dtype!r}.")
    out, columns = source.shape
    distribution = distribution_of(source.family, (out // source.stack, columns), source.parameters)
    if distribution.finish:  # every entry depends on the whole matrix, so a block needs all rows
        matrices = _look_up(source, distribution.table, (0, out)).chunk(source.stack)
        return torch.cat([distribution.finish(W) for W in matrices])[slice(*(rows or (None,)))].to(dtype)
    table = distribution.table * np.float32(distribution.scale)  # rounds as scaling each drawn value would
    return _look_up(source, table, rows or (0, out)).to(dtype)


def _look_up(source: Source, table: Table, rows: tuple[int, int]) -> Tensor:
    first, last = rows
    out, columns = source.shape
    if not 0 <= first <= last <= out:
        raise ValueError(f"Rows {first} to {last} are not within the {out} rows of {source.name!r}.")
    key = key_of(source.seed, source.redraw, source.name, f"{out}x{columns}", source.family)
    start, stop = first * columns, last * columns
    values = np.empty(stop - start, np.float32)

    def fill(begin: int, end: int) -> None:
        for index in halves(key, begin, end):
            np.take(table, index, out=values[begin - start : begin - start + index.size], mode="clip")
            begin += index.size

    threads = _threads() if stop - start >= MANY else 1
    edges = [start + (stop - start) * part // threads for part in range(threads + 1)]
    if threads == 1:
        fill(start, stop)
    else:  # NumPy computes without Python's lock, and value i is a function of i alone
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fill, edges, edges[1:]))  # the list raises what a thread raised
    return torch.from_numpy(values).view(last - first, columns)


def _threads() -> int:
    """The processors that this process may use, at most MOST_THREADS."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(allowed, MOST_THREADS)
