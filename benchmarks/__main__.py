"""Time layers, training steps, the training loop and the generator of weights.

    python -m benchmarks                        all, in about ten minutes on two cores
    python -m benchmarks steps --only mlp cfc   training steps of two benchmarks
    python -m benchmarks --device cuda          on a GPU: tokens/s, peak memory, the paper's Table 9

The arms of a comparison have the same batch and optimizer. They take turns in one process, so that whatever
else the machine does falls on all of them. What is compared is the processor's seconds of one thread, on a
GPU those of the clock, as a ratio to full training in the same turn. Before anything is timed, gradients are
compared with those of the equation: if one is zero or differs, that comparison is not made.
"""

import argparse
import gc
from collections.abc import Callable
from collections.abc import Iterable
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import generator
from benchmarks import kernels
from benchmarks import layers
from benchmarks import loop
from benchmarks import pages
from benchmarks import steps
from benchmarks.timing import Line
from benchmarks.timing import Timing
from lottalora.data.sources.memory import retain_freed_memory

Job = Callable[[], list[Line]]
GROUPS = ("layers", "steps", "loop", "generator")
ON_GPU = ("layers", "steps", "kernels", "graphs")  # all that runs there


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help=f"{', '.join(GROUPS)}; on a GPU {', '.join(ON_GPU)}; all by default",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some layers or training steps, by name")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seconds", type=float, help="for each layer and training step; 20, on a GPU 4")
    parser.add_argument("--epochs", type=int, default=20, help="of the training loop")
    parser.add_argument("--values", type=int, default=10**8, help="that the generator draws")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one")
    parser.add_argument("--out", type=Path, default=Path("docs"), help="folder of speed.md, .csv and .svg")
    options = parser.parse_args()
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    known_groups = ON_GPU if options.device == "cuda" else GROUPS
    groups = options.groups or known_groups
    unknown = [name for name in groups if name not in known_groups]
    cases = {**layers.CASES, **steps.CASES, **steps.TABLE_9}
    unknown += [name for name in options.only or () if name not in cases]
    if unknown:
        known = ", ".join((*known_groups, *cases))
        parser.error(f"unknown: {', '.join(unknown)}. Known: {known}")
    if options.device == "cpu":
        torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    retain_freed_memory()
    timing = Timing(options.seconds or (4 if options.device == "cuda" else 20), options.device)
    lines, missing = [], []
    for name, make in jobs(groups, options, timing):
        try:
            found = make()
        except (Exception, SystemExit) as error:  # a package may be missing; the others are measured
            print(
                f"{name}: not measured: {(str(error).splitlines() or [type(error).__name__])[0]}", flush=True
            )
            missing.append(name)
            continue
        finally:
            gc.collect()  # a model holds itself in circles, and a GPU's memory with it
        lines += found
        pages.write(lines, options.out, options.device)
        for line in found:
            print(f"{name}, {line.arm}: {line.milliseconds:.2f} ms, ratio {line.ratio:.2f}", flush=True)
    if lines:
        print((options.out / "speed.md").read_text())
    if "loop" in groups:
        loop.report(options.epochs)
    if "generator" in groups:
        generator.report(options.values)
    if missing:
        raise SystemExit(f"Not measured: {', '.join(missing)}.")


def jobs(groups: Sequence[str], options: argparse.Namespace, timing: Timing) -> list[tuple[str, Job]]:
    """What the words ask for: names, and functions that measure."""

    def asked(group: str, cases: Iterable[str]) -> list[str]:
        return [name for name in cases if group in groups and name in (options.only or cases)]

    table_9 = steps.TABLE_9 if options.device == "cuda" else ()
    found = [
        (name, partial(layers.measure, name, options.rank, timing)) for name in asked("layers", layers.CASES)
    ]
    for name in (*asked("steps", steps.CASES), *asked("steps", table_9)):
        found.append((name, partial(steps.measure, name, options.rank, timing)))
    if "kernels" in groups and not options.only:
        found.append(("kernels", partial(kernels.measure, timing)))
    for name in asked("graphs", kernels.GRAPHS):
        found.append((f"{name}, CUDA graph", partial(kernels.measure_graph, name, options.rank, timing)))
    return found


if __name__ == "__main__":
    main()
