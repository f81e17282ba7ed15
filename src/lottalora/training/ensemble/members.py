"""One member of an ensemble: its own optimizer, schedule, history and best epoch, as in a single run."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import LightningModule
from torch import Generator
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from lottalora.tasks.base import Task
from lottalora.tasks.weight_decay import BetaDecay
from lottalora.training.best_epoch import Best
from lottalora.training.fit import TrainerSettings
from lottalora.training.history import Diverged
from lottalora.training.history import History


@dataclass
class Progress:
    """The attributes of Lightning's trainer that a run's callbacks read."""

    max_epochs: int
    num_training_batches: int
    optimizers: list[Optimizer] = field(default_factory=list)
    accumulate_grad_batches: int = 1
    current_epoch: int = 0
    global_step: int = 0
    is_last_batch: bool = False
    should_stop: bool = False
    callback_metrics: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a single run has and others of its ensemble do not.

    Args:
        task: with its net.
        seed: of the order of its examples.
        generator: of its dropout.
        folder: for the weights of its best epoch.
    """

    task: Task
    seed: int
    generator: Generator
    folder: Path


class Member:
    """A run within an ensemble.

    Args:
        run: its task's parameters and gradients are views of the stack's.
        settings: how long and by which steps.
        batches: of an epoch.
        higher_is_better: of the validation score.
    """

    def __init__(self, run: Run, settings: TrainerSettings, *, batches: int, higher_is_better: bool) -> None:
        check_task(run.task)
        self.task = run.task
        self.run = run
        self.name = run.folder.name
        self.clip = settings.clip
        self.progress = Progress(max_epochs=settings.epochs, num_training_batches=batches)
        self.task.decay, self.task.steps = settings.decay, settings.epochs * batches
        self.task.trainer = self.progress
        (self.optimizer,), (schedule,) = self.task.configure_optimizers()
        self.schedule, self.interval = schedule["scheduler"], schedule["interval"]
        self.progress.optimizers = [self.optimizer]
        self.best = Best(
            run.folder,
            higher_is_better=higher_is_better,
            patience=settings.patience,
            min_delta=settings.min_delta,
        )
        self.history, self.beta_decay = History(self.best), BetaDecay()
        self.diverged = False

    @property
    def trains(self) -> bool:
        return not self.diverged and not self.progress.should_stop

    def begin(self) -> None:
        self.history.on_train_start(self.progress, self.task)
        self.beta_decay.on_train_start(self.progress, self.task)

    def learn(self, loss: Tensor, weight: Tensor, number: int) -> None:
        """One step of the optimizer, from the gradients that are there.

        Args:
            loss: of the batch, ().
            weight: what it counts by.
            number: of the batch in its epoch.
        """
        progress = self.progress
        progress.is_last_batch = number == progress.num_training_batches - 1
        self.history.on_train_batch_start(progress)
        if self.clip is not None:
            clip_grad_norm_(self.task.trained(), self.clip)
        self.optimizer.step()
        progress.global_step += 1
        if self.interval == "step" or progress.is_last_batch:
            self.schedule.step()
        with self.ended_by_divergence():
            outputs = {"loss": loss, "count": weight}
            self.history.on_train_batch_end(progress, self.task, outputs, None, number)

    def end_epoch(self, score: Tensor | None) -> None:
        """Take the validation score, if there is one, and count the epoch."""
        with self.ended_by_divergence():
            if score is not None:
                self.progress.callback_metrics = {"validation/score": score}
                self.best.on_validation_end(self.progress, self.task)
            self.history.on_train_epoch_end(self.progress)
            self.beta_decay.on_train_epoch_end()
            self.progress.current_epoch += 1

    @contextmanager
    def ended_by_divergence(self) -> Iterator[None]:
        try:
            yield
        except Diverged:
            self.diverged = True

    def state_dict(self) -> dict[str, Any]:
        """Return this member's part of a checkpoint."""
        progress = self.progress
        return {
            "task": self.task.state_dict(),
            "generator": self.run.generator.get_state(),
            "progress": [progress.current_epoch, progress.global_step, progress.should_stop, self.diverged],
            **{name: getattr(self, name).state_dict() for name in STATES},
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        progress = self.progress
        progress.current_epoch, progress.global_step, progress.should_stop, self.diverged = state["progress"]
        self.task.load_state_dict(state["task"])
        self.run.generator.set_state(state["generator"])
        for name in STATES:
            getattr(self, name).load_state_dict(state[name])


def is_diverged(state: dict[str, Any]) -> bool:
    """Whether the member had diverged, by its part of a checkpoint."""
    return state["progress"][-1]


def check_task(task: Task) -> None:
    """Raise ValueError for a task that does more in training than its steps: nothing here would call it."""
    hooks = [name for name in HOOKS if getattr(type(task), name) is not getattr(LightningModule, name)]
    if hooks:
        raise ValueError(
            f"The task {type(task).__name__} has {', '.join(hooks)} of its own, which an ensemble does not "
            "call. Type ensemble=false."
        )


HOOKS = (
    "on_train_start",
    "on_train_epoch_start",
    "on_train_batch_start",
    "on_train_batch_end",
    "on_train_epoch_end",
    "on_validation_epoch_end",
)
STATES = ("optimizer", "schedule", "history", "best", "beta_decay")


def generator_in(state: Tensor) -> Generator:
    """A generator in the state of PyTorch's global one."""
    generator = torch.Generator()
    generator.set_state(state)
    return generator
