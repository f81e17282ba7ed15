"""W_seed drawn on the device where it is used, with the bits that `draw` gives on the CPU.

The words of Philox are integer arithmetic and the values are entries of a table, so the device adds no
rounding of its own. See `drawing.prng` for the order of the values in the stream.
"""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.prng import HALVES_PER_BLOCK
from lottalora.scaffold.drawing.prng import key_of
from lottalora.scaffold.families.family import distribution_of

BLOCKS = 128  # of Philox in one program: 1,024 values


def draw_on(
    source: Source,
    device: torch.device | str,
    rows: tuple[int, int] | None = None,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """Draw W_seed, or a block of its rows, on a CUDA device: equal to `draw(source, rows, dtype)`.

    Args:
        source: what to draw.
        device: where.
        rows: (first, last + 1), to draw only these rows; None for all.
        dtype: of the result; values are rounded to it once.

    Returns:
        The matrix, (out, in), or the block, (last + 1 − first, in).

    Raises:
        ValueError: the entries of the family depend on each other, or the rows are outside the matrix.
    """
    out, columns = source.shape
    first, last = rows or (0, out)
    if not 0 <= first <= last <= out:
        raise ValueError(f"Rows {first} to {last} are not within the {out} rows of {source.name!r}.")
    distribution = distribution_of(source.family, (out // source.stack, columns), source.parameters)
    if distribution.finish:
        raise ValueError(
            f"Family {source.family!r} needs the whole matrix at once: call draw(source).to(device) instead."
        )
    table = torch.from_numpy(distribution.table * np.float32(distribution.scale)).to(device)
    key = key_of(source.seed, source.redraw, source.name, f"{out}x{columns}", source.family)
    start, stop = first * columns, last * columns
    values = torch.empty(last - first, columns, dtype=dtype, device=device)
    if stop > start:
        begin = start // HALVES_PER_BLOCK
        programs = triton.cdiv(-(-stop // HALVES_PER_BLOCK) - begin, BLOCKS)
        signed = key - 2**64 if key >= 2**63 else key  # so that every key has the same type
        with torch.cuda.device(values.device if values.is_cuda else -1):
            _draw[(programs,)](values, table, signed, begin, start, stop, BLOCKS)
    return values


@triton.jit(do_not_specialize=["key", "begin", "start", "stop"])  # type: ignore[untyped-decorator]
def _draw(values, table, key, begin, start, stop, BLOCKS: tl.constexpr):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
    """values[i − start] = table[half i of the stream] for the i of BLOCKS blocks of Philox."""
    first = begin + tl.program_id(0).to(tl.int64) * BLOCKS
    block = (first + tl.arange(0, BLOCKS)).to(tl.uint64)
    low, high = (block & 0xFFFFFFFF).to(tl.uint32), (block >> 32).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox(key, low, high, low * 0, low * 0)
    words = tl.interleave(tl.interleave(w0, w2), tl.interleave(w1, w3))  # w0 w1 w2 w3, block by block
    index = tl.interleave(words & 0xFFFF, words >> 16).to(tl.int32)  # (8 · BLOCKS,)
    i = first * 8 + tl.arange(0, 8 * BLOCKS)
    tl.store(values + (i - start), tl.load(table + index), mask=(i >= start) & (i < stop))
