"""A vector of numbers per example: squared error."""

from torch import Tensor
from torch import nn
from torch.nn import functional as F
from torchmetrics import MeanSquaredError

from lottalora.data.spec import DataSpec
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task


class Regression(Task):
    """Mean squared error, scored by itself over the whole split; targets have a variance of 1."""

    def __init__(
        self, net: nn.Module, spec: DataSpec, optimizer: MakeOptimizer, schedule: MakeSchedule
    ) -> None:
        super().__init__(net, MeanSquaredError(), optimizer, schedule)

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        x, target = batch  # of the data, (N, out)
        prediction = self.net(x)  # (N, out)
        return Step(F.mse_loss(prediction, target), prediction, target)
