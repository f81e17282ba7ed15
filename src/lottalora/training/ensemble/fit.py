"""Train the members of an ensemble side by side, and score each at its best validation epoch."""

import logging
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch.utils._pytree import tree_map

from lottalora.data.batches.order import Batches
from lottalora.data.splits import Splits
from lottalora.training.best_epoch import Best
from lottalora.training.checkpoints import Resume
from lottalora.training.ensemble.members import Member
from lottalora.training.ensemble.members import Run
from lottalora.training.ensemble.members import is_diverged
from lottalora.training.ensemble.stack import Stack
from lottalora.training.fit import FitResult
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import load_best
from lottalora.training.fit import quieten
from lottalora.training.fit import result_of
from lottalora.training.fit import trainer_of
from lottalora.training.going_on import state_or_anew

log = logging.getLogger(__name__)


class Ensemble:
    """Runs of one architecture on their way through training, side by side.

    Args:
        runs: the members.
        splits: the data.
        settings: how long and by which steps, the same for all.
        higher_is_better: of the validation score.
        folder: of the ensemble, for what is needed to go on.
        forced: whether it starts anew where an earlier ensemble has stopped that was not forced.

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
        forced: bool = False,
    ) -> None:
        self.splits = splits
        self.settings = settings
        self.resume = Resume(folder, every=settings.checkpoint_every, forced=forced)
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
        self.load(state_or_anew(self.resume, [member.best for member in self.members], self.parts))
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
        trainer = trainer_of(self.settings, folder, [])
        return replace(found, trainer=trainer, commits=self.resume.commits)

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
            "resume": self.resume.about(),
            "members": {member.name: member.state_dict() for member in self.members},
        }

    def parts(self, state: dict) -> tuple[dict, Sequence[tuple[Best, list[float]]]] | None:
        """What a state says of its run, and the scores of the members; None if it has not all of them.

        Others may have ended since it was written.
        """
        if any(member.name not in state["members"] for member in self.members):
            log.warning("%s has not all members: the ensemble starts anew", self.resume.path)
            return None
        states = [(member, state["members"][member.name]) for member in self.members]
        needed = [(member.best, own["best"]["scores"]) for member, own in states if not is_diverged(own)]
        return state["resume"], needed

    def load(self, state: dict | None) -> None:
        """Go on from a state."""
        if state is None:
            return
        self.epoch, self.first = state["epoch"], state["batch"]
        self.resume.go_on(state["resume"])
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
