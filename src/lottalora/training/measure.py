"""Measure a fitted task: the scores of its row, and how training reached them."""

import math

from lottalora.data.splits import Splits
from lottalora.distributed.collectives import world_size
from lottalora.results.provenance import provenance
from lottalora.scaffold import beta_values
from lottalora.scaffold import without_scaffold
from lottalora.tasks.base import Task
from lottalora.training.fit import FitResult
from lottalora.training.fit import score
from lottalora.training.resampling import set_scaffold_of_epoch

NO_SCORES = {"score": math.nan, "further": {}, "arms": {}}  # of a run that diverged


def measure(
    task: Task, splits: Splits, fitted: FitResult, *, resample: str | None, remove_scaffold: bool
) -> dict:
    """Score the test part and return the measured part of a row.

    Args:
        task: with the weights of its best epoch.
        splits: the data.
        fitted: what `fit` returned.
        resample: "epoch" if the scaffold was redrawn each epoch; that of the best epoch is then scored.
        remove_scaffold: whether to score the same weights once more with W_seed set to 0.
    """
    if resample == "epoch" and not fitted.diverged:
        set_scaffold_of_epoch(task.net, fitted.best_epoch)
    scores = NO_SCORES if fitted.diverged else score_all(task, splits, fitted, remove_scaffold)
    measured = scores | {
        "validation_score": fitted.validation_score,
        "best_epoch": fitted.best_epoch,
        "epochs": fitted.epochs,
        "seconds": fitted.seconds,
        "beta": beta_values(task.net),
        "beta_decay": fitted.beta_decay,
        "data_fingerprint": splits.fingerprint(),
        "diverged": not math.isfinite(scores["score"]),
        "history": fitted.history,
    }
    trainer = fitted.trainer
    return measured | provenance(trainer.strategy.root_device, trainer.precision, processes=world_size())


def score_all(task: Task, splits: Splits, fitted: FitResult, remove_scaffold: bool) -> dict:
    """Score the trained weights: on the test part, by the task's further scores, and without the scaffold."""
    found = {"score": score(fitted.trainer, task, splits), "further": task.further_scores(), "arms": {}}
    if remove_scaffold:
        with without_scaffold(task.net):
            found["arms"] = {"scaffold_removed": score(fitted.trainer, task, splits)}
    return found
