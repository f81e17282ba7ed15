"""Training over many scaffolds: W_seed is another one at each epoch, batch or part of a batch.

Source: the paper, Table 4 and its Decision Transformer's meta-LoRA.

Letters: k scaffolds of one optimizer step.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import replace
from functools import partial

from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import Tensor

from lottalora.data.batches.order import Batches
from lottalora.data.batches.parts import Cut
from lottalora.data.batches.parts import Parts
from lottalora.data.batches.parts import pieces
from lottalora.data.batches.parts import whole
from lottalora.data.splits import Splits
from lottalora.scaffold import resample
from lottalora.tasks.base import Task
from lottalora.training.fit import TrainerSettings

CUTS: dict[str, Cut] = {"batch": whole, "part": pieces}  # what each scaffold of a step sees of its batch
UNSEEN = 0  # the backbone itself: resampled training uses scaffolds 1, 2, …


@dataclass(frozen=True)
class Resampling:
    """Which scaffolds a net is trained over.

    Args:
        every: "run", one scaffold for the whole training, the backbone; "epoch", one for each epoch; "batch",
            k for each batch, whose gradients under all of them are added up to one step; "part", k for each
            batch, which is cut into k parts, each under a scaffold of its own; "group", the same, cut as the
            data say (`GatedSplits.cut`), for seed gating.
        scaffolds: k.
        fresh: whether each step has k new scaffolds; if not, the same k serve all steps.
    """

    every: str = "run"
    scaffolds: int = 1
    fresh: bool = True

    @classmethod
    def of(cls, section: str | Mapping | None) -> "Resampling":
        """Read the config's `resample`: null, "epoch", or these arguments."""
        if section is None:
            return cls()
        return cls(section) if isinstance(section, str) else cls(**section)

    @property
    def in_parts(self) -> bool:
        return self.every in CUTS or self.every == "group"

    @property
    def scores_itself(self) -> bool:
        """Whether the task puts its net on the scaffolds that it is scored under, one of them or all."""
        return self.every in ("run", "group")

    def splits(self, splits: Splits) -> Splits:
        """The same data, with training batches in parts where each part has its scaffold."""
        if not self.in_parts:
            return splits
        cut = splits.cut if self.every == "group" else CUTS[self.every]
        return SplitsInParts(splits, partial(cut, count=self.scaffolds), self.scaffolds)

    def settings(self, settings: TrainerSettings) -> TrainerSettings:
        """One optimizer step for all parts of as many batches as before."""
        return replace(settings, accumulate=self.scaffolds * settings.accumulate)

    def callbacks(self) -> list[Callback]:
        if self.every == "epoch":
            return [ResampleEachEpoch()]
        return [ResampleEachPart(self)] if self.in_parts else []

    def numbers(self, step: int) -> range:
        """The numbers of the scaffolds of a step, counted from 0 in batches (or epochs) of the whole run."""
        first = 1 + (step * self.scaffolds if self.fresh else 0)
        return range(first, first + self.scaffolds)

    def scored(self, epoch: int, batches: int) -> Sequence[int]:
        """The numbers of the scaffolds that score the weights at the end of an epoch: its last ones.

        Args:
            epoch: counted from 0.
            batches: of an epoch, or their parts, as the trainer counts them.
        """
        if self.every == "run":
            return [UNSEEN]
        steps = batches // self.scaffolds if self.in_parts else 1
        return self.numbers((epoch + 1) * steps - 1)


@dataclass(frozen=True)
class SplitsInParts:
    """Splits whose training batches are cut into parts; the other two are as they were."""

    splits: Splits
    cut: Cut
    count: int

    def train_batches(self, seed: int) -> Parts:
        return Parts(self.splits.train_batches(seed), self.cut, self.count)

    def validation_batches(self) -> Batches | None:
        return self.splits.validation_batches()

    def test_batches(self) -> Batches:
        return self.splits.test_batches()

    def fingerprint(self) -> str:
        return self.splits.fingerprint()


class ResampleEachEpoch(Callback):
    """Use scaffold number k + 1 of the backbone seed in epoch k = 0, 1, ….

    The scaffold is a function of the epoch alone, so a resumed run has the same one.
    """

    def on_train_epoch_start(self, trainer: Trainer, task: Task) -> None:
        resample(task.net, trainer.current_epoch + 1)

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """A run resumed within an epoch does not pass the epoch's start."""
        self.on_train_epoch_start(trainer, task)


class ResampleEachPart(Callback):
    """Put each part of a batch under its scaffold: a function of epoch and batch, so resumed runs agree.

    The validation sees the last one.
    """

    def __init__(self, plan: Resampling) -> None:
        self.plan = plan
        self.held: dict[int, list[Tensor]] | None = None if plan.fresh else {}

    def on_train_batch_start(self, trainer: Trainer, task: Task, batch: object, index: int) -> None:
        step, part = divmod(index, self.plan.scaffolds)
        steps = trainer.num_training_batches // self.plan.scaffolds
        number = self.plan.numbers(trainer.current_epoch * steps + step)[part]
        resample(task.net, number, held=self.held)
