"""Measure a fitted task: the scores of its row, and how training reached them."""

import math
from statistics import fmean

from lottalora.data.splits import Splits
from lottalora.distributed.collectives import world_size
from lottalora.results.provenance import provenance
from lottalora.scaffold import beta_values
from lottalora.scaffold import resample
from lottalora.scaffold import without_scaffold
from lottalora.scaffold.artifact.precision import in_precision
from lottalora.tasks.base import Task
from lottalora.training.fit import FitResult
from lottalora.training.fit import score
from lottalora.training.resampling import UNSEEN
from lottalora.training.resampling import Resampling

NO_SCORES = {"score": math.nan, "further": {}, "arms": {}}  # of a run that diverged


def measure(
    task: Task,
    splits: Splits,
    fitted: FitResult,
    *,
    resampling: Resampling,
    remove_scaffold: bool,
    precision: str = "fp32",
) -> dict:
    """Score the test part and return the measured part of a row.

    Args:
        task: with the weights of its best epoch.
        splits: the data.
        fitted: what `fit` returned.
        resampling: over which scaffolds the task was trained. The score is the mean over those of the last
            step of the best epoch, and a scaffold that training did not see is scored beside it.
        remove_scaffold: whether to score the same weights once more with W_seed set to 0, and once with
            another one.
        precision: of the artifact that the run will leave. Weights in another than fp32 are scored too.
    """
    scores = NO_SCORES
    if not fitted.diverged and not resampling.scores_itself:
        scores = score_resampled(task, splits, fitted, resampling)
    elif not fitted.diverged:
        scores = score_all(task, splits, fitted, remove_scaffold)
        if precision != "fp32":
            with in_precision(task.net, precision):
                scores["arms"]["artifact"] = score(fitted.trainer, task, splits)
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
    device, processes = trainer.strategy.root_device, world_size()
    return measured | provenance(device, trainer.precision, fitted.commits, processes=processes)


def score_all(task: Task, splits: Splits, fitted: FitResult, remove_scaffold: bool) -> dict:
    """Score the trained weights: on the test part, by further scores, without their scaffold, on another."""
    found = {"score": score(fitted.trainer, task, splits), "further": task.further_scores(), "arms": {}}
    if remove_scaffold:
        with without_scaffold(task.net):
            found["arms"] = {"scaffold_removed": score(fitted.trainer, task, splits)}
        resample(task.net, 1)
        found["arms"]["scaffold_swapped"] = score(fitted.trainer, task, splits)
        resample(task.net, 0)
    return found


def score_resampled(task: Task, splits: Splits, fitted: FitResult, resampling: Resampling) -> dict:
    """Score the trained weights under the scaffolds of their last step, and under an unseen one."""
    seen = []
    for number in resampling.scored(fitted.best_epoch, fitted.trainer.num_training_batches):
        resample(task.net, number)
        seen.append(score(fitted.trainer, task, splits))
    further = task.further_scores()
    resample(task.net, UNSEEN)
    arms = {f"scaffold_{place}": each for place, each in enumerate(seen, start=1)} if len(seen) > 1 else {}
    arms["scaffold_unseen"] = score(fitted.trainer, task, splits)
    return {"score": fmean(seen), "further": further, "arms": arms}
