"""The next token of a text."""

import math

import torch
from torch import Tensor
from torch import nn
from torchmetrics import Metric

from lottalora.data.spec import DataSpec
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import Task
from lottalora.tasks.base import output

RECENT = 100  # steps: the last of an epoch, over whose loss train_loss is the mean


class MeanLoss(Metric):
    """The mean over all tokens of a part, from the mean of each batch."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, mean: Tensor, target: Tensor) -> None:
        self.total += mean.double() * target.numel()
        self.count += target.numel()

    def compute(self) -> Tensor:
        return self.total / self.count


class Language(Task):
    """Cross-entropy of each token given those before it in its block, scored by its mean in nats.

    Further scores: the perplexities, the test part's bits for each byte of its text, and the mean loss of the
    last training steps. The net has a method `loss(tokens, target)`.
    """

    def __init__(
        self, net: nn.Module, spec: DataSpec, optimizer: MakeOptimizer, schedule: MakeSchedule
    ) -> None:
        super().__init__(net, MeanLoss(), optimizer, schedule)
        # Both are kept with the weights of the best epoch, so that they are that epoch's.
        self.register_buffer("recent", torch.full((RECENT,), math.nan))
        self.register_buffer("validated", torch.tensor(math.nan))

    def step(self, batch: tuple[Tensor, Tensor]) -> Step:
        tokens, target = batch  # (N, T), (N, T)
        loss = self.net.loss(tokens, target)
        return Step(loss, loss.detach(), target.flatten())

    def training_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict:
        step = self.step(batch)
        self.recent.copy_(torch.cat([self.recent[1:], step.loss.detach()[None].to(self.recent)]))
        return output(step)

    def on_train_epoch_start(self) -> None:  # not called where a run goes on in the middle of an epoch
        self.recent.fill_(math.nan)

    def on_validation_epoch_end(self) -> None:
        self.validated.copy_(self.validation_score.compute())

    def further_scores(self) -> dict[str, float]:
        loss, part = self.trainer.callback_metrics["test/score"].item(), self.trainer.test_dataloaders
        return {
            "perplexity": math.exp(loss) if loss < 700 else math.inf,
            "validation_perplexity": self.validated.exp().item(),
            "bits_per_byte": loss * part.scored / (part.text_bytes * math.log(2)),
            "train_loss": self.recent.nanmean().item(),
        }
