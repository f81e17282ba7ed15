"""Train the members of an ensemble side by side, and score each at its best validation epoch."""

import logging
import os
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils._pytree import tree_map

from lottalora.data.batches.order import Batches
from lottalora.data.splits import Splits
from lottalora.training.checkpoints import Resume
from lottalora.training.ensemble.members import Member
from lottalora.training.ensemble.members import Run
from lottalora.training.ensemble.stack import Stack
from lottalora.training.fit import FitResult
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import load_best
from lottalora.training.fit import quieten
from lottalora.training.fit import result_of
from lottalora.training.fit import trainer_of

log = logging.getLogger(__name__)


class Ensemble:
    """Runs of one architecture on their way through training, side by side.

    Args:
        runs: the members.
        splits: the data.
        settings: how long and by which steps, the same for all.
        higher_is_better: of the validation score.
        folder: of the ensemble, for what is needed to go on.

    Raises:
        ValueError: the members' nets differ in shape.
    """

    def __init__(
        self,
        runs: Sequence[Run],
        splits: Splits,
        settings: TrainerSettings,
        *,
        higher_is_better: bool,
        folder: Path,
    ) -> None:
        self.splits = splits
        self.settings = settings
        self.resume = Resume(folder, every=settings.checkpoint_every)
        self.stack = Stack([run.task for run in runs], [run.generator for run in runs])
        self.batches = {run.seed: splits.train_batches(run.seed) for run in runs}
        self.count = len(next(iter(self.batches.values())))  # batches of an epoch
        self.members = [
            Member(run, settings, batches=self.count, higher_is_better=higher_is_better) for run in runs
        ]
        self.epoch = self.first = 0  # the epoch to train, and its first batch

    @property
    def trains(self) -> bool:
        return self.epoch < self.settings.epochs and any(member.trains for member in self.members)

    def fit(self) -> list[FitResult]:
        """Train all, or go on where an earlier process stopped, and give each task its best weights."""
        quieten()
        self.load(usable(self.resume.path))
        for member in self.members:
            member.begin()
        self.resume.on_train_start()
        try:
            while self.trains:
                self.train_epoch()
                self.validate()
                self.epoch, self.first = self.epoch + 1, 0
                if self.trains:
                    self.keep(0)
        finally:
            self.resume.restore_handlers()
        return [self.result(member) for member in self.members]

    def train_epoch(self) -> None:
        """Every batch of the epoch, from `first` on."""
        for number, batch in enumerate(self.training_batches(), start=self.first):
            self.stack.zero_grad()
            shared = len(self.batches) == 1
            losses, _, _, weights = self.stack.step(batch, shared=shared, training=True)
            losses.sum().backward()
            for member, loss, weight in zip(self.members, losses.detach(), weights, strict=True):
                if member.trains:
                    member.learn(loss, weight, number)
            if number < self.count - 1:
                self.keep(number + 1)

    def training_batches(self) -> Iterator[object]:
        """The batch of each step: one for all where they have one seed, else the members' own, stacked."""
        for batches in self.batches.values():
            batches.sampler.set_epoch(self.epoch)
            batches.load_state_dict({"batch": self.first})
        for each in zip(*self.batches.values(), strict=True):
            if len(each) == 1:
                yield each[0]
            else:
                of_seed = dict(zip(self.batches, each, strict=True))
                yield stacked([of_seed[member.run.seed] for member in self.members])

    @torch.no_grad()
    def validate(self) -> None:
        """Score the members on the validation part, if there is one, and end the epoch of each."""
        batches = self.splits.validation_batches()
        if batches is not None:
            self.score(batches)
        for member in self.members:
            metric = member.task.validation_score
            if member.trains:
                member.end_epoch(None if batches is None else metric.compute())
            metric.reset()

    def score(self, batches: Batches) -> None:
        for batch in batches:
            _, predictions, targets, _ = self.stack.step(batch, shared=True, training=False)
            for member, prediction, target in zip(self.members, predictions, targets, strict=True):
                member.task.validation_score.update(prediction, target)

    def result(self, member: Member) -> FitResult:
        """Return the member's result, with its share of the ensemble's seconds."""
        if not member.diverged:
            load_best(member.task, member.best)
        found = result_of(
            member.progress,
            member.best,
            member.beta_decay,
            member.history,
            diverged=member.diverged,
            seconds=self.resume.seconds / len(self.members),
        )
        folder = member.best.path.parent
        return replace(found, trainer=trainer_of(self.settings, folder, []))

    def keep(self, number: int) -> None:
        """Write what is needed to go on with this batch, if it is time to; end the process if asked to."""
        if self.resume.is_due or self.resume.received is not None:
            self.resume.hold(self.state_dict(number))
            self.resume.write()
        self.resume.stop_if_asked(self.members[0].progress)

    def state_dict(self, number: int) -> dict:
        return {
            "epoch": self.epoch,
            "batch": number,
            "seconds": self.resume.seconds,
            "members": {member.name: member.state_dict() for member in self.members},
        }

    def load(self, state: dict | None) -> None:
        """Go on from a state, if it has all members; others may have ended since it was written."""
        if state is None:
            return
        if any(member.name not in state["members"] for member in self.members):
            log.warning("%s has not all members: the ensemble starts anew", self.resume.path)
            return
        log.info("going on from %s", self.resume.path)
        self.epoch, self.first = state["epoch"], state["batch"]
        self.resume.earlier = state["seconds"]
        for member in self.members:
            member.load_state_dict(state["members"][member.name])


def stacked(batches: Sequence[object]) -> object:
    """One batch whose tensors are those of all, (K, N, …).

    Raises:
        ValueError: the members' batches differ in shape, or are no tensors.
    """
    try:
        return tree_map(lambda *each: torch.stack(each), *batches)
    except (RuntimeError, TypeError) as error:
        raise ValueError(
            "Batches of these data differ in shape from seed to seed, so they cannot be stacked. Type one "
            "seed, or ensemble=false."
        ) from error


def usable(path: Path) -> dict | None:
    """The state to go on from, if there is one; a damaged one is named and set aside."""
    if not path.exists():
        return None
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        aside = path.with_suffix(".damaged")
        os.replace(path, aside)
        log.warning("%s cannot be read (%s): set aside as %s, the ensemble starts anew.",
                    path, type(error).__name__, aside.name)  # fmt: skip
        return None
