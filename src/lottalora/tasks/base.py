"""The base of all tasks: the three steps, the score of a whole split, the optimizer."""

import inspect
from abc import ABC
from abc import abstractmethod
from collections.abc import Callable
from collections.abc import Iterable
from typing import NamedTuple

from pytorch_lightning import Callback
from pytorch_lightning import LightningModule
from torch import Tensor
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from lottalora.tasks.schedules import PerStep
from lottalora.tasks.weight_decay import groups

MakeOptimizer = Callable[[Iterable[nn.Parameter] | list[dict]], Optimizer]
MakeSchedule = Callable[[Optimizer], LRScheduler]


class Step(NamedTuple):
    """What one batch gives: the loss, a scalar, and what the metric compares.

    The weight is what the loss counts by among those of other batches: the divisor of its mean. None: the
    number of examples.
    """

    loss: Tensor
    prediction: Tensor
    target: Tensor
    weight: Tensor | None = None


class Task(LightningModule, ABC):
    """One net, one loss, one score that is accumulated over the whole of a split.

    A final class gives `step`. Logged: validation/score and test/score; not the training loss, since a log
    entry per step costs as much as a step of a small net.

    Args:
        net: the network; whether it stands on a scaffold is not known here.
        metric: of one split; copied, so that splits do not mix.
        optimizer: called with everything that is trained.
        schedule: called with the optimizer, stepped once an epoch; or `PerStep`, stepped at every step.
    """

    decay = "all"  # what weight decay acts on, see `weight_decay.groups`; set by `training.fit`
    steps = 0  # of the optimizer in the whole run; likewise

    def __init__(
        self, net: nn.Module, metric: Metric, optimizer: MakeOptimizer, schedule: MakeSchedule | PerStep
    ) -> None:
        super().__init__()
        self.net = net
        self.validation_score = metric.clone()
        self.test_score = metric.clone()
        self.make_optimizer = optimizer
        self.make_schedule = schedule

    @abstractmethod
    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        """Loss, prediction and target of one batch."""

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict:
        return output(self.step(batch))

    training_step.__signature__ = inspect.signature(training_step)  # Lightning looks it up before each step

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict:
        step = self.step(batch)
        self.validation_score.update(step.prediction, step.target)
        self.log("validation/score", self.validation_score, on_epoch=True)
        return output(step)

    def test_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict:
        step = self.step(batch)
        self.test_score.update(step.prediction, step.target)
        self.log("test/score", self.test_score, on_epoch=True)
        return output(step)

    def further_scores(self) -> dict[str, float]:
        """Measure further scores of the trained weights, after the test: name → value."""
        return {}

    def averages(self) -> list[Callback]:
        """Return what averages the trained weights in training; see `lottalora.tasks.averages`."""
        return []

    def trained(self) -> list[nn.Parameter]:
        """Return the parameters that the optimizer updates: all but a sharded W_seed."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Optimizer) -> None:
        """Drop the gradients as the optimizer itself does, but keep no record for the profiler."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def __setattr__(self, name: str, value: object) -> None:
        """Set a plain attribute without `nn.Module`'s search: Lightning notes 30 names of hooks in a step."""
        if (value is None or type(value) is str) and name in self.__dict__:
            object.__setattr__(self, name, value)
        else:
            super().__setattr__(name, value)

    def configure_optimizers(self) -> tuple[list[Optimizer], list[dict]]:
        trained = groups(self.net, self.trained(), self.decay)
        try:
            optimizer = self.make_optimizer(trained)
        except (TypeError, ValueError) as error:
            raise ValueError(
                f"These settings make no optimizer: {error}. Type optimizer.KEY=VALUE."
            ) from error
        # A fused optimizer would undo a loss scale within its step, too late for clipping, which Lightning
        # therefore refuses, even where bf16 needs no scale. Now the scale is undone before both.
        optimizer._step_supports_amp_scaling = False
        if isinstance(self.make_schedule, PerStep):
            # Lightning's own count of the steps would set up its loader here, before a checkpoint says at which
            # batch to go on, and that would then be ignored.
            return [optimizer], [{"scheduler": self.make_schedule(optimizer, self.steps), "interval": "step"}]
        return [optimizer], [{"scheduler": self.make_schedule(optimizer), "interval": "epoch"}]


def output(step: Step) -> dict:
    """Return what callbacks sum over an epoch: the mean loss of a batch and its weight."""
    return {"loss": step.loss, "count": len(step.target) if step.weight is None else step.weight}
