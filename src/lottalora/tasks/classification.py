"""One label per example."""

from torch import Tensor
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lottalora.data.spec import DataSpec
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task


class Classification(Task):
    """Cross-entropy, scored by top-1 accuracy over the whole split."""

    def __init__(
        self, net: nn.Module, spec: DataSpec, optimizer: MakeOptimizer, schedule: MakeSchedule
    ) -> None:
        metric = MulticlassAccuracy(spec.out_dim, average="micro", validate_args=False)
        super().__init__(net, metric, optimizer, schedule)

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        x, label = batch  # (N, *in_shape), (N,)
        logits = self.net(x)  # (N, classes)
        return Step(F.cross_entropy(logits, label), logits, label)
