"""Training on all of the training part, where a tenth of it would choose the epoch."""

import pytest
import torch
from hydra.utils import instantiate

from lottalora.config.identity import changes
from lottalora.config.identity import digest
from lottalora.data.batches.held_out import checked_hold_out
from lottalora.data.cifar10 import CIFAR10
from lottalora.data.spec import DataSpec
from lottalora.results.command import overrides_of
from lottalora.tasks.classification import Classification
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit

PAIRS = [
    ("model=resnet", "data=cifar10"),
    ("model=distilbert", "data=imdb"),
    ("model=vit_random", "data=flowers102", "data.image_size=16"),
]


@pytest.mark.parametrize("pair", PAIRS)
def test_without_holding_out_all_examples_are_trained_on_and_none_chooses(composed, pair):
    def read(hold_out: bool):
        return instantiate(composed(*pair, "data.sample=true", f"data.hold_out={hold_out}").data).read()

    apart, together = read(True), read(False)
    assert together.validation is None
    assert together.validation_batches() is None
    assert len(together.train.labels) == len(apart.train.labels) + len(apart.validation.labels)
    labels = torch.cat([apart.train.labels, apart.validation.labels])
    assert torch.equal(together.train.labels, labels)
    assert torch.equal(together.test.labels, apart.test.labels)
    assert together.fingerprint() != apart.fingerprint()
    assert sum(len(target) for _, target in together.train_batches(0)) == len(labels)


@pytest.mark.parametrize("pair", PAIRS)
def test_the_choice_is_in_the_digest_only_where_it_was_made_and_is_no_change_of_the_recipe(typed, pair):
    usual = digest(typed(*pair[:2]))
    assert digest(typed(*pair[:2], "data.hold_out=true")) == usual
    cfg = typed(*pair[:2], "data.hold_out=false")
    assert digest(cfg) != usual
    assert changes(cfg) == {}


def test_the_last_epoch_counts(tmp_path):
    spec = DataSpec(in_shape=(3, 32, 32), out_dim=10, metric="accuracy", higher_is_better=True, chance=0.1)
    splits = CIFAR10(root="", batch_size=512, hold_out=False, sample=True).read()
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))

    def schedule(optimizer):
        return torch.optim.lr_scheduler.ConstantLR(optimizer)

    task = Classification(net, spec, torch.optim.AdamW, schedule)
    plan = TrainerSettings(epochs=2, patience=1, accelerator="cpu")
    trained = fit(task, splits, plan, seed=0, higher_is_better=True, folder=tmp_path)
    assert (trained.best_epoch, trained.epochs, trained.validation_score) == (1, 2, None)


def test_a_row_of_it_is_found_by_its_command():
    config = {"data": {"hold_out": False}, "model": {"size": "base"}}
    row = {"model": "distilbert", "size": "base", "data": "imdb", "mode": "baseline", "init": "",
           "rank": None, "seed": 42, "backbone_seed": None, "changed": {}, "config": config}  # fmt: skip
    assert "data.hold_out=false" in overrides_of(row)


def test_a_choice_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(ValueError, match="data.hold_out must be true or false, got 3"):
        checked_hold_out(3)
