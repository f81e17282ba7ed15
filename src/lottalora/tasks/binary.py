"""One yes or no per example, the yes rare."""

from torch import Tensor
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import BinaryAUROC

from lottalora.data.spec import DataSpec
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task


class Binary(Task):
    """Cross-entropy of two logits, weighted by class, scored by the area under the ROC curve.

    The loss of a batch is the mean over its examples, each counted by the weight of its class.

    Args:
        positive_weight: weight of class 1; that of class 0 is 1.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        *,
        positive_weight: float,
    ) -> None:
        super().__init__(net, BinaryAUROC(validate_args=False), optimizer, schedule)
        self.positive_weight = positive_weight

    def step(self, batch: tuple[tuple[Tensor, ...], Tensor]) -> Step:
        x, label = batch  # of the data module, (N,)
        logits = self.net(x)  # (N, 2)
        weights = logits.new_tensor([1, self.positive_weight])
        loss = F.cross_entropy(logits, label, weights)
        risk = logits.detach().double().softmax(1)[:, 1]  # in float32, sure cases would tie at 1
        return Step(loss, risk, label, weights[label].sum())
