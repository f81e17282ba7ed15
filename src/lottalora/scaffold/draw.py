"""From a seed to a frozen weight: W_seed as a pure function of (version, seed, layer name, shape, family)."""

from collections.abc import Mapping
from dataclasses import dataclass
from dataclasses import field
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lottalora.scaffold.families import Parameter
from lottalora.scaffold.families import find_family
from lottalora.scaffold.families import law_of
from lottalora.scaffold.prng import halves
from lottalora.scaffold.prng import key_of
from lottalora.scaffold.seeds import check_seed


@dataclass(frozen=True)
class Source:
    """Where a W_seed comes from: all that is needed to draw it again, on any machine.

    Two sources that differ in seed, name, shape, family or redraw have independent weights. A family's
    parameters are not part of the stream: the same words are only mapped otherwise, so arms that differ in
    scale are paired.

    Args:
        seed: the backbone seed, 0 … 2⁶⁴ − 1.
        name: the layer's dotted name in its model.
        shape: (out, in), the kernel of a convolution flattened to (out, in / groups · k).
        family: a key of FAMILIES.
        parameters: the family's parameters where they differ from the paper's.
        redraw: 0 for the backbone itself; k ≥ 1 for the k-th scaffold of `resample`.
        stack: of how many matrices below each other, as of experts; each has the family's law by itself.

    Raises:
        ValueError: a seed or a redraw outside 0 … 2⁶⁴ − 1.
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

    def with_seed(self, seed: int) -> "Source":
        """The same layer under another backbone seed."""
        return replace(self, seed=seed, redraw=0)

    @property
    def exact(self) -> bool:
        """Whether the bits are the same on every machine."""
        return find_family(self.family).exact


def draw(source: Source, rows: tuple[int, int] | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
    """W_seed, or a block of its rows, on the CPU.

    The draw happens in float32 and is rounded once to `dtype`, so a half-precision scaffold is the float32
    one rounded.

    Args:
        source: where the weight comes from.
        rows: (first, last + 1), to draw only that block, for example the shard that a process owns; None for
            all.
        dtype: of the result.

    Returns:
        The matrix, (out, in), or (rows[1] − rows[0], in).

    Raises:
        ValueError: an unknown family or parameter, or rows outside the matrix.
    """
    out, columns = source.shape
    law = law_of(source.family, (out // source.stack, columns), source.parameters)
    if law.finish:  # couples all entries of a matrix, so a block needs the whole
        matrices = _look_up(source, law.table, (0, out)).chunk(source.stack)
        return torch.cat([law.finish(W) for W in matrices])[slice(*(rows or (None,)))].to(dtype)
    table = law.table * np.float32(law.scale)  # rounds as the product of each entry would
    return _look_up(source, table, rows or (0, out)).to(dtype)


def _look_up(source: Source, table: np.ndarray, rows: tuple[int, int]) -> Tensor:
    first, last = rows
    out, columns = source.shape
    if not 0 <= first <= last <= out:
        raise ValueError(f"Rows {first} to {last} are not within the {out} rows of {source.name!r}.")
    key = key_of(source.seed, source.redraw, source.name, f"{out}x{columns}", source.family)
    values = np.empty((last - first) * columns, np.float32)
    done = 0
    for index in halves(key, first * columns, last * columns):
        np.take(table, index, out=values[done : done + index.size], mode="clip")
        done += index.size
    return torch.from_numpy(values).view(last - first, columns)
