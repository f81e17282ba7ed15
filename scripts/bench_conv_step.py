"""Time a training step of Plain-20 on its scaffold against full training: batch 128, fused AdamW, one thread.

    python scripts/bench_conv_step.py --rank 8 --turns 15

The arms take turns, so that whatever else the machine does falls on all of them, after two steps of each that
are not counted; the median of the ratios of each turn is printed, in seconds of the processor. `two paths` is
the same scaffold with the convolutions of W_seed, A and B apart, as the library has them for large kernels.
Aim: a ratio of at most 1.05 for the scaffold.
"""

import argparse
import statistics
import time
from unittest.mock import patch

import torch
from torch.nn import functional as F

from lottalora.models.resnet import ResNet
from lottalora.scaffold import Scaffold
from lottalora.scaffold import convolution
from lottalora.scaffold import wrap

BATCH = 128  # images


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--turns", type=int, default=15, help="steps of each arm that are counted")
    parser.add_argument("--depth", type=int, default=20, help="layers of the network, 6n + 2")
    options = parser.parse_args()
    torch.set_num_threads(1)

    arms = {
        "full": arm(options.depth, None),
        "scaffold": arm(options.depth, Scaffold(rank=options.rank)),
        "dora+residual": arm(options.depth, Scaffold(rank=options.rank, dora=True, residual=True)),
        "two paths": apart(arm(options.depth, Scaffold(rank=options.rank))),
    }
    seconds = {name: [] for name in arms}
    for turn in range(options.turns + 2):
        for name, step in arms.items():
            began = time.process_time()
            step()
            if turn >= 2:
                seconds[name].append(time.process_time() - began)
    for name, spent in seconds.items():
        ratio = statistics.median(mine / base for mine, base in zip(spent, seconds["full"], strict=True))
        step = 1000 * statistics.median(spent)
        aim = " (aim ≤ 1.05)" if name == "scaffold" else ""
        print(f"{name:<14}{step:7.1f} ms a step, ÷ full training = {ratio:.3f}{aim}", flush=True)


def arm(depth: int, scaffold: Scaffold | None):
    """One training step of a network of its own, as a function."""
    torch.manual_seed(0)
    net = ResNet((3, 32, 32), 10, depth=depth, shortcut=False)
    if scaffold:
        wrap(net, scaffold, keep=["head"])
    optimizer = torch.optim.AdamW(net.parameters(), fused=True)
    x, label = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(net(x), label).backward()
        optimizer.step()

    return step


def apart(step):
    """The same step with no kernel composed."""

    def two_paths() -> None:
        with patch.object(convolution, "composed_is_faster", lambda *_: False):
            step()

    return two_paths


if __name__ == "__main__":
    main()
