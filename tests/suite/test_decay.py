"""What weight decay acts on, and what it alone would make of β."""

import math
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

from lottalora.config.check_values import CHOICES
from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.classification import Classification
from lottalora.tasks.schedules import PerStep
from lottalora.tasks.weight_decay import DECAYS
from lottalora.tasks.weight_decay import groups
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit

LR, DECAY, BATCH = 0.01, 0.5, 256


def scaffold() -> nn.Module:
    net = nn.Sequential(nn.Linear(64, 8), nn.LayerNorm(8), nn.Linear(8, 10))
    wrap(net, Scaffold(rank=2, seed=1, bias="trained"), keep=["2"])
    return net


def decayed_names(decay: str) -> set[str]:
    net = scaffold()
    made = torch.optim.AdamW(groups(net, list(net.parameters()), decay), lr=LR, weight_decay=DECAY)
    names = {id(parameter): name for name, parameter in net.named_parameters()}
    stepped = [id(parameter) for group in made.param_groups for parameter in group["params"]]
    assert sorted(stepped) == sorted(names), "each is stepped once"
    return {names[id(p)] for group in made.param_groups if group["weight_decay"] for p in group["params"]}


def test_decay_acts_on_the_parameters_of_the_choice_by_name():
    everything = {"0.A", "0.B", "0.beta", "0.bias", "1.weight", "1.bias", "2.weight", "2.bias"}
    assert decayed_names("all") == everything
    assert decayed_names("all_but_beta") == everything - {"0.beta"}
    assert decayed_names("matrices") == {"0.A", "0.B", "2.weight"}


def test_a_decay_group_that_names_nothing_is_refused():
    net = nn.Linear(4, 4, bias=False)
    for decay in ("all_but_beta", "matrices"):
        with pytest.raises(ValueError, match=f"^trainer.decay={decay} keeps .* Type trainer.decay=all.$"):
            groups(net, list(net.parameters()), decay)
    with pytest.raises(ValueError, match="leaves nothing that decays"):
        groups(net, [nn.Parameter(torch.zeros(3))], "matrices")


def test_an_unknown_choice_is_refused_and_the_config_knows_the_same_ones():
    assert CHOICES["trainer.decay"] == DECAYS
    with pytest.raises(ValueError, match="Unknown trainer.decay 'none'. Known: all, all_but_beta, matrices"):
        groups(scaffold(), [], "none")


class Rates(Callback):
    """The rate of every step as the optimizer saw it."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_before_optimizer_step(self, _, task, optimizer) -> None:
        self.rates.append(optimizer.param_groups[-1]["lr"])
        for name, parameter in task.net.named_parameters():
            if name.endswith("beta"):
                parameter.grad.zero_()  # so that only decay acts on it


def train(folder, optimizer=torch.optim.AdamW, schedule=None, callbacks=(), net=None, **steps):
    torch.manual_seed(0)
    if net is None:
        net = MLP((1, 8, 8), 10, hidden=[16], dropout=0.0)
        wrap(net, Scaffold(rank=2, seed=1, bias="frozen"), keep=["head"])
    schedule = schedule or partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=3)
    task = Classification(net, Digits.spec, partial(optimizer, lr=LR, weight_decay=DECAY), schedule)
    plan = TrainerSettings(**{"epochs": 3, "accelerator": "cpu", "checkpoint_every": 0} | steps)
    splits = Digits(batch_size=BATCH).read()
    trained = fit(task, splits, plan, seed=0, higher_is_better=True, folder=folder, callbacks=[*callbacks])
    return trained, task


@pytest.mark.parametrize("schedule", [None, PerStep(warmup=0.2, shape="linear")])
@pytest.mark.parametrize("steps", [{}, {"accumulate": 2, "clip": 0.1}])
def test_beta_decay_is_what_decay_alone_makes_of_beta(tmp_path, schedule, steps):
    rates = Rates()
    trained, task = train(tmp_path, schedule=schedule, callbacks=[rates], **steps)
    each = len(rates.rates) // 3
    upto = rates.rates[: each * (trained.best_epoch + 1)]
    assert trained.beta_decay == pytest.approx(math.prod(1 - rate * DECAY for rate in upto), rel=1e-12)
    assert trained.beta_decay == pytest.approx(task.net.body[1].beta.item(), rel=1e-5)
    assert trained.beta_decay < 0.99


def test_beta_decay_is_1_where_beta_is_kept_out_and_beta_then_stays(tmp_path):
    trained, task = train(tmp_path, callbacks=[Rates()], decay="all_but_beta")
    assert trained.beta_decay == 1
    assert task.net.body[1].beta.item() == 1


def test_beta_decay_is_null_for_l2_and_without_a_beta(tmp_path):
    assert train(tmp_path / "l2", optimizer=torch.optim.Adam, epochs=1)[0].beta_decay is None
    dense = MLP((1, 8, 8), 10, hidden=[16], dropout=0.0)
    assert train(tmp_path / "dense", net=dense, epochs=1)[0].beta_decay is None


class Stop(Callback):
    def on_train_epoch_start(self, trainer, _) -> None:
        if trainer.current_epoch == 2:
            raise KeyboardInterrupt


@pytest.mark.parametrize("decay", ["all", "matrices"])
def test_beta_decay_goes_on_where_a_killed_run_stopped(tmp_path, decay):
    whole, _ = train(tmp_path / "whole" / "run", decay=decay)
    folder = tmp_path / "again" / "run"
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        train(folder, decay=decay, callbacks=[Stop()], checkpoint_every=1e-9)
    assert (folder / "resume.ckpt").exists()
    again, _ = train(folder, decay=decay)
    assert (again.beta_decay, again.best_epoch) == (whole.beta_decay, whole.best_epoch)
