"""Checkpoints of a run: the weights of its best epoch, and the state from which it can be resumed.

A run that goes on from its checkpoint ends with the numbers of one that was never stopped, on the CPU to the
last bit.
"""

import io
import logging
import math
import os
import random
import signal
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import Tensor
from torch import nn
from torch.utils._pytree import tree_map_only

from lottalora.distributed.collectives import broadcast
from lottalora.distributed.collectives import is_first
from lottalora.errors import STOPPED
from lottalora.results.atomic_write import write_whole
from lottalora.tasks.base import Task
from lottalora.training.lightning_internals import checkpoint_state
from lottalora.training.lightning_internals import is_accumulating
from lottalora.training.lightning_internals import is_last_batch
from lottalora.training.lightning_internals import without_announced_epoch
from lottalora.uncaught import STOPPED_BY_HAND

BEST = "best.ckpt"
RESUME = "resume.ckpt"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
log = logging.getLogger(__name__)


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
        kept = torch.load(self.path, map_location="cpu", weights_only=True) if self.path.exists() else {}
        if kept.get("epoch", -1) >= len(self.scores):
            self.ahead = {"epoch": kept["epoch"], "score": kept["score"]}


class Resume(Callback):
    """Writes what is needed to go on, and ends the process in good order when a signal asks for it.

    The state is written every `every` seconds, and on SIGTERM and SIGUSR1 (which Slurm sends before a time
    limit) after the step under way; the process then ends with the code `STOPPED`. Ctrl-C is answered in the
    same way, with the code 130; a second one ends the process at once. A SIGUSR2 is handed on to
    whoever waits for it, as submitit does, once the state is written. What is written is the state after the
    last optimizer step; after an epoch's last step, or where the batches keep no state of their own (see
    `data.batches.order.Batches`), the state at the beginning of the epoch, which is held in memory.
    """

    def __init__(self, folder: Path, *, every: float) -> None:
        self.path = folder / RESUME
        self.every = every
        self.written = self.began = time.perf_counter()
        self.earlier = 0.0  # seconds of fit before this process
        self.random: dict | None = None  # read from a checkpoint, not yet in force
        self.took = 0.0  # seconds to make and write the last state
        self.state: memoryview | None = None  # at the beginning of this epoch, unless it is on the disk
        self.received: int | None = None
        self.handlers: dict = {}

    @property
    def is_due(self) -> bool:
        """Whether it is time to write again: more rarely for a large state, so that it costs 5 % at most."""
        return time.perf_counter() - self.written >= (self.every and max(self.every, 20 * self.took))

    @property
    def seconds(self) -> float:
        """Of fit by the wall clock, in this process and those before."""
        return self.earlier + time.perf_counter() - self.began

    def state_dict(self) -> dict:
        return {"run": self.path.parent.name, "seconds": self.seconds, "random": random_state()}

    def load_state_dict(self, state: dict) -> None:
        self.earlier, self.random = state["seconds"], state["random"]

    def on_train_start(self, *_: object) -> None:
        if self.random:
            set_random_state(self.random)
            self.random = None
        if is_first() and threading.current_thread() is threading.main_thread():  # no other may set handlers
            heard = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self.handlers = {number: signal.signal(number, self.receive) for number in heard}

    def on_train_epoch_start(self, trainer: Trainer, _: Task) -> None:
        if not is_first():
            return
        if trainer.current_epoch > 0:
            self.hold(without_announced_epoch(checkpoint_state(trainer)))
            if self.is_due:
                self.write()

    def on_train_batch_end(self, trainer: Trainer, *_: object) -> None:
        if not is_first():
            return
        if self.is_due or self.received is not None:
            if is_accumulating(trainer):
                return  # the gradients of half a step are not kept, so the step is finished first
            if is_resumable(trainer) and not is_last_batch(trainer):
                self.hold(checkpoint_state(trainer))
                self.write()
        self.stop_if_asked(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: object) -> None:
        self.stop_if_asked(trainer)

    def on_train_end(self, *_: object) -> None:
        self.restore_handlers()

    def on_exception(self, *_: object) -> None:
        self.restore_handlers()

    def receive(self, number: int, _: FrameType | None) -> None:
        if number == signal.SIGINT == self.received:  # the second Ctrl-C does not wait for the step
            raise KeyboardInterrupt
        self.received = number

    def stop_if_asked(self, trainer: Trainer) -> None:
        if self.received is None:
            return
        self.write()
        by_hand = self.received == signal.SIGINT
        name = "Ctrl-C" if by_hand else signal.Signals(self.received).name
        kept = self.path.exists()
        where = f"{self.path} holds it" if kept else "nothing to keep yet"
        log.warning("%s in epoch %d: %s. Repeat the command to go on.", name, trainer.current_epoch, where)
        before = self.handlers.get(signal.SIGUSR2)
        if self.received == signal.SIGUSR2 and callable(before):
            before(self.received, None)
        raise SystemExit(STOPPED_BY_HAND if by_hand else STOPPED)

    def hold(self, state: dict) -> None:
        began = time.perf_counter()
        self.state = as_bytes(state)
        self.took = time.perf_counter() - began

    def write(self) -> None:
        """Put the state on the disk. A full disk costs the checkpoint, not the run."""
        if self.state is None:
            return
        began = time.perf_counter()
        try:
            write_whole(self.path, self.state)
            self.state = None
        except OSError as error:
            log.warning("%s The run goes on without it.", error)
        self.written = time.perf_counter()
        self.took += self.written - began

    def restore_handlers(self) -> None:
        for number, handler in self.handlers.items():
            signal.signal(number, handler)
        self.handlers = {}


