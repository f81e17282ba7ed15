"""The state from which a run can be resumed.

A run that goes on from its checkpoint ends with the numbers of one that was never stopped, on the CPU to the
last bit.
"""

import logging
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

from pytorch_lightning import Callback
from pytorch_lightning import Trainer

from lottalora.distributed.collectives import is_first
from lottalora.errors import STOPPED
from lottalora.results.atomic_write import write_whole
from lottalora.results.provenance import commit
from lottalora.tasks.base import Task
from lottalora.training.best_epoch import BEST
from lottalora.training.lightning_internals import checkpoint_state
from lottalora.training.lightning_internals import is_accumulating
from lottalora.training.lightning_internals import is_last_batch
from lottalora.training.lightning_internals import without_announced_epoch
from lottalora.training.random_state import random_state
from lottalora.training.random_state import set_random_state
from lottalora.training.state_bytes import as_bytes
from lottalora.uncaught import STOPPED_BY_HAND

RESUME = "resume.ckpt"
UNKNOWN = ("",)  # the commits of a state that names none
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
log = logging.getLogger(__name__)


class Resume(Callback):
    """Writes what is needed to go on, and ends the process in good order when a signal asks for it.

    The state is written every `every` seconds, and on SIGTERM and SIGUSR1 (which Slurm sends before a time
    limit) after the step under way; the process then ends with the code `STOPPED`. Ctrl-C is answered in the
    same way, with the code 130; a second one ends the process at once. A SIGUSR2 is handed on to
    whoever waits for it, as submitit does, once the state is written. What is written is the state after the
    last optimizer step; after an epoch's last step, or where the batches keep no state of their own (see
    `data.batches.order.Batches`), the state at the beginning of the epoch, which is held in memory.

    Args:
        folder: where the state lies.
        every: seconds between two writings.
        forced: whether this is a run with force=true, which goes on from no other run's state.
    """

    def __init__(self, folder: Path, *, every: float, forced: bool = False) -> None:
        self.path = folder / RESUME
        self.every = every
        self.forced = forced
        self.commits = [commit()]
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
        return {"random": random_state(), **self.about()}

    def about(self) -> dict:
        """Which run this is, and which code has trained it so far."""
        return {
            "run": self.path.parent.name,
            "seconds": self.seconds,
            "commits": self.commits,
            "forced": self.forced,
            "job": os.environ.get("SLURM_JOB_ID"),
        }

    def load_state_dict(self, state: dict) -> None:
        self.random = state["random"]
        self.go_on(state)

    def go_on(self, about: dict) -> None:
        """Take over the seconds and the commits of the processes before this one."""
        self.earlier = about["seconds"]
        before = list(about.get("commits", UNKNOWN))
        self.commits = before if before[-1:] == self.commits else before + self.commits

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
