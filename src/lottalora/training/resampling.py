"""Training over many scaffolds: redraw W_seed at the start of every epoch."""

from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import nn

from lottalora.scaffold import resample
from lottalora.tasks.base import Task


class ResampleEachEpoch(Callback):
    """Use scaffold number k + 1 of the backbone seed in epoch k = 0, 1, ….

    The scaffold is a function of the epoch alone, so a resumed run has the same one.
    Source: the paper, Table 4 and its Decision Transformer's meta-LoRA.
    """

    def on_train_epoch_start(self, trainer: Trainer, task: Task) -> None:
        set_scaffold_of_epoch(task.net, trainer.current_epoch)

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """A run resumed within an epoch does not pass the epoch's start."""
        self.on_train_epoch_start(trainer, task)


def resamplers(resample: str | None) -> list[Callback]:
    """The callbacks of a training that redraws its scaffold: each "epoch", or never (None)."""
    return [ResampleEachEpoch()] if resample == "epoch" else []


def set_scaffold_of_epoch(net: nn.Module, epoch: int) -> None:
    """Set W_seed to the scaffold of this epoch, counted from 0."""
    resample(net, epoch + 1)
