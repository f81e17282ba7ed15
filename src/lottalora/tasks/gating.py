"""Seed gating: one shared adapter, of which the scaffold says which digits it is to name.

Letters: N images, k scaffolds.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch import nn
from torchmetrics import Metric

from lottalora.data.gated_mnist import DIGITS
from lottalora.data.gated_mnist import OUTSIDE
from lottalora.data.gated_mnist import part_of
from lottalora.data.spec import DataSpec
from lottalora.scaffold import resample
from lottalora.tasks.base import MakeOptimizer
from lottalora.tasks.base import MakeSchedule
from lottalora.tasks.base import Step
from lottalora.tasks.base import output
from lottalora.tasks.classification import Classification


class Gating(Classification):
    """Cross-entropy; the score is the accuracy over all pairs of a scaffold and a digit that it is asked.

    A scaffold is asked its own digits; with the out-of-class label, all digits that are trained. Scaffold i
    is number i = 1 … k of the backbone seed, and its digits are groups[i − 1].

    Args:
        net, spec, optimizer, schedule: as of every task.
        groups: the digits of each scaffold.
        out_of_class: whether there is an eleventh label, for digits of another scaffold.

    Source: the paper, Figure 3.
    """

    def __init__(
        self,
        net: nn.Module,
        spec: DataSpec,
        optimizer: MakeOptimizer,
        schedule: MakeSchedule,
        *,
        groups: Sequence[Sequence[int]],
        out_of_class: bool,
    ) -> None:
        super().__init__(net, spec, optimizer, schedule)
        self.groups = [list(group) for group in groups]
        self.out_of_class = out_of_class
        self.held: dict[int, list[Tensor]] = {}  # the k scaffolds, see `resample`
        answers = torch.zeros(len(groups), DIGITS, spec.out_dim, dtype=torch.long)  # of the test part
        self.register_buffer("answers", answers, persistent=False)

    def validation_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict:
        step = self.asked_of_all(batch, self.validation_score)
        self.log("validation/score", self.validation_score, on_epoch=True)
        return output(step)

    def on_test_start(self) -> None:
        self.answers.zero_()

    def test_step(self, batch: tuple[Tensor, Tensor], _: int) -> dict:
        step = self.asked_of_all(batch, self.test_score, self.answers)
        self.log("test/score", self.test_score, on_epoch=True)
        return output(step)

    def asked_of_all(
        self, batch: tuple[Tensor, Tensor], metric: Metric, answers: Tensor | None = None
    ) -> Step:
        """Ask each scaffold in turn, count it in `metric`, and every answer to every digit in `answers`."""
        x, label = batch  # (N, 1, 28, 28), (N,)
        trained = torch.isin(label, torch.tensor(sum(self.groups, []), device=label.device))
        for place, group in enumerate(self.groups):
            resample(self.net, place + 1, held=self.held)
            asked, target = part_of(x[trained], label[trained], group, self.out_of_class)
            step = self.step((asked, target))
            metric.update(step.prediction, step.target)
            if answers is not None:
                given = self.net(x).argmax(dim=1)
                answers[place].index_put_((label, given), torch.ones_like(label), accumulate=True)
        return step

    def further_scores(self) -> dict[str, float]:
        """For each scaffold the shares of own digits named and of others rejected, and all answers.

        `answers.I.D.A` is the share of test images of digit D that scaffold I called A; 0 is left out.
        """
        found = {}
        for place, group in enumerate(self.groups):
            shares = self.answers[place] / self.answers[place].sum(dim=1, keepdim=True)  # (digit, answer)
            found[f"own.{place + 1}"] = shares[group, group].mean().item()
            others = [digit for other in self.groups for digit in other if other is not group]
            if self.out_of_class:
                found[f"rejected.{place + 1}"] = shares[others, OUTSIDE].mean().item()
            for digit, answer in shares.nonzero().tolist():
                found[f"answers.{place + 1}.{digit}.{answer}"] = round(shares[digit, answer].item(), 4)
        return found
