"""Arms that take turns, and what a turn of each costs."""

import math
import platform
import statistics
import time
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

Arm = Callable[[], None]
FEWEST, MOST = 3, 200  # turns
STEPS = 3  # of a turn on a GPU
FULL = "full training"


class Line(NamedTuple):
    """One arm of one comparison."""

    group: str
    name: str
    arm: str
    milliseconds: float  # median
    ratio: float  # to full training: median, smallest, largest
    smallest: float
    largest: float
    turns: int
    limit: float | None  # counted operations ÷ those of full training
    forms: str
    per_second: float | None = None  # tokens, on a GPU
    megabytes: float | None = None  # peak, on a GPU
    device: str = ""
    to_peft: float | None = None  # time ÷ PEFT's in the same turn: median, and its 95 % interval
    peft_low: float | None = None
    peft_high: float | None = None


class Timing(NamedTuple):
    """How long a comparison takes, and where it runs.

    Args:
        seconds: for all turns of all arms.
        device: cpu or cuda.
    """

    seconds: float
    device: str

    def seconds_of(self, step: Arm) -> float:
        """The processor's seconds of this thread; on a GPU its own, over steps that follow on each other.

        On a CPU a step that is not counted comes first, as in a training each step follows one of its kind.
        Else an arm would pay for weights that the arm before it has put out of the cache, and one that shares
        its weights with the arm before, as the reference does with the scaffold, would not.
        """
        if self.device == "cpu":
            step()
            began = time.thread_time()
            step()
            return time.thread_time() - began
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        begin.record()
        for _ in range(STEPS):
            step()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1000 / STEPS

    def take_turns(self, arms: Mapping[str, Arm]) -> dict[str, list[float]]:
        """The seconds of each turn of each arm; the first turn is not counted."""
        seconds: dict[str, list[float]] = {name: [] for name in arms}
        end = time.perf_counter() + self.seconds
        for turn in range(MOST + 1):
            if turn > FEWEST and time.perf_counter() > end:
                break
            for name, step in arms.items():
                spent = self.seconds_of(step)
                if turn > 0:
                    seconds[name].append(spent)
        return seconds

    def allocated(self) -> int:
        """The bytes that tensors have on a GPU now."""
        return 0 if self.device == "cpu" else torch.cuda.memory_allocated()

    def megabytes(self, step: Arm, before: int) -> float | None:
        """The most memory of a model and its training step on a GPU.

        Args:
            step: its step; the first makes the optimizer's state and is not counted.
            before: bytes allocated before the model was made: those of the other arms.
        """
        if self.device == "cpu":
            return None
        step()
        torch.cuda.reset_peak_memory_stats()
        step()
        return (torch.cuda.max_memory_allocated() - before) / 1e6


def lines_of(
    group: str,
    name: str,
    seconds: Mapping[str, list[float]],
    *,
    limit: float | None,
    forms: str,
    tokens: int = 0,
    megabytes: Mapping[str, float | None],
) -> list[Line]:
    """One line for each arm; limit and forms belong to the one named "scaffold"."""
    lines = []
    for arm, spent in seconds.items():
        ratios = [mine / base for mine, base in zip(spent, seconds[FULL], strict=True)]
        median, ours = statistics.median(spent), arm == "scaffold"
        peft = seconds.get("PEFT", []) if ours else []
        beside = [mine / theirs for mine, theirs in zip(spent, peft, strict=False)]
        lines.append(
            Line(
                *(group, name, arm, 1000 * median, statistics.median(ratios), min(ratios), max(ratios)),
                *(len(spent), limit if ours else None, forms if ours else ""),
                tokens / median if tokens else None,
                megabytes[arm],
                chip(),
                *median_and_interval(beside),
            )
        )
    return lines


def median_and_interval(values: Sequence[float]) -> tuple[float | None, float | None, float | None]:
    """The median and a 95 % interval of it, which asks nothing of the distribution; None where too few."""
    if not values:
        return None, None, None
    from scipy.stats import quantile_test

    low, high = quantile_test(values, p=0.5).confidence_interval()
    known = math.isfinite(low) and math.isfinite(high)
    return statistics.median(values), low if known else None, high if known else None


def chip() -> str:
    """The GPU's name, or the processor's as Linux gives it, or the machine's kind."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    try:
        info = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.machine()
    names = [line.split(":")[1].strip() for line in info.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()


def compare_gradients(
    name: str, reference: Mapping[str, Tensor], ours: Mapping[str, Tensor], tolerance: float = 1e-3
) -> None:
    """Refuse to measure what computes gradients that are zero or not those of the reference."""
    largest = max(gradient.norm() for gradient in reference.values())
    for parameter, true in reference.items():
        error = (ours[parameter] - true).norm()
        if true.norm() == 0 or error > tolerance * true.norm() + 1e-6 * largest:
            raise SystemExit(
                f"{name}: the gradient of {parameter} is zero or differs by {error / true.norm():.1e} of its "
                "norm from the reference's. Nothing was timed."
            )


def operations(step: Arm) -> int:
    """The floating-point operations of matrix products and convolutions in one step."""
    from torch.utils.flop_counter import FlopCounterMode  # imports Triton, which takes seconds

    aten = torch.ops.aten
    products = {aten.addmm_: of_addmm, aten.mm.out: of_mm, aten.addmm.out: of_addmm}
    with FlopCounterMode(display=False, custom_mapping=products) as counter:
        step()
    return counter.get_total_flops()


def of_addmm(_: torch.Size, left: torch.Size, right: torch.Size, **__: object) -> int:
    """For addmm in place, which PyTorch's counter leaves out."""
    return of_mm(left, right)


def of_mm(left: torch.Size, right: torch.Size, **_: object) -> int:
    return 2 * left[0] * left[1] * right[1]
