"""Averages of the trained weights over the steps of a run."""

from abc import ABC
from abc import abstractmethod

import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import Tensor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.optim.swa_utils import get_ema_multi_avg_fn
from torch.optim.swa_utils import get_swa_multi_avg_fn

from lottalora.tasks.base import Task

DECAY = 0.999  # of trainer.average=ema; PyTorch's
FIRST = 0.75  # share of the steps before those that SWA averages; Izmailov et al.'s


class Average(Callback, ABC):
    """An average of what is trained, which is validated, kept and tested; training goes on with its own.

    A, B, β and heads are averaged; W_seed is the same at every step, so there is no copy of it. PyTorch's
    `AveragedModel` and Lightning's `WeightAveraging` would make one, and Lightning's gives the weights back
    before `Best` keeps them; so of PyTorch's averages the arithmetic alone is used. To come before all other
    callbacks: `Resume` keeps what this has made of a step.
    """

    state_key = "Average"  # its name in checkpoints

    def __init__(self) -> None:
        self.steps = 0
        self.weights: list[Tensor] = []
        self.exchanged = False  # whether the task holds the average

    @abstractmethod
    def include(self, trained: list[nn.Parameter], trainer: Trainer) -> None:
        """Update `weights` by those of the step after the first `steps`."""

    def state_dict(self) -> dict:
        return {"steps": self.steps, "weights": self.weights}

    def load_state_dict(self, state: dict) -> None:
        self.steps, self.weights = state["steps"], state["weights"]

    def on_train_start(self, _: Trainer, task: Task) -> None:
        start = self.weights or [parameter.detach() for parameter in task.trained()]
        self.weights = [weight.to(task.device, copy=True) for weight in start]

    def on_train_batch_end(self, trainer: Trainer, task: Task, *_: object) -> None:
        if trainer.global_step == self.steps:  # gradients were accumulated only
            return
        self.include(task.trained(), trainer)
        self.steps = trainer.global_step

    def on_validation_start(self, _: Trainer, task: Task) -> None:
        self.exchange(task)

    def on_train_epoch_end(self, _: Trainer, task: Task) -> None:
        """After validation, whose end tells `Best` to keep the weights that there are."""
        if self.exchanged:
            self.exchange(task)

    def on_train_end(self, _: Trainer, task: Task) -> None:
        """Leave the average in the task, where no validation part chooses weights."""
        self.exchange(task)

    @torch.no_grad()
    def exchange(self, task: Task) -> None:
        """Swap the task's weights and their average."""
        for parameter, weight in zip(task.trained(), self.weights, strict=True):
            held = parameter.clone()
            parameter.copy_(weight)
            weight.copy_(held)
        self.exchanged = not self.exchanged


class EMA(Average):
    r"""An exponential moving average.

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

    def __init__(self, decay: float = DECAY) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"task.average must be from 0 to below 1, got {decay!r}.")
        super().__init__()
        self.decay = decay

    def include(self, trained: list[nn.Parameter], _: Trainer) -> None:
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(self.weights, trained, self.steps)


class SWA(Average):
    """Stochastic weight averaging: the mean over the weights after each step of the last quarter of a run.

    Before that the weights are those of training. The learning rate is the recipe's.

    Source: Izmailov et al. 2018, https://arxiv.org/abs/1803.05407, who average once an epoch; recipes here
    have as few as one.
    """

    def include(self, trained: list[nn.Parameter], trainer: Trainer) -> None:
        first = int(FIRST * trainer.estimated_stepping_batches)
        averaged = max(0, self.steps - first)  # steps of the mean so far; at 0 the weights are copied
        get_swa_multi_avg_fn()(self.weights, trained, averaged)


AVERAGES = {"ema": EMA, "swa": SWA}


def averages_of(name: str | None, net: nn.Module) -> list[Average]:
    """What `trainer.average` asks for.

    Raises:
        ValueError: the net has batch normalisation, whose statistics are not those of averaged weights.
    """
    if name is None:
        return []
    if any(isinstance(module, _BatchNorm) for module in net.modules()):
        raise ValueError(
            f"trainer.average={name} averages weights, and this net has batch normalisation, whose "
            "statistics belong to the weights of training. Type trainer.average=null."
        )
    return [AVERAGES[name]()]
