"""Time layers, training steps, the training loop and the generator of weights.

    python -m benchmarks                        all, in about ten minutes on two cores; writes docs/speed.md
    python -m benchmarks steps --only mlp cfc   training steps of two benchmarks, printed
    python -m benchmarks --device cuda          on a GPU: tokens/s, peak memory, the paper's Table 9

Of a part, speed.md, .csv and .svg are written only with --out DIR, so that none takes the place of the whole.

The arms of a comparison have the same batch and optimizer. They take turns in one process, so that whatever
else the machine does falls on all of them. What is compared is the processor's seconds of one thread, on a
GPU those of the clock, as a ratio to full training in the same turn. Before anything is timed, gradients are
compared with those of the equation: if one is zero or differs, that comparison is not made.
"""

import argparse
import gc
from collections.abc import Callable
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch

from benchmarks import generator
from benchmarks import kernels
from benchmarks import layers
from benchmarks import loop
from benchmarks import pages
from benchmarks import selection
from benchmarks import steps
from benchmarks.timing import Line
from benchmarks.timing import Timing
from lottalora.data.sources.memory import retain_freed_memory

Job = Callable[[], list[Line]]
DOCS = Path("docs")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "groups",
        nargs="*",
        metavar="GROUP",
        help=f"{', '.join(selection.ON_CPU)}; on a GPU {', '.join(selection.ON_GPU)}; all by default",
    )
    parser.add_argument("--only", nargs="+", metavar="NAME", help="some layers or training steps, by name")
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--seconds", type=float, help="for each layer and training step; 20, on a GPU 4")
    parser.add_argument("--epochs", type=int, default=20, help="of the training loop")
    parser.add_argument("--values", type=int, default=10**8, help="that the generator draws")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="a GPU if there is one")
    parser.add_argument("--out", type=Path, metavar="DIR", help="for speed.md, .csv, .svg; of all: docs")
    options = parser.parse_args()
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    groups = selection.select(parser, options)
    whole = not options.groups and not options.only
    out = options.out or (DOCS if whole else None)
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
        if out:
            pages.write(lines, out, options.device)
        for line in found:
            print(f"{name}, {line.arm}: {line.milliseconds:.2f} ms, ratio {line.ratio:.2f}", flush=True)
    if lines:
        print("\n".join(pages.page(lines, options.device)))
    if "loop" in groups:
        loop.report(options.epochs)
    if "generator" in groups:
        generator.report(options.values)
    if missing:
        raise SystemExit(f"Not measured: {', '.join(missing)}.")


def jobs(groups: Sequence[str], options: argparse.Namespace, timing: Timing) -> list[tuple[str, Job]]:
    """What the words ask for: names, and functions that measure."""

    def asked(group: str) -> list[str]:
        names = selection.names_in(group, options.device) if group in groups else ()
        return [name for name in names if name in (options.only or names)]

    found = [(name, partial(layers.measure, name, options.rank, timing)) for name in asked("layers")]
    for name in asked("steps"):
        found.append((name, partial(steps.measure, name, options.rank, timing)))
    if "kernels" in groups:
        found.append(("kernels", partial(kernels.measure, timing)))
    for name in asked("graphs"):
        found.append((f"{name}, CUDA graph", partial(kernels.measure_graph, name, options.rank, timing)))
    return found


if __name__ == "__main__":
    main()
