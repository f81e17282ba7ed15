"""The best epoch of a run by its validation score, and the weights that it had."""

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import Tensor

from lottalora.distributed.collectives import is_first
from lottalora.results.atomic_write import write_whole
from lottalora.tasks.base import Task
from lottalora.training.state_bytes import as_bytes

BEST = "best.ckpt"


class Best(Callback):
    """Keeps the validation score of every epoch, and the trained weights of the best one in `folder`.

    Patience is counted here and not by Lightning's EarlyStopping, whose count is a state of its own: it can
    differ from `scores` where a resumed run takes over the best epoch of the process before it.

    Args:
        folder: where the weights lie.
        higher_is_better: of the score.
        patience: epochs without a better score after which training ends; None for no such end.
        min_delta: by how much a score must be better to count as better for `patience`.
    """

    def __init__(
        self, folder: Path, *, higher_is_better: bool, patience: int | None = None, min_delta: float = 0.0
    ) -> None:
        self.path = folder / BEST
        self.higher_is_better = higher_is_better
        self.patience = patience
        self.min_delta = min_delta
        self.scores: list[float] = []
        self.ahead: dict | None = None  # the best epoch of a killed process, where it comes after the state

    @property
    def epoch(self) -> int:
        return best_epoch(self.scores, higher_is_better=self.higher_is_better)

    def on_validation_end(self, trainer: Trainer, task: Task) -> None:
        self.scores.append(trainer.callback_metrics["validation/score"].item())
        if self.epoch == len(self.scores) - 1:
            self.keep(task)
        elif self.ahead and self.ahead["epoch"] == len(self.scores) - 1:
            self.scores[-1] = self.ahead["score"]  # not met again, as on a GPU, but its weights are kept
        since = epochs_since_better(self.scores, self.min_delta, higher_is_better=self.higher_is_better)
        if self.patience is not None and since >= self.patience:
            trainer.should_stop = True

    def keep(self, task: Task) -> None:
        self.ahead = None
        if is_first():
            score = {"epoch": len(self.scores) - 1, "score": self.scores[-1]} if self.scores else {}
            write_whole(self.path, as_bytes({"state_dict": task.state_dict(), **score}))

    def state_dict(self) -> dict:
        return {"scores": self.scores}

    def load_state_dict(self, state: dict) -> None:
        self.scores = list(state["scores"])
        kept = self.read() if self.path.exists() else {}
        if kept.get("epoch", -1) >= len(self.scores):
            self.ahead = {"epoch": kept["epoch"], "score": kept["score"]}

    def read(self) -> dict:
        return torch.load(self.path, map_location="cpu", weights_only=True)

    def belongs_to(self, scores: Sequence[float]) -> bool:
        """Whether the file is of the training with these scores: of its best epoch, or of a later, better one
        that a killed process came to after it had last written its state."""
        if not scores:
            return True
        kept, best = self.read(), best_epoch(scores, higher_is_better=self.higher_is_better)
        if kept.get("epoch", -1) < len(scores):
            return (kept.get("epoch"), kept.get("score")) == (best, scores[best])
        sign = 1 if self.higher_is_better else -1
        return sign * kept["score"] > sign * scores[best]

    def weights(self) -> dict[str, Tensor]:
        """The weights of the best epoch.

        Raises:
            ValueError: the file holds those of another training.
        """
        kept = self.read()
        if self.scores and (kept.get("epoch"), kept.get("score")) != (self.epoch, self.scores[self.epoch]):
            raise ValueError(
                f"{self.path} holds epoch {kept.get('epoch')} with a score of {kept.get('score')}, and the "
                f"best of this run is epoch {self.epoch} with {self.scores[self.epoch]}: another process has "
                "written it. Repeat the command: the run starts anew."
            )
        return kept["state_dict"]


def best_epoch(scores: Sequence[float], *, higher_is_better: bool) -> int:
    """Counted from 0; the first of equals. A score that is not a number is worse than any."""
    sign = 1 if higher_is_better else -1
    worth = [-math.inf if math.isnan(score) else sign * score for score in scores]
    return worth.index(max(worth))


def epochs_since_better(scores: Sequence[float], min_delta: float, *, higher_is_better: bool) -> int:
    """Epochs since the last one that was better, by more than `min_delta`, than the best so far."""
    sign = 1 if higher_is_better else -1
    best, at = -math.inf, 0
    for epoch, score in enumerate(scores):
        if sign * score > best + min_delta:
            best, at = sign * score, epoch
    return len(scores) - 1 - at
