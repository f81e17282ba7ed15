"""Training over many scaffolds: W_seed is drawn anew at the beginning of every epoch."""

from pytorch_lightning import Callback
from pytorch_lightning import Trainer
from torch import nn

from lottalora.scaffold import resample
from lottalora.tasks.base import Task


class ResampleEachEpoch(Callback):
    """Gives epoch k, counted from 0, the scaffold number k + 1 of the backbone seed.

    The scaffold is a function of the epoch, so a run that goes on from a checkpoint has the same.
    Source: the paper, Table 4 and its Decision Transformer's meta-LoRA.
    """

    def on_train_epoch_start(self, trainer: Trainer, task: Task) -> None:
        scaffold_of_epoch(task.net, trainer.current_epoch)

    def on_train_start(self, trainer: Trainer, task: Task) -> None:
        """A run that goes on in the middle of an epoch does not meet the epoch's start."""
        self.on_train_epoch_start(trainer, task)


def scaffold_of_epoch(net: nn.Module, epoch: int) -> None:
    """Set W_seed to what the trained weights of this epoch, counted from 0, belong to."""
    resample(net, epoch + 1)