def usable(folder: Path) -> Path | None:
    """The checkpoint to go on from, if `folder` has one, in all processes of the run the same."""
    return broadcast(checked(folder) if is_first() else None)


def checked(folder: Path) -> Path | None:
    """The checkpoint of `folder`; a damaged one is named and set aside."""
    path = folder / RESUME
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if state["callbacks"][Best.__name__]["scores"]:
            torch.load(folder / BEST, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises whatever its first wrong byte leads to
        aside = path.with_suffix(".damaged")
        os.replace(path, aside)
        log.warning("%s or %s beside it cannot be read (%s): set aside as %s, the run starts anew.",
                    path, BEST, type(error).__name__, aside.name)  # fmt: skip
        return None
    run = state["callbacks"][Resume.__name__]["run"]
    if run != folder.name:
        raise ValueError(
            f"{path} is of another run, {run}, which had another config. Put it back, or delete it and "
            "repeat the command: the run starts anew."
        )
    log.info("going on from %s", path)
    return path


def remove(folder: Path) -> None:
    """Remove the state for resuming, once the row is written."""
    (folder / RESUME).unlink(missing_ok=True)
    (folder / RESUME).with_suffix(".damaged").unlink(missing_ok=True)
    for name in (BEST, RESUME):
        for begun in folder.glob(f".{name}.*.tmp"):  # by a process that was killed while it wrote
            begun.unlink(missing_ok=True)


def is_resumable(trainer: Trainer) -> bool:
    """Whether an epoch of the training batches can be resumed in its middle."""
    return hasattr(trainer.train_dataloader, "load_state_dict")


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


def random_state() -> dict:
    """Of every stream that training may draw from, in types that a checkpoint may hold."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
        "numpy": (kind, keys.tolist(), *rest),
        "python": random.getstate(),
    }


def set_random_state(state: dict) -> None:
    """Restore the random states of PyTorch, CUDA, NumPy and Python."""
    torch.set_rng_state(state["torch"])
    for device, of_device in zip(range(torch.cuda.device_count()), state["cuda"], strict=False):
        torch.cuda.set_rng_state(of_device, device)
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), *rest))
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words), gauss))


def as_bytes(state: dict) -> memoryview:
    """Serialise a state with `torch.save`, of a view its own values and not all that it is a view of."""
    buffer = io.BytesIO()
    torch.save(tree_map_only(Tensor, with_own_storage, state), buffer)
    return buffer.getbuffer()


def with_own_storage(tensor: Tensor) -> Tensor:
    """The tensor, or a copy of it if it is a view of something larger."""
    plain = type(tensor) in (Tensor, nn.Parameter)
    return tensor.clone() if plain and tensor.untyped_storage().nbytes() > tensor.nbytes else tensor
