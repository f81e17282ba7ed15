"""Pass each epoch's figures to a logger, so that the loop over batches loses no time."""

from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import Tensor

from lottalora.distributed.collectives import is_first
from lottalora.scaffold import beta_values
from lottalora.tasks.base import Task
from lottalora.tracking.logger import Watch
from lottalora.tracking.progress import Progress


class Mean:
    """The mean loss over the examples of a split, summed where the loss lies, so no GPU is waited for."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.count = 0

    def add(self, outputs: dict[str, Any]) -> None:
        self.total = self.total + outputs["loss"].detach() * outputs["count"]
        self.count += outputs["count"]

    def take(self) -> float:
        """Return the mean and reset."""
        mean = float(self.total) / self.count if self.count else float("nan")
        self.total, self.count = 0.0, 0
        return mean


def watchers(watch: Watch | None) -> list[Callback]:
    """The callbacks that show and log a run, on the first process."""
    if not is_first():
        return []
    return [Progress(), *([Epochs(watch)] if watch else [])]


class Epochs(Callback):
    """Log the losses, the validation score, the learning rate and β of each epoch."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self.train, self.validation, self.test = Mean(), Mean(), Mean()
        self.learning_rate = 0.0

    def on_train_epoch_start(self, trainer: Trainer, task: Task) -> None:
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, task: Task, outputs: dict, batch: object, index: int
    ) -> None:
        self.train.add(outputs)

    def on_validation_batch_end(
        self, trainer: Trainer, task: Task, outputs: dict, batch: object, index: int, loader: int = 0
    ) -> None:
        self.validation.add(outputs)

    def on_test_batch_end(
        self, trainer: Trainer, task: Task, outputs: dict, batch: object, index: int, loader: int = 0
    ) -> None:
        self.test.add(outputs)

    @torch.no_grad()
    def on_train_epoch_end(self, trainer: Trainer, task: Task) -> None:
        metrics = {
            # Lightning has divided each batch's loss by the number that make one step.
            "train/loss": trainer.accumulate_grad_batches * self.train.take(),
            "learning_rate": self.learning_rate,
        }
        if "validation/score" in trainer.callback_metrics:
            metrics["validation/loss"] = self.validation.take()
            metrics["validation/score"] = float(trainer.callback_metrics["validation/score"])
        self.watch.epoch(trainer.current_epoch, metrics, beta_values(task.net))

    def on_test_epoch_end(self, trainer: Trainer, task: Task) -> None:
        """Of the trained weights; a later test, without the scaffold, is in the row's arms alone."""
        self.watch.tested.setdefault("test/loss", self.test.take())
