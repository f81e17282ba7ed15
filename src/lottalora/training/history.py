"""The course of a run: loss, validation score, learning rate and β at a few points of each epoch."""

import math
from collections.abc import Mapping

import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import Tensor
from torch import nn

from lottalora.distributed.collectives import all_gather
from lottalora.results.schema import BETA
from lottalora.results.schema import HISTORY
from lottalora.results.schema import POINTS
from lottalora.scaffold.layers.layer import LottaLayer
from lottalora.tasks.base import Task
from lottalora.training.best_epoch import Best

LEAST = 20  # points of a run that trains all its epochs; so one epoch has a curve too
HELD = 256  # losses that are kept apart before they are summed
DIGITS = 6  # significant ones of a stored number


class Diverged(Exception):  # noqa: N818  an end of training, not an error
    """Training has come to a loss, score or β that is not finite."""


class History(Callback):
    """Takes a point at the end of each epoch, and more where a run has fewer than `LEAST` epochs.

    An epoch has ⌈LEAST / epochs⌉ points, evenly spaced. At each, a run that has diverged is ended by
    `Diverged`, in all its processes alike; between two of them no GPU is waited for. β is that of the weights
    in training, which `task.average` does not touch. To come before `Resume` among a trainer's callbacks, so
    that what that writes within an epoch holds this batch.

    Args:
        best: whose validation scores are taken over.
    """

    def __init__(self, best: Best) -> None:
        self.best = best
        self.points: dict[str, list[float]] = {name: [] for name in HISTORY}
        self.losses: list[Tensor] = []  # of the last batches, each a mean
        self.counts: list[int | Tensor] = []  # what each of them counts by
        self.sums: Tensor | None = None  # of the batches before those: loss × count, and count
        self.due: frozenset[int] = frozenset()
        self.learning_rate: float | Tensor = 0.0

    @property
    def epochs(self) -> int:
        """Epochs that were begun."""
        return math.ceil(self.points["epoch"][-1]) if self.points["epoch"] else 0

    def columns(self) -> dict[str, list[float]]:
        """The history as a row holds it: at most `POINTS` points, evenly chosen, the last among them."""
        return {name: rounded(thinned(column)) for name, column in self.points.items()}

    def state_dict(self) -> dict:
        return {
            "points": self.points,
            "losses": list(self.losses),
            "counts": list(self.counts),
            "sums": self.sums,
        }

    def load_state_dict(self, state: dict) -> None:
        self.points = {name: list(column) for name, column in state["points"].items()}
        self.losses, self.counts = list(state["losses"]), list(state["counts"])
        self.sums = state["sums"]

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        self.due = due(trainer.num_training_batches, trainer.max_epochs)
        if self.sums is not None:
            self.sums = self.sums.to(task.device)
        self.losses = [loss.to(task.device) for loss in self.losses]
        self.counts = [count.to(task.device) if isinstance(count, Tensor) else count for count in self.counts]

    def on_train_batch_start(self, trainer: Trainer, *_: object) -> None:
        self.learning_rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_batch_end(
        self, trainer: Trainer, task: Task, outputs: Mapping, batch: object, index: int
    ) -> None:
        self.losses.append(outputs["loss"])
        self.counts.append(outputs["count"])
        if len(self.losses) == HELD:
            self.add_up()
        if index in self.due or trainer.is_last_batch:
            part = 1.0 if trainer.is_last_batch else (index + 1) / trainer.num_training_batches
            self.take(trainer, task, part)

    def on_train_epoch_end(self, trainer: Trainer, *_: object) -> None:
        """After the validation."""
        if len(self.best.scores) > trainer.current_epoch:
            self.points["validation_score"][-1] = self.best.scores[-1]
            end_unless_finite(self.best.scores[-1:])

    def take(self, trainer: Trainer, task: Task, part: float) -> None:
        """Add a point after this part of the epoch; a score follows if there is a validation."""
        self.add_up()
        total, count = self.sums.tolist()
        self.sums = None
        loss = trainer.accumulate_grad_batches * total / count  # Lightning has divided each by the former
        beta = quantiles_of_beta(task.net)
        point = {
            "epoch": trainer.current_epoch + part,
            "step": trainer.global_step,
            "loss": loss,
            "validation_score": math.nan,
            "learning_rate": float(self.learning_rate),
        }
        for name, value in (point | beta).items():
            self.points.setdefault(name, []).append(value)
        end_unless_finite([loss, *beta.values()])

    def add_up(self) -> None:
        """Move the losses of the last batches into the sums."""
        if not self.losses:
            return
        losses = torch.stack(self.losses).double()
        if any(isinstance(count, Tensor) for count in self.counts):  # of a run on several devices
            counts = torch.stack([torch.as_tensor(count).to(losses) for count in self.counts])
        else:
            counts = torch.tensor(self.counts).to(losses)
        sums = torch.stack([losses @ counts, counts.sum()])
        self.sums = sums if self.sums is None else self.sums + sums
        self.losses, self.counts = [], []


def due(batches: int, epochs: int) -> frozenset[int]:
    """The numbers of the batches of an epoch after which there is a point, but for the last one."""
    points = math.ceil(LEAST / epochs)
    return frozenset(math.ceil(batches * point / points) - 1 for point in range(1, points))


@torch.no_grad()
def quantiles_of_beta(net: nn.Module) -> dict[str, float]:
    """Over all layers of a scaffold; empty for a net without one."""
    layers = [module for module in net.modules() if isinstance(module, LottaLayer)]
    betas = [layer.beta.reshape(()) for layer in layers if layer.beta is not None]
    if not betas:
        return {}
    at = torch.tensor(list(BETA.values()), dtype=torch.float64)
    values = torch.stack(betas).cpu().double().quantile(at).tolist()
    return dict(zip(BETA, values, strict=True))


def end_unless_finite(values: list[float]) -> None:
    """Raise `Diverged` in every process of the run if one of them has met what is not finite."""
    if not all(all_gather(all(map(math.isfinite, values)))):
        raise Diverged


def thinned(column: list[float]) -> list[float]:
    """At most `POINTS` of them, at even distances, and the last."""
    if len(column) <= POINTS:
        return column
    count = len(column)  # in whole numbers: as a fraction the last place may come out one too far
    return [column[-(-count * point // POINTS) - 1] for point in range(1, POINTS + 1)]


def rounded(column: list[float]) -> list[float]:
    """Round floats to the digits that rows keep."""
    return [value if isinstance(value, int) else float(f"{value:.{DIGITS}g}") for value in column]
