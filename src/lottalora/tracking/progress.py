"""Progress of a run: a bar on a terminal, a line a minute in a log file."""

import logging
import sys
import time
from typing import TextIO

from pytorch_lightning import Callback
from pytorch_lightning import Trainer

from lottalora.tasks.base import Task
from lottalora.tracking.bars import Bar
from lottalora.tracking.bars import duration

GLANCE = 0.5  # seconds between two looks of a bar
MINUTE = 60.0  # seconds between two lines of a log file
log = logging.getLogger(__name__)


class Progress(Callback):
    """Shows the epochs of a run, the last validation score, the time left; a step costs a look at the clock.

    Args:
        stream: a terminal gets a bar, anything else a line a minute through logging.
    """

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self.bar = Bar(stream) if stream.isatty() else None
        self.every = GLANCE if self.bar else MINUTE
        self.spoke = self.begin = time.monotonic()
        self.first = 0.0  # epochs that were done when this process began
        self.score: float | None = None

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        self.spoke = self.begin = time.monotonic()
        self.first = trainer.current_epoch
        if self.bar:
            self.bar.start(trainer.max_epochs)

    def on_train_batch_end(
        self, trainer: Trainer, task: Task, outputs: object, batch: object, index: int
    ) -> None:
        if time.monotonic() - self.spoke >= self.every:
            self.show(trainer, trainer.current_epoch + (index + 1) / trainer.num_training_batches)

    def on_train_epoch_end(self, trainer: Trainer, task: Task) -> None:
        score = trainer.callback_metrics.get("validation/score")  # absent without a validation part
        self.score = None if score is None else float(score)
        if time.monotonic() - self.spoke >= self.every:
            self.show(trainer, trainer.current_epoch + 1)

    def show(self, trainer: Trainer, done: float) -> None:
        self.spoke = time.monotonic()
        speed = (done - self.first) / max(self.spoke - self.begin, 1e-9)
        left = duration((trainer.max_epochs - done) / speed)
        score = "" if self.score is None else f", validation {self.score:.4f}"
        text = f"epoch {done:.1f} of {trainer.max_epochs}{score}, {left} left"
        self.bar.show(done, text) if self.bar else log.info("%s", text)

    def on_train_end(self, trainer: Trainer, task: Task) -> None:
        self.close()

    def on_exception(self, trainer: Trainer, task: Task, exception: BaseException) -> None:
        self.close()

    def close(self) -> None:
        if self.bar:
            self.bar.stop()
