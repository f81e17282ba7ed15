"""A run that goes on in the middle of an epoch ends with the bits of one that was never stopped."""

import shutil
from functools import partial
from pathlib import Path

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
from lottalora.training import checkpoints
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


def train(folder, *, kill_after=None, accumulate=1, schedule=EACH_EPOCH, forced=False):
    torch.manual_seed(3)
    net = MLP((1, 8, 8), 10, hidden=[32], dropout=0.1)
    wrap(net, Scaffold(rank=2, seed=1), keep=["head"])
    task = Classification(net, Digits.spec, partial(torch.optim.AdamW, lr=0.01), schedule)
    plan = TrainerSettings(epochs=2, accelerator="cpu", accumulate=accumulate, checkpoint_every=0)
    callbacks = [ResampleEachEpoch(), *([KillAfter(kill_after)] if kill_after else [])]
    settings = {"seed": 0, "higher_is_better": True, "folder": folder, "forced": forced}
    return task, fit(task, Splits(), plan, callbacks=callbacks, **settings)


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


@pytest.mark.parametrize("epoch", [0, 1], ids=["earlier", "later"])
def test_weights_of_another_training_are_named_and_the_run_starts_anew(epoch, tmp_path, caplog):
    task, _ = train(tmp_path / "whole")
    with pytest.raises(Killed):
        train(tmp_path / "parts", kill_after=BATCHES + 2)
    path = tmp_path / "parts" / "best.ckpt"
    kept = torch.load(path, weights_only=True)
    foreign = {name: torch.zeros_like(weight) for name, weight in kept["state_dict"].items()}
    torch.save({"state_dict": foreign, "epoch": epoch, "score": kept["score"] - 0.01}, path)
    resumed, _ = train(tmp_path / "parts")
    assert f"{path} holds the weights of another training" in caplog.text
    ours, theirs = resumed.state_dict(), task.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


class OverwriteBest(Callback):
    """Another process that writes into the folder of this one."""

    def on_train_end(self, trainer, task):
        path = Path(trainer.default_root_dir, "best.ckpt")
        torch.save({"state_dict": task.state_dict(), "epoch": 0, "score": 2.0}, path)


def test_weights_that_another_process_has_written_are_never_scored(tmp_path, monkeypatch):
    monkeypatch.setitem(globals(), "ResampleEachEpoch", OverwriteBest)
    with pytest.raises(ValueError, match="best.ckpt holds epoch 0 with a score of 2.0, .* starts anew"):
        train(tmp_path)


def test_a_forced_run_leaves_no_weights_of_the_finished_one_before_it(tmp_path):
    train(tmp_path)
    with pytest.raises(Killed):
        train(tmp_path, kill_after=3, forced=True)
    assert (tmp_path / "resume.ckpt").exists() and not (tmp_path / "best.ckpt").exists()


def killed_and_repeated(folder, monkeypatch, *, commits=("a", "b"), forced):
    """The result of a run that was killed and repeated: by which code, and whether forced, each time."""
    monkeypatch.setattr(checkpoints, "commit", lambda: commits[0])
    with pytest.raises(Killed):
        train(folder, kill_after=8, forced=forced[0])
    monkeypatch.setattr(checkpoints, "commit", lambda: commits[1])
    return train(folder, forced=forced[1])[1]


def test_other_code_goes_on_with_a_warning_and_the_result_names_both(tmp_path, monkeypatch, caplog):
    assert list(killed_and_repeated(tmp_path, monkeypatch, forced=(False, False)).commits) == ["a", "b"]
    assert "resume.ckpt was written at commit a, and the code is now at commit b" in caplog.text


def test_the_same_code_goes_on_without_a_warning(tmp_path, monkeypatch, caplog):
    caplog.set_level("INFO")
    result = killed_and_repeated(tmp_path, monkeypatch, commits=("a", "a"), forced=(False, False))
    assert list(result.commits) == ["a"]
    assert "going on from" in caplog.text and "written at commit" not in caplog.text


@pytest.mark.parametrize(
    ("commits", "forced", "goes_on"),
    [
        (("a", "a"), (False, True), False),
        (("a", "b"), (True, True), False),
        (("a", "a"), (True, True), True),
        (("a", "a"), (True, False), True),
    ],
)
def test_a_forced_run_goes_on_from_its_own_state_alone(
    commits, forced, goes_on, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO")
    killed_and_repeated(tmp_path, monkeypatch, commits=commits, forced=forced)
    assert ("going on from" in caplog.text) == goes_on
    assert ("not written by this forced run, which starts anew" in caplog.text) != goes_on


def test_a_forced_run_that_slurm_has_put_back_goes_on_with_other_code(tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert list(killed_and_repeated(tmp_path, monkeypatch, forced=(True, True)).commits) == ["a", "b"]


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
