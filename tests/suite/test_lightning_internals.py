"""The four things that we take from inside Lightning are still there and mean what we take them for."""

from copy import deepcopy
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback
from pytorch_lightning import Trainer

from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.tasks.classification import Classification
from lottalora.training.fit import quieten
from lottalora.training.lightning_internals import checkpoint_state
from lottalora.training.lightning_internals import is_accumulating
from lottalora.training.lightning_internals import is_last_batch
from lottalora.training.lightning_internals import without_announced_epoch

BATCHES, ACCUMULATE = 5, 2  # steps after batches 2, 4 and, as the last one of the epoch, 5


class Seen(Callback):
    """Asks after every batch, and keeps the state at one place, as it is handed to a checkpoint.

    Args:
        at: batch of the second epoch, from 1, after which the state is kept; 0: when the epoch is announced.
    """

    def __init__(self, at=0):
        self.at = at
        self.accumulating, self.last, self.steps = [], [], []
        self.state = self.announced = None

    def state_dict(self):
        return {"at": self.at}

    def on_train_epoch_start(self, trainer, _):
        if trainer.current_epoch == 1 and self.at == 0:
            self.announced = deepcopy(checkpoint_state(trainer))
            self.state = without_announced_epoch(deepcopy(checkpoint_state(trainer)))

    def on_train_batch_end(self, trainer, task, *_):
        self.accumulating.append(is_accumulating(trainer))
        self.last.append(is_last_batch(trainer))
        self.steps.append(trainer.global_step)
        if trainer.current_epoch == 1 and len(self.last) == BATCHES + self.at:
            self.state = deepcopy(checkpoint_state(trainer))


def fitted(folder, *, epochs=2, seen=None, checkpoint=None):
    """A real fit of a small net, from its start or from a checkpoint."""
    quieten()
    torch.manual_seed(0)
    task = Classification(
        MLP((1, 8, 8), 10, hidden=[4], dropout=0.0),
        Digits.spec,
        partial(torch.optim.AdamW, lr=0.01),
        partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=epochs),
    )
    task.decay = "all"
    trainer = Trainer(
        max_epochs=epochs,
        accumulate_grad_batches=ACCUMULATE,
        accelerator="cpu",
        callbacks=[seen or Seen()],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    batches = Digits(batch_size=290).read().train_batches(0)
    assert len(batches) == BATCHES
    trainer.fit(task, batches, ckpt_path=checkpoint)
    return trainer, task


def test_a_batch_accumulates_until_its_optimizer_step_and_the_last_one_is_known(tmp_path):
    seen = Seen()
    fitted(tmp_path, seen=seen)
    assert seen.accumulating == 2 * [True, False, True, False, False]
    assert seen.last == 2 * [False, False, False, False, True]
    assert seen.steps == [0, 1, 1, 2, 3, 3, 4, 4, 5, 6]


def test_the_state_is_that_of_a_checkpoint_with_all_that_goes_on(tmp_path):
    seen = Seen(at=BATCHES)
    trainer, task = fitted(tmp_path, seen=seen)
    trainer.save_checkpoint(tmp_path / "public.ckpt")
    public = torch.load(tmp_path / "public.ckpt", weights_only=False)
    assert seen.state.keys() == public.keys()
    assert seen.state["global_step"] == 6
    assert seen.state["callbacks"] == {"Seen": {"at": BATCHES}}
    assert len(seen.state["optimizer_states"]) == len(seen.state["lr_schedulers"]) == 1
    weights = task.state_dict()
    assert weights and all(torch.equal(seen.state["state_dict"][name], weights[name]) for name in weights)


@pytest.mark.parametrize("at", [0, 2, 4])
def test_a_fit_that_goes_on_from_the_state_ends_like_one_without_a_stop(at, tmp_path):
    seen = Seen(at)
    whole_trainer, whole = fitted(tmp_path, seen=seen)
    torch.save(seen.state, tmp_path / "state.ckpt")
    trainer, resumed = fitted(tmp_path, seen=(again := Seen(at)), checkpoint=tmp_path / "state.ckpt")
    assert len(again.last) == BATCHES - at
    assert trainer.global_step == whole_trainer.global_step == 6
    assert trainer.current_epoch == whole_trainer.current_epoch == 2
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_an_announced_epoch_is_not_trained_in_full_unless_it_is_dropped(tmp_path):
    """If the last line alone fails, `without_announced_epoch` is needed no more."""
    seen = Seen()
    fitted(tmp_path, seen=seen)
    progress = seen.announced["loops"]["fit_loop"]["epoch_progress"]
    assert progress["current"]["ready"] == progress["current"]["completed"] + 1 == 2
    dropped = seen.state["loops"]["fit_loop"]["epoch_progress"]
    assert dropped["current"]["ready"] == dropped["current"]["completed"] == 1
    torch.save(seen.announced, tmp_path / "announced.ckpt")
    again = Seen()
    fitted(tmp_path, seen=again, checkpoint=tmp_path / "announced.ckpt")
    assert len(again.last) < BATCHES
