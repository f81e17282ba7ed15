"""Train a task and score it at its best validation epoch."""

import logging
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from pytorch_lightning.callbacks import ModelCheckpoint

from lottalora.data.images import ImageSplits
from lottalora.tasks.base import Task

NOISE = (  # Lightning's warnings that say nothing about the run
    r".*isinstance\(treespec, LeafSpec\)",
    "The `srun` command is available",
    "Checkpoint directory .* exists and is not empty",
)


class Scores(Callback):
    """Keeps the validation score of each epoch."""

    def __init__(self) -> None:
        self.scores: list[float] = []

    def on_validation_epoch_end(self, trainer: Trainer, task: Task) -> None:
        self.scores.append(trainer.callback_metrics["validation/score"].item())


@dataclass(frozen=True, kw_only=True)
class Training:
    """A task whose weights are those of its best epoch, and how it came to them."""

    trainer: Trainer
    validation_score: float
    best_epoch: int  # counted from 0; the first of equals
    seconds: float  # of fit, by the wall clock


def fit(
    task: Task,
    splits: ImageSplits,
    *,
    seed: int,
    epochs: int,
    accelerator: str,
    higher_is_better: bool,
    folder: Path,
    callbacks: Sequence[Callback] = (),
) -> Training:
    """Train for a fixed number of epochs; the checkpoint of the best one stays in `folder`."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in NOISE:
        warnings.filterwarnings("ignore", message=text)
    mode = "max" if higher_is_better else "min"
    best = ModelCheckpoint(
        folder,
        "best",
        monitor="validation/score",
        mode=mode,
        save_weights_only=True,
        enable_version_counter=False,
    )
    scores = Scores()
    trainer = Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        callbacks=[best, scores, *callbacks],
        default_root_dir=folder,
        logger=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    begin = time.perf_counter()
    trainer.fit(task, splits.train_batches(seed), splits.validation_batches())
    seconds = time.perf_counter() - begin
    score = max(scores.scores) if higher_is_better else min(scores.scores)
    return Training(
        trainer=trainer, validation_score=score, best_epoch=scores.scores.index(score), seconds=seconds
    )


def score(trainer: Trainer, task: Task, splits: ImageSplits, *, weights: str | None = None) -> float:
    """The test score, of the weights as they are or of those that `weights` names ("best")."""
    return trainer.test(task, splits.test_batches(), ckpt_path=weights, verbose=False)[0]["test/score"]
