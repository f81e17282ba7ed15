"""The straight training step: the same bits as Lightning's own, for fewer calls, and only where allowed."""

import cProfile
import pstats
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.classification import Classification
from lottalora.tracking.progress import Progress
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from lottalora.training.fit import goes_straight
from lottalora.training.straight import Straight

CALLS = 1_100  # of functions in a step, 300 of them in a bare loop too; with all of Lightning's hooks 2,500
STEPS = 20
SETTINGS = TrainerSettings(epochs=2, accelerator="cpu")


class Looks(Callback):
    """Has a hook that the straight step does not call."""

    seen = 0

    def on_after_backward(self, *_):
        self.seen += 1


class Counts(Callback):
    """Counts the calls in a few steps of the first epoch."""

    def __init__(self):
        self.profile = cProfile.Profile()

    def on_train_batch_start(self, trainer, task, batch, index):
        if index == 2:
            self.profile.enable()
        if index == 2 + STEPS:
            self.profile.disable()


class OwnBackward(Classification):
    def backward(self, loss):
        loss.backward()


def new_task(kind=Classification, *, dense=False):
    torch.manual_seed(0)
    net = MLP((1, 8, 8), 10, hidden=[16, 8], dropout=0.1)
    if not dense:
        wrap(net, Scaffold(rank=2, seed=1, bias="frozen"), keep=["head"])
    optimizer = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1, fused=True)
    return kind(net, Digits.spec, optimizer, partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2))


def train(folder, *callbacks, epochs=2, batch_size=100, accumulate=1, dense=False):
    task, splits = new_task(dense=dense), Digits(batch_size=batch_size).read()
    settings = TrainerSettings(epochs=epochs, accelerator="cpu", accumulate=accumulate)
    watchers = [Progress(), *callbacks]
    trained = fit(task, splits, settings, seed=0, higher_is_better=True, folder=folder, callbacks=watchers)
    return trained, task


@pytest.mark.parametrize("accumulate", [1, 4])
def test_straight_steps_train_to_the_same_bits_as_those_of_lightning(tmp_path, accumulate):
    straight, ours = train(tmp_path / "straight", accumulate=accumulate)
    usual, theirs = train(tmp_path / "usual", looks := Looks(), accumulate=accumulate)
    assert isinstance(straight.trainer.strategy, Straight)
    assert not isinstance(usual.trainer.strategy, Straight)
    assert looks.seen == 2 * usual.trainer.num_training_batches
    assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())
    assert str(straight.history) == str(usual.history)  # nan equals nan
    assert straight.validation_score == usual.validation_score


@pytest.mark.parametrize(
    ("setting", "kind", "callbacks"),
    [
        ({"clip": 1.0}, Classification, []),
        ({"precision": "bf16-mixed"}, Classification, []),
        ({}, OwnBackward, []),
        ({}, Classification, [Looks()]),
    ],
)
def test_no_step_goes_straight_past_what_a_run_asks_for(setting, kind, callbacks):
    assert goes_straight(SETTINGS, new_task(), [Progress()])
    settings = TrainerSettings(**{"epochs": 2, "accelerator": "cpu"} | setting)
    assert not goes_straight(settings, new_task(kind), callbacks)


def test_a_step_makes_few_calls_of_functions(tmp_path):
    """A count in place of a time, which would differ with the machine's load."""
    counts = Counts()
    train(tmp_path, counts, epochs=1, batch_size=29, dense=True)
    assert 500 < pstats.Stats(counts.profile).total_calls / STEPS < CALLS


def test_a_task_sets_plain_attributes_and_registers_the_others():
    task = new_task()
    task.decay, task.bias = "matrices", nn.Parameter(torch.ones(1))
    task.decay = None
    assert "bias" in dict(task.named_parameters())
    task.bias = None
    assert task.decay is None and task.bias is None
    assert "bias" not in task.__dict__ and "bias" not in dict(task.named_parameters())
