"""Time a training step of CfC: the suite's loop over time against that of ncps, dense and on a scaffold.

    python scripts/bench_cfc.py --repeats 20

All arms have the same batches, weights and optimizer, and one thread. They take turns, so that whatever
else the machine does falls on all of them, after a step of each that is not counted; the medians of the
processor's seconds are compared. The batches are noise in 70 steps, without padding, which ncps would go
through and the suite leaves out; --root takes real ones. Aim: a scaffold takes at most 0.92 of the time of
full training by ncps.
"""

import argparse
import statistics
import time

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F

from lottalora.data.batches.batch import Sequences
from lottalora.data.physionet2012 import PhysioNet2012
from lottalora.models.cfc import CfC
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap

RANKS = (1, 8, 32)
BATCH = 128  # records
STEPS = 70  # of a made record; the real ones have 75 in the mean


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=20, help="steps of each arm; the medians are compared")
    parser.add_argument("--root", help="folder of the real data; in place of made batches")
    parser.add_argument("--hidden", type=int, default=256, help="hidden units; the backbone has a quarter")
    options = parser.parse_args()

    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    batches = real(options.root) if options.root else [made(seed) for seed in range(3)]
    arms = {name: training_step(run, options.hidden, rank) for name, (run, rank) in ARMS.items()}
    for step in arms.values():
        step(*batches[0])
    seconds = {name: [] for name in arms}
    for turn in range(options.repeats):
        for name, step in arms.items():
            began = time.process_time()
            step(*batches[turn % len(batches)])
            seconds[name].append(time.process_time() - began)
    report({name: statistics.median(each) for name, each in seconds.items()})


def report(median: dict[str, float]) -> None:
    full, ours = median["ncps, full"], median["suite, full"]
    print(f"{'arm':<16} ms a step   ÷ full by ncps   ÷ full by the suite")
    for name, each in median.items():
        print(f"{name:<16} {1000 * each:9.1f}   {each / full:14.2f}   {each / ours:19.2f}")


class ByNcps(nn.Module):
    """The same weights in the loop over time that ncps has."""

    def __init__(self, net: CfC) -> None:
        from ncps.torch import CfC as Ncps

        super().__init__()
        self.head = net.head
        width, hidden = net.cell.input_size, net.cell.hidden_size
        self.loop = Ncps(width, hidden, backbone_layers=2, backbone_units=1)
        self.loop.rnn_cell = net.cell

    def forward(self, x: Sequences) -> Tensor:
        hidden = self.loop.rnn_cell.hidden_size
        elapsed = x.elapsed[:, :, None].expand(-1, -1, hidden)  # (B, T) is silently wrong where B = hidden
        states, _ = self.loop(x.inputs, timespans=elapsed)  # (B, T, H)
        return self.head(states[torch.arange(len(states)), x.lengths - 1])


def by_the_suite(net: CfC) -> nn.Module:
    return net


ARMS = {
    "ncps, full": (ByNcps, None),
    "suite, full": (by_the_suite, None),
    **{f"suite, r={rank}": (by_the_suite, rank) for rank in RANKS},
    **{f"ncps, r={rank}": (ByNcps, rank) for rank in RANKS},
}


def training_step(run, hidden: int, rank: int | None):
    """One step of an arm, as a function of a batch and its labels."""
    torch.manual_seed(0)
    net = CfC(PhysioNet2012.spec.in_shape, 2, hidden=hidden, backbone=hidden // 4, dropout=0.2)
    if rank:
        wrap(net, Scaffold(rank=rank), keep=["head"])
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=4e-6, fused=True)
    logits = run(net)

    def step(x: Sequences, label: Tensor) -> None:
        optimizer.zero_grad()
        F.cross_entropy(logits(x), label).backward()
        optimizer.step()

    return step


def real(root: str) -> list[tuple[Sequences, Tensor]]:
    return list(PhysioNet2012(root=root, batch_size=BATCH).read().train_batches(seed=0))


def made(seed: int) -> tuple[Sequences, Tensor]:
    torch.manual_seed(seed)
    lengths = torch.full((BATCH,), STEPS)
    inputs = torch.rand(BATCH, STEPS, *PhysioNet2012.spec.in_shape)
    return Sequences(inputs, torch.rand(inputs.shape[:2]), lengths), torch.randint(0, 2, (BATCH,))


if __name__ == "__main__":
    main()
