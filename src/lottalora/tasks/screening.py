"""One yes or no per example, said by one logit, the yes rare."""

import torch
from torch import Tensor
from torch import nn
from torch.nn import functional as F
from torchmetrics.classification import BinaryAUROC

from lottalora.data.spec import DataSpec
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task


class Screening(Task):
    """Binary cross-entropy in which a yes counts as often as there are noes for each in the training part;
    scored by the area under the ROC curve."""

    def __init__(
        self, net: nn.Module, spec: DataSpec, optimizer: MakeOptimizer, schedule: MakeSchedule
    ) -> None:
        super().__init__(net, BinaryAUROC(validate_args=False), optimizer, schedule)
        self.positive_weight = 1.0

    def on_train_start(self) -> None:
        labels = self.trainer.train_dataloader.labels
        self.positive_weight = float((labels == 0).sum() / labels.sum())

    def step(self, batch: tuple[tuple[Tensor, ...], Tensor]) -> Step:
        x, label = batch  # of the data module, (N,)
        logits = self.net(x)[:, 0]  # (N, 1) → (N,)
        weight = torch.full_like(logits, self.positive_weight)
        loss = F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), pos_weight=weight)
        risk = logits.detach().double().sigmoid()  # in float32, sure cases would tie at 1
        return Step(loss, risk, label)
