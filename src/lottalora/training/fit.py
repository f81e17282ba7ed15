"""Train a task and score it at its best validation epoch."""

import logging
import math
import warnings
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer

from lottalora.data.splits import Splits
from lottalora.distributed.collectives import barrier
from lottalora.distributed.collectives import world_size
from lottalora.distributed.shard import device_settings
from lottalora.tasks.averages import averages_of
from lottalora.tasks.base import Task
from lottalora.tasks.weight_decay import BetaDecay
from lottalora.training.best_epoch import Best
from lottalora.training.checkpoints import Resume
from lottalora.training.going_on import usable
from lottalora.training.history import Diverged
from lottalora.training.history import History
from lottalora.training.lightning_internals import stopping_alone
from lottalora.training.straight import Straight
from lottalora.training.straight import Unprofiled
from lottalora.training.straight import drop_empty_hooks
from lottalora.training.straight import has_no_hook_between

NOISE = (  # Lightning's warnings that say nothing about the run
    r".*isinstance\(treespec, LeafSpec\)",
    "The `srun` command is available",
    "You defined a `validation_step` but have no `val_dataloader`",
    "Checkpoint directory .* exists and is not empty",
    "Using `DistributedSampler` with the dataloaders",
    "`broadcast_buffers` is deprecated",  # what is to replace it sends buffers once
)


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """How long and by which steps a task is trained.

    Args:
        epochs: how many at most.
        accumulate: batches whose gradients make one optimizer step.
        clip: largest norm of all gradients together; None for any.
        patience: epochs without a better validation score after which training ends; None: never.
        min_delta: what counts as better for `patience`.
        precision: of the steps, in Lightning's words; auto: bf16-mixed on a GPU that has it, else 32-true.
        decay: what weight decay acts on: all, all_but_beta or matrices.
        average: of the trained weights, which is validated, kept and tested: ema, swa; None for none.
        accelerator: auto, cpu or gpu.
        checkpoint_every: seconds between two writings of what is needed to go on.
    """

    epochs: int
    accumulate: int = 1
    clip: float | None = None
    patience: int | None = None
    min_delta: float = 0.0
    precision: str = "32-true"
    decay: str = "all"
    average: str | None = None
    accelerator: str = "auto"
    checkpoint_every: float = 60

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> "TrainerSettings":
        """Take these settings out of a config's `trainer` section, which has others beside them."""
        return cls(**{each.name: section[each.name] for each in fields(cls)})


@dataclass(frozen=True, kw_only=True)
class FitResult:
    """A task whose weights are those of its best epoch, and how it came to them.

    Of a run that diverged, the weights are those at its end, and there is neither score nor best epoch.
    """

    trainer: Trainer
    validation_score: float | None  # None where there is no validation part
    best_epoch: int | None  # counted from 0; the first of equals; without a validation part the last
    beta_decay: float | None  # see `BetaDecay.at`, at the best epoch
    epochs: int  # trained
    seconds: float  # of fit, by the wall clock
    diverged: bool  # loss, validation score or β was not finite, and training ended there
    history: dict[str, list[float]]  # see lottalora.training.history
    commits: Sequence[str] = ()  # of the code that trained, one after another; see `Resume`


