"""Time the generator of frozen weights: seconds per 100 million values of a family, beside torch.randn.

    python scripts/bench_generator.py --families normal binary --values 100000000

The SHA-256 is of the values as little-endian float32. It is the same on every machine and for every number of
threads, except for families marked as not bit-exact.
"""

import argparse
import hashlib
import math
import time

import torch

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Source
from lottalora.scaffold import draw
from lottalora.scaffold.families import find_family

UNIT = 1e8  # values


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--families", nargs="+", default=["normal", "binary", "student_t"], metavar="FAMILY")
    parser.add_argument("--values", type=int, default=int(UNIT), help="drawn at once, as a square matrix")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts")
    options = parser.parse_args()
    for name in options.families:
        find_family(name)

    side = math.isqrt(options.values)
    values = side * side
    print(
        f"{side:,} × {side:,} float32, fastest of {options.repeats}, torch threads: {torch.get_num_threads()}"
    )
    print(f"{'':<22}{'s per 1e8':>10}{'÷ randn':>9}  SHA-256")
    randn, _ = fastest(lambda: torch.randn(side, side), options.repeats)
    print(f"{'torch.randn':<22}{randn * UNIT / values:>10.2f}{1:>9.2f}")
    for name in options.families:
        source = Source(42, "bench", (side, side), name)
        seconds, W_seed = fastest(lambda source=source: draw(source), options.repeats)
        digest = hashlib.sha256(W_seed.numpy()).hexdigest()
        note = "" if FAMILIES[name].exact else " (not bit-exact)"
        print(f"{name:<22}{seconds * UNIT / values:>10.2f}{seconds / randn:>9.2f}  {digest}{note}")


def fastest(make, repeats):
    """Seconds of the fastest of several calls, and the last result."""
    seconds = []
    for _ in range(repeats):
        begin = time.perf_counter()
        result = make()
        seconds.append(time.perf_counter() - begin)
    return min(seconds), result


if __name__ == "__main__":
    main()
