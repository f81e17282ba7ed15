"""Two classes, one of them rare: weighted cross-entropy, scored by the area under the ROC curve."""

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


class Binary(Task):
    """Cross-entropy of one logit or two, weighted by class.

    With two logits the loss is the weighted mean over the batch; with one it is the mean of
    `binary_cross_entropy_with_logits` with `pos_weight`.

    Args:
        net, spec, optimizer, schedule: see `Task`; spec.out_dim is 1 or 2.
        positive_weight: of class 1; class 0 weighs 1. None: negatives / positives of the training split.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        *,
        positive_weight: float | None,
    ) -> None:
        super().__init__(net, BinaryAUROC(validate_args=False), optimizer, schedule)
        self.balanced = positive_weight is None
        self.positive_weight = 1.0 if positive_weight is None else positive_weight

    def on_train_start(self) -> None:
        if self.balanced:
            labels = self.trainer.train_dataloader.labels
            self.positive_weight = float((labels == 0).sum() / labels.sum())

    def step(self, batch: tuple[tuple[Tensor, ...], Tensor]) -> Step:
        x, label = batch  # of the data module, (N,)
        logits = self.net(x)  # (N, 1) or (N, 2)
        return self._one_logit(logits[:, 0], label) if logits.shape[1] == 1 else self._two(logits, label)

    def _one_logit(self, logits: Tensor, label: Tensor) -> Step:
        weight = torch.full_like(logits, self.positive_weight)
        loss = F.binary_cross_entropy_with_logits(logits, label.to(logits.dtype), pos_weight=weight)
        risk = logits.detach().double().sigmoid()  # in float32, sure cases would tie at 1
        return Step(loss, risk, label)

    def _two(self, logits: Tensor, label: Tensor) -> Step:
        weights = logits.new_tensor([1, self.positive_weight])
        loss = F.cross_entropy(logits, label, weights)
        risk = logits.detach().double().softmax(1)[:, 1]  # in float64 for the same reason
        return Step(loss, risk, label, weights[label].sum())


def balanced(net: nn.Module, spec: DataSpec, optimizer: MakeOptimizer, schedule: MakeSchedule) -> Binary:
    """`Binary` with positive_weight = negatives / positives of the training split."""
    return Binary(net, spec, optimizer, schedule, positive_weight=None)
