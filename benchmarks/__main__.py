"""Time layers, training steps, the training loop and the generator of weights.

    python -m benchmarks                        all, in about ten minutes on two cores
    python -m benchmarks steps --only mlp cfc   training steps of two benchmarks
    python -m benchmarks --device cuda          on a GPU: tokens/s, peak memory, the paper's Table 9

The arms of a comparison have the same batch and optimizer. They take turns in one process, so that whatever
else the machine does falls on all of them. What is compared is the processor's seconds of one thread, on a
GPU those of the clock, as a ratio to full training in the same turn. Before anything is timed, gradients are
compared with those of the equation: if one is zero or differs, nothing is printed.
"""

import argparse
from pathlib import Path

import torch

from benchmarks import generator
from benchmarks import layers
from benchmarks import loop
from benchmarks import pages
from benchmarks import steps
from benchmarks.timing import Timing
from lottalora.data.sources.memory import retain_freed_memory

GROUPS = ("layers", "steps", "loop", "generator")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("groups", nargs="*", metavar="GROUP", help=f"{', '.join(GROUPS)}; all by default")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some layers or training steps, by name")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=25, help="for each layer and training step")
    parser.add_argument("--epochs", type=int, default=20, help="of the training loop")
    parser.add_argument("--values", type=int, default=10**8, help="that the generator draws")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of speed.md, .csv and .svg")
    options = parser.parse_args()
    groups = options.groups or GROUPS
    unknown = [name for name in groups if name not in GROUPS]
    cases = {**layers.CASES, **steps.CASES, **steps.TABLE_9}
    unknown += [name for name in options.only or () if name not in cases]
    if unknown:
        known = ", ".join((*GROUPS, *cases))
        parser.error(f"unknown: {', '.join(unknown)}. Known: {known}")
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    retain_freed_memory()
    timing = Timing(options.seconds, options.device)
    lines = []
    for group, module in (("layers", layers), ("steps", steps)):
        for name in [n for n in module.CASES if group in groups and n in (options.only or module.CASES)]:
            lines += module.measure(name, options.rank, timing)
            pages.write(lines, options.out, options.device)
    if options.device == "cuda" and "steps" in groups:
        for name in [n for n in steps.TABLE_9 if n in (options.only or steps.TABLE_9)]:
            lines += steps.measure(name, options.rank, timing)
            pages.write(lines, options.out, options.device)
    if lines:
        print((options.out / "speed.md").read_text())
    if "loop" in groups:
        loop.report(options.epochs)
    if "generator" in groups:
        generator.report(options.values)


if __name__ == "__main__":
    main()
