"""A run that goes on in the middle of an epoch ends with the bits of one that was never stopped."""

import shutil
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback

from lottalora.data.batches.order import Batches
from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.classification import Classification
from lottalora.tasks.schedules import PerStep
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from lottalora.training.resampling import ResampleEachEpoch

BATCHES = 12  # of an epoch
EACH_EPOCH = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2)
EACH_STEP = PerStep(warmup=0.1, shape="cosine")


class Slices(Batches):
    """Twelve batches of the digits' training part, in an order that is a function of (seed, epoch)."""

    def __init__(self, seed):
        (x, label), *_ = Digits(batch_size=240).read().train_batches(seed)
        self.parts = list(zip(x.chunk(BATCHES), label.chunk(BATCHES), strict=True))
        super().__init__(BATCHES, batch_size=1, seed=seed)

    def batch(self, number, index):
        return self.parts[index.item()]


class Splits:
    def train_batches(self, seed):
        return Slices(seed)

    def validation_batches(self):
        return Digits(batch_size=200).read().validation_batches()


class Killed(Exception):
    pass


class KillAfter(Callback):
    """Ends the process's work after so many batches in all."""

    def __init__(self, batches):
        self.batches = batches

    def on_train_batch_end(self, trainer, *_):
        if trainer.fit_loop.epoch_loop.total_batch_idx + 1 == self.batches:
            raise Killed


def train(folder, *, kill_after=None, accumulate=1, schedule=EACH_EPOCH):
    torch.manual_seed(3)
    net = MLP((1, 8, 8), 10, hidden=[32], dropout=0.1)
    wrap(net, Scaffold(rank=2, seed=1), keep=["head"])
    task = Classification(net, Digits.spec, partial(torch.optim.AdamW, lr=0.01), schedule)
    plan = TrainerSettings(epochs=2, accelerator="cpu", accumulate=accumulate, checkpoint_every=0)
    callbacks = [ResampleEachEpoch(), *([KillAfter(kill_after)] if kill_after else [])]
    return task, fit(task, Splits(), plan, seed=0, higher_is_better=True, folder=folder, callbacks=callbacks)


@pytest.mark.parametrize("schedule", [EACH_EPOCH, EACH_STEP], ids=["each_epoch", "each_step"])
@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("after", [1, 7, BATCHES, BATCHES + 1, 2 * BATCHES - 1, 2 * BATCHES])
def test_killed_after_any_batch_the_run_ends_with_the_same_bits(after, accumulate, schedule, tmp_path):
    options = {"accumulate": accumulate, "schedule": schedule}
    task, whole = train(tmp_path / "whole", **options)
    with pytest.raises(Killed):
        train(tmp_path / "parts", kill_after=after, **options)
    resumed, parts = train(tmp_path / "parts", **options)
    assert parts.validation_score == whole.validation_score
    assert repr(parts.history) == repr(whole.history)  # repr: NaN equals itself there
    assert len(whole.history["epoch"]) == 20
    assert parts.trainer.global_step == whole.trainer.global_step == 2 * BATCHES / accumulate
    ours, theirs = resumed.state_dict(), task.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_checkpoint_of_a_run_with_another_config_is_refused_and_kept(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path / "rank_4", kill_after=8)
    shutil.copytree(tmp_path / "rank_4", tmp_path / "rank_2")
    with pytest.raises(ValueError, match="resume.ckpt is of another run, rank_4, .*delete it and repeat"):
        train(tmp_path / "rank_2")
    assert (tmp_path / "rank_2" / "resume.ckpt").exists()


def test_run_goes_on_at_the_batch_after_the_last_that_was_kept(tmp_path):
    with pytest.raises(Killed):
        train(tmp_path, kill_after=8)
    kept = torch.load(tmp_path / "resume.ckpt", weights_only=True)
    assert kept["loops"]["fit_loop"]["state_dict"]["combined_loader"] == [{"batch": 8}]


def test_batches_are_given_once_and_from_the_start_in_the_next_epoch():
    batches = Slices(0)
    batches.load_state_dict({"batch": 9})
    assert [len(list(batches)), len(list(batches))] == [3, BATCHES]
    assert batches.state_dict() == {"batch": 0}
