"""Labels that are shares of classes in training, and one class per example otherwise."""

from pytorch_lightning import Callback
from torch import Tensor
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import MulticlassAccuracy

from lottalora.data.spec import DataSpec
from lottalora.tasks.averages import EMA
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task


class MixedClassification(Task):
    """Cross-entropy with the shares of mixed images; top-1 accuracy of the averaged weights over both views.

    Args:
        net, spec, optimizer, schedule: as of every task.
        label_smoothing: share of each label that is spread over all classes, in training.
        average: decay of the average of the weights, which is what is validated, tested and kept; None: none.
        flip: score the mean logits of an image and its mirror image.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        *,
        label_smoothing: float,
        average: float | None,
        flip: bool,
    ) -> None:
        metric = MulticlassAccuracy(spec.out_dim, average="micro", validate_args=False)
        super().__init__(net, metric, optimizer, schedule)
        self.label_smoothing = label_smoothing
        self.average = average
        self.flip = flip

    def averages(self) -> list[Callback]:
        return [] if self.average is None else [EMA(self.average)]

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        x, target = batch  # (N, C, H, W), and (N, classes) in training, (N,) otherwise
        logits = self.net(x)  # (N, classes)
        if self.training:
            loss = F.cross_entropy(logits, target, label_smoothing=self.label_smoothing)
            return Step(loss, logits, target)
        if self.flip:
            logits = (logits + self.net(x.flip(-1))) / 2
        return Step(F.cross_entropy(logits, target), logits, target)
