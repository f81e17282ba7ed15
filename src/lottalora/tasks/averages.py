"""The average of the trained weights over the steps of a run."""

import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import Tensor

from lottalora.tasks.base import Task


class EMA(Callback):
    r"""An exponential moving average of what is trained: these weights are validated, kept and tested.

    .. math:: \bar\theta \leftarrow d\, \bar\theta + (1 - d)\, \theta, \qquad
              d = \min(\mathrm{decay}, (1 + n) / (10 + n))

    n is the number of optimizer steps before. The minimum is a warm-up: B starts at 0, so an average with a
    decay of 0.9997 from the first step on would for thousands of steps be a model whose adapters do almost
    nothing, and early stopping would end the run for lack of progress. So it is over the last tenth of the
    steps, until n reaches 30,000.

    Args:
        decay: d in the long run, from 0 to below 1.

    Source: the warm-up is that of TensorFlow's ExponentialMovingAverage.
    """

    state_key = "Average"  # its name in checkpoints of earlier versions

    def __init__(self, decay: float) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"task.average must be from 0 to below 1, got {decay!r}.")
        self.decay = decay
        self.steps = 0
        self.weights: list[Tensor] = []

    def state_dict(self) -> dict:
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.weights = state["steps"], state["weights"]

    def on_train_start(self, _: Trainer, task: Task) -> None:
        start = self.weights or [parameter.detach() for parameter in task.trained()]
        self.weights = [weight.to(task.device, copy=True) for weight in start]

    @torch.no_grad()
    def on_train_batch_end(self, trainer: Trainer, task: Task, *_: object) -> None:
        if trainer.global_step == self.steps:  # gradients were accumulated only
            return
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        for weight, parameter in zip(self.weights, task.trained(), strict=True):
            weight.lerp_(parameter, 1 - decay)
        self.steps = trainer.global_step

    def on_validation_start(self, _: Trainer, task: Task) -> None:
        self.exchange(task)

    def on_validation_end(self, _: Trainer, task: Task) -> None:
        """After Best, which keeps the weights that there are."""
        self.exchange(task)

    @torch.no_grad()
    def exchange(self, task: Task) -> None:
        """Swap the task's weights and their average."""
        for parameter, weight in zip(task.trained(), self.weights, strict=True):
            held = parameter.clone()
            parameter.copy_(weight)
            weight.copy_(held)