def fit(
    task: Task,
    splits: Splits,
    settings: TrainerSettings,
    *,
    seed: int,
    higher_is_better: bool,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    forced: bool = False,
) -> FitResult:
    """Train, or go on where an earlier process stopped, and give the task its best weights.

    Args:
        task: what is trained.
        splits: the data.
        settings: how long and by which steps.
        seed: of the order of the examples.
        higher_is_better: of the validation score.
        folder: where the weights of the best epoch stay, and lies what is needed to go on.
        callbacks: what else watches the training, or changes it at the borders of epochs.
        forced: whether it starts anew where an earlier run has stopped that was not forced.
    """
    quieten()
    best = Best(
        folder,
        higher_is_better=higher_is_better,
        patience=settings.patience,
        min_delta=settings.min_delta,
    )
    batches = splits.train_batches(seed)
    task.decay = settings.decay
    task.steps = settings.epochs * math.ceil(len(batches) / settings.accumulate)
    resume = Resume(folder, every=settings.checkpoint_every, forced=forced)
    beta_decay, history = BetaDecay(), History(best)
    averages = [*task.averages(), *averages_of(settings.average, task.net)]
    callbacks = [*averages, history, resume, beta_decay, *callbacks, best]
    drop_empty_hooks(callbacks)
    straight = goes_straight(settings, task, callbacks)
    trainer = trainer_of(settings, folder, callbacks, straight=straight)
    diverged = False
    try:
        trainer.fit(task, batches, splits.validation_batches(), ckpt_path=usable(resume, best))
        load_best(task, best)
    except Diverged:
        diverged = True
    result = result_of(trainer, best, beta_decay, history, diverged=diverged, seconds=resume.seconds)
    return replace(result, commits=resume.commits)


def result_of(
    trainer: Trainer, best: Best, beta_decay: BetaDecay, history: History, *, diverged: bool, seconds: float
) -> FitResult:
    """What callbacks and trainer of a finished training say about it."""
    chosen = bool(best.scores) and not diverged
    last_epoch = None if diverged else trainer.current_epoch - 1
    best_epoch = best.epoch if chosen else last_epoch
    return FitResult(
        trainer=trainer,
        validation_score=best.scores[best.epoch] if chosen else None,
        best_epoch=best_epoch,
        beta_decay=None if best_epoch is None else beta_decay.at(best_epoch),
        epochs=history.epochs if diverged else trainer.current_epoch,
        seconds=seconds,
        diverged=diverged,
        history=history.columns(),
    )


def trainer_of(
    settings: TrainerSettings, folder: Path, callbacks: Sequence[Callback], *, straight: bool = False
) -> Trainer:
    """Return Lightning's trainer with its logging, checkpoints and bars off, its steps `Straight` or not."""
    strategy = {"strategy": Straight()} if straight else {}
    trainer = Trainer(
        max_epochs=settings.epochs,
        accumulate_grad_batches=settings.accumulate,
        gradient_clip_val=settings.clip,
        precision=precision_of(settings),
        accelerator=settings.accelerator,
        callbacks=list(callbacks),
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
        profiler=Unprofiled(),
        **device_settings() | strategy,
    )
    return trainer if world_size() == 1 else stopping_alone(trainer)


def goes_straight(settings: TrainerSettings, task: Task, callbacks: Sequence[Callback]) -> bool:
    """Whether the steps of a training may leave out what `Straight` leaves out."""
    on_cpu = settings.accelerator == "cpu" or not torch.accelerator.is_available()
    plain = precision_of(settings) == "32-true" and not settings.clip
    return on_cpu and plain and world_size() == 1 and has_no_hook_between(task, callbacks)


def load_best(task: Task, best: Best) -> None:
    """Load the weights of the best epoch, or keep those of the last where nothing chooses one."""
    if not best.scores:
        best.keep(task)
    barrier()  # no process reads before the first has written
    task.load_state_dict(best.weights())


def precision_of(settings: TrainerSettings) -> str:
    """The precision that the plan asks for, in Lightning's words.

    A CPU stays at float32. Where it has bf16 in hardware it gains by bf16-mixed with some nets and not with
    others: GIN and IMDB's transformer take 0.6 times as long, GCN half, the 3M GPT as long.
    """
    if settings.precision != "auto":
        return settings.precision
    on_gpu = settings.accelerator != "cpu" and torch.cuda.is_available()
    return "bf16-mixed" if on_gpu and torch.cuda.is_bf16_supported(including_emulation=False) else "32-true"


def quieten() -> None:
    """Silence Lightning's messages about itself."""
    logging.getLogger("pytorch_lightning").setLevel(logging.WARNING)
    for text in NOISE:
        warnings.filterwarnings("ignore", message=text)


def score(trainer: Trainer, task: Task, splits: Splits) -> float:
    """The test score of the weights as they are."""
    return trainer.test(task, splits.test_batches(), verbose=False)[0]["test/score"]
