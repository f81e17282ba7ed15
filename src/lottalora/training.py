"""Train a task and score it at its best validation epoch."""

import logging
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from pytorch_lightning.plugins.environments import LightningEnvironment

from lottalora.checkpoints import Best
from lottalora.checkpoints import Resume
from lottalora.checkpoints import usable
from lottalora.data.images import ImageSplits
from lottalora.tasks.base import Task

NOISE = (  # Lightning's warnings that say nothing about the run
    r".*isinstance\(treespec, LeafSpec\)",
    "The `srun` command is available",
    "Checkpoint directory .* exists and is not empty",
)


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
    checkpoint_every: float,
    callbacks: Sequence[Callback] = (),
) -> Training:
    """Train for a fixed number of epochs, or go on where an earlier process stopped.

    Args:
        task: what is trained.
        splits: the data.
        seed: of the order of the examples.
        epochs: how many, whatever the scores.
        accelerator: auto, cpu or gpu.
        higher_is_better: of the validation score.
        folder: where the weights of the best epoch stay, and lies what is needed to go on.
        checkpoint_every: seconds between two writings of the latter.
        callbacks: what else watches the training.
    """
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in NOISE:
        warnings.filterwarnings("ignore", message=text)
    best = Best(folder, higher_is_better=higher_is_better)
    resume = Resume(folder, every=checkpoint_every)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        plugins=[LightningEnvironment()],  # one process a run, also in a Slurm job, which is not Lightning's
        callbacks=[resume, best, *callbacks],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(task, splits.train_batches(seed), splits.validation_batches(), ckpt_path=usable(folder))
    task.load_state_dict(torch.load(best.path, map_location="cpu", weights_only=True)["state_dict"])
    return Training(
        trainer=trainer,
        validation_score=best.scores[best.epoch],
        best_epoch=best.epoch,
        seconds=resume.seconds,
    )


def score(trainer: Trainer, task: Task, splits: ImageSplits) -> float:
    """The test score of the weights as they are."""
    return trainer.test(task, splits.test_batches(), verbose=False)[0]["test/score"]
