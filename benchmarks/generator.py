"""The generator of frozen weights: seconds per 100 million values of a family, beside torch.randn.

The SHA-256 is of the values as little-endian float32. It is the same on every machine and for every number of
threads, except for families marked as not bit-exact.
"""

import hashlib
import math
import time
from collections.abc import Sequence

import torch

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Source
from lottalora.scaffold import draw

UNIT = 1e8  # values


def report(
    values: int, families: Sequence[str] = ("normal", "binary", "student_t"), repeats: int = 3
) -> None:
    """Print the times and digests.

    Args:
        values: drawn at once, as a square matrix.
        families: by name.
        repeats: the fastest counts.
    """
    side = math.isqrt(values)
    values = side * side
    print(f"{side:,} × {side:,} float32, fastest of {repeats}, torch threads: {torch.get_num_threads()}")
    print(f"{'':<26}{'s per 1e8':>10}{'÷ randn':>9}  SHA-256")
    randn, _ = fastest(lambda: torch.randn(side, side), repeats)
    print(f"{'torch.randn':<26}{randn * UNIT / values:>10.2f}{1:>9.2f}")
    for name in families:
        source = Source(42, "bench", (side, side), name)
        seconds, W_seed = fastest(lambda source=source: draw(source), repeats)
        digest = hashlib.sha256(W_seed.numpy()).hexdigest()
        note = "" if FAMILIES[name].exact else " (not bit-exact)"
        print(f"{name:<26}{seconds * UNIT / values:>10.2f}{seconds / randn:>9.2f}  {digest}{note}")


def fastest(make, repeats):
    """Seconds of the fastest of several calls, and the last result."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = make()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result
