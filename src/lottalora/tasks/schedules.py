"""Learning rates that change at every optimizer step."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

SHAPES: dict[str, Callable[[float], float]] = {  # share of the way after warm-up → share of the rate
    "constant": lambda _: 1.0,
    "linear": lambda way: 1 - way,
    "cosine": lambda way: (1 + math.cos(math.pi * way)) / 2,
}


@dataclass(frozen=True)
class PerStep:
    """A linear warm-up, then a constant rate or a decay to 0 at the last step.

    Args:
        warmup: below 1 a share of all steps, from 1 on a number of steps.
        shape: constant, linear or cosine.

    Raises:
        ValueError: a negative warm-up, or an unknown shape.
    """

    warmup: float
    shape: str = "constant"

    def __post_init__(self) -> None:
        if not self.warmup >= 0:
            raise ValueError(f"schedule.warmup must be 0 or more, got {self.warmup!r}.")
        if self.shape not in SHAPES:
            raise ValueError(f"Unknown schedule.shape {self.shape!r}. Known: {', '.join(SHAPES)}.")

    def factor(self, step: int, steps: int) -> float:
        """Return the factor of the learning rate at a step, counted from 0, of all steps."""
        warmup = self.warmup if self.warmup >= 1 else self.warmup * steps
        if step < warmup:
            return (step + 1) / (warmup + 1)
        way = (step - warmup) / max(steps - warmup, 1)
        return SHAPES[self.shape](min(way, 1.0))

    def __call__(self, optimizer: Optimizer, steps: int) -> LambdaLR:
        return LambdaLR(optimizer, lambda step: self.factor(step, steps))
