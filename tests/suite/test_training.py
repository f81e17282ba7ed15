"""What training may change, and which weights are scored."""

from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from pytorch_lightning import Callback
from torch import nn

from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.results.provenance import provenance
from lottalora.scaffold import Scaffold
from lottalora.scaffold import resample
from lottalora.scaffold import wrap
from lottalora.tasks.classification import Classification
from lottalora.training.best_epoch import Best
from lottalora.training.best_epoch import epochs_since_better
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from lottalora.training.fit import score
from lottalora.training.resampling import ResampleEachEpoch


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small scaffold after two epochs: net, frozen weights before, splits, training and task."""
    torch.manual_seed(0)
    net = MLP((1, 8, 8), 10, hidden=[32], dropout=0.1)
    wrap(net, Scaffold(rank=2, seed=1, bias="frozen"), keep=["head"])
    before = {name: value.clone() for name, value in net.named_buffers()}
    splits = Digits(batch_size=32).read()
    task = classification(net, lr=0.01)
    training = fit(task, splits, **options(tmp_path_factory.mktemp("run"), epochs=2))
    return net, before, splits, training, task


def checkpoint_of(training) -> dict:
    path = Path(training.trainer.default_root_dir, "best.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def classification(net: nn.Module, *, lr: float) -> Classification:
    optimizer = partial(torch.optim.AdamW, lr=lr)
    schedule = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=2)
    return Classification(net, Digits.spec, optimizer, schedule)


def options(folder, *, epochs: int, **steps) -> dict:
    return {
        "settings": TrainerSettings(epochs=epochs, accelerator="cpu", **steps),
        "seed": 0,
        "higher_is_better": True,
        "folder": folder,
    }


def test_the_frozen_weights_are_the_same_bits_after_training(trained):
    net, before, *_ = trained
    after = dict(net.named_buffers())
    frozen = [name for name in before if name.endswith("W_seed")]
    assert "body.1.W_seed" in frozen
    assert all(torch.equal(after[name], before[name]) for name in frozen)


def test_a_checkpoint_holds_no_frozen_weight(trained):
    *_, training, _ = trained
    weights = checkpoint_of(training)
    assert "net.body.1.A" in weights
    assert not any("W_seed" in name for name in weights)


def test_the_score_is_that_of_the_best_epoch_over_the_whole_test_part(trained):
    net, _, splits, training, task = trained
    best = score(training.trainer, task, splits)
    weights = checkpoint_of(training)
    assert all(torch.equal(value, weights[f"net.{name}"]) for name, value in net.state_dict().items())
    net.eval()
    with torch.no_grad():
        hits = sum(int((net(x).argmax(1) == label).sum()) for x, label in splits.test_batches())
    assert best == pytest.approx(hits / 359)


def test_of_equal_epochs_the_first_is_the_best(tmp_path):
    torch.manual_seed(0)
    task = classification(MLP((1, 8, 8), 10, hidden=[4], dropout=0.0), lr=1e-12)  # nothing moves
    training = fit(task, Digits(batch_size=256).read(), **options(tmp_path, epochs=3))
    assert training.best_epoch == 0


def test_every_epoch_has_an_order_of_its_own(tmp_path):
    seen = []

    class Watching(Classification):
        def training_step(self, batch, index):
            seen.append(batch[1][:8].tolist())
            return super().training_step(batch, index)

    made = classification(MLP((1, 8, 8), 10, hidden=[4], dropout=0.0), lr=1e-3)
    task = Watching(made.net, Digits.spec, made.make_optimizer, made.make_schedule)
    splits = Digits(batch_size=2000).read()
    fit(task, splits, **options(tmp_path, epochs=2))
    assert len(seen) == 2
    assert seen[0] != seen[1]


def test_an_mlp_has_a_linear_for_each_width_and_a_head():
    net = MLP((1, 8, 8), 10, hidden=[16, 8], dropout=0.5)
    shapes = [tuple(m.weight.shape) for m in net.modules() if isinstance(m, nn.Linear)]
    assert shapes == [(16, 64), (8, 16), (10, 8)]
    assert net(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


class WithoutValidation:
    """The digits, under a protocol that has no validation part."""

    def __init__(self) -> None:
        self.digits = Digits(batch_size=64).read()

    def train_batches(self, seed):
        return self.digits.train_batches(seed)

    def validation_batches(self):
        return None

    def test_batches(self):
        return self.digits.test_batches()


def small(lr: float = 0.01) -> Classification:
    torch.manual_seed(0)
    return classification(MLP((1, 8, 8), 10, hidden=[16], dropout=0.0), lr=lr)


def test_without_a_validation_part_the_last_epoch_is_scored(tmp_path):
    task = small()
    training = fit(task, WithoutValidation(), **options(tmp_path, epochs=3))
    assert (training.validation_score, training.best_epoch, training.epochs) == (None, 2, 3)
    assert score(training.trainer, task, WithoutValidation()) > 0.5
    assert checkpoint_of(training).keys() == task.state_dict().keys()


def test_training_ends_when_the_score_has_not_been_better_for_patience_epochs(tmp_path):
    training = fit(small(lr=1e-12), Digits(batch_size=256).read(), **options(tmp_path, epochs=9, patience=2))
    assert (training.epochs, training.best_epoch) == (3, 0)


def test_a_difference_up_to_min_delta_is_not_better():
    scores = [0.5, 0.55, 0.58, 0.6]
    assert epochs_since_better(scores, 0.0, higher_is_better=True) == 0
    assert epochs_since_better(scores, 0.07, higher_is_better=True) == 1
    assert epochs_since_better([1 - s for s in scores], 0.5, higher_is_better=False) == 3


def test_accumulated_batches_make_the_step_of_one_large_batch(tmp_path):
    """By SGD, since Adam hides the scale of a gradient."""
    weights = []
    for batch_size, accumulate in ((1258, 1), (629, 2)):
        task = small()
        task.make_optimizer = partial(torch.optim.SGD, lr=0.1)
        splits = Digits(batch_size=batch_size).read()
        fit(task, splits, **options(tmp_path / str(accumulate), epochs=1, accumulate=accumulate))
        weights.append(task.net.head.weight.detach())
    torch.testing.assert_close(*weights)


def test_clipping_bounds_the_norm_of_a_step(tmp_path):
    task = small()
    task.make_optimizer = partial(torch.optim.SGD, lr=1.0)
    before = torch.cat([p.detach().flatten().clone() for p in task.net.parameters()])
    fit(task, Digits(batch_size=1258).read(), **options(tmp_path, epochs=1, clip=0.01))
    after = torch.cat([p.detach().flatten() for p in task.net.parameters()])
    torch.testing.assert_close((after - before).norm(), torch.tensor(0.01), rtol=1e-3, atol=0)


def test_resampling_gives_each_epoch_a_scaffold_of_its_own_and_the_score_that_of_the_best(tmp_path):
    torch.manual_seed(0)
    net = MLP((1, 8, 8), 10, hidden=[16], dropout=0.0)
    wrap(net, Scaffold(rank=2, seed=1), keep=["head"])
    seen = []

    class Watch(Callback):
        def on_train_epoch_end(self, trainer, task):
            seen.append(task.net.body[1].W_seed.clone())

    given = options(tmp_path, epochs=3) | {"callbacks": [ResampleEachEpoch(), Watch()]}
    fit(classification(net, lr=0.01), Digits(batch_size=64).read(), **given)
    assert not torch.equal(seen[0], seen[1])
    resample(net, 2)
    assert torch.equal(net.body[1].W_seed, seen[1])


@pytest.mark.parametrize("precision", ["32-true", "auto", "bf16-mixed"])
def test_scaffold_trains_in_each_precision_and_the_row_says_which(precision, tmp_path):
    net = MLP((1, 8, 8), 10, hidden=[32], dropout=0.0)
    wrap(net, Scaffold(rank=2, seed=1), keep=["head"])
    task = classification(net, lr=0.01)
    trained = fit(task, Digits(batch_size=32).read(), **options(tmp_path, epochs=3, precision=precision))
    assert trained.validation_score > 0.6
    used = trained.trainer.precision
    assert used == precision or (precision == "auto" and used in ("32-true", "bf16-mixed"))
    assert provenance(torch.device("cpu"), used)["device"].endswith("bf16-mixed") == (used == "bf16-mixed")


def test_half_precision_clips_the_gradients_of_a_fused_optimizer(tmp_path):
    net = MLP((1, 8, 8), 10, hidden=[32], dropout=0.0)
    before = torch.nn.utils.parameters_to_vector(net.parameters()).detach()
    task = classification(net, lr=0.01)
    task.make_optimizer = partial(torch.optim.SGD, lr=0.1, fused=True)
    splits = Digits(batch_size=32).read()
    fit(task, splits, **options(tmp_path, epochs=1, precision="bf16-mixed", clip=1e-3))
    moved = torch.nn.utils.parameters_to_vector(net.parameters()).detach() - before
    assert 0 < moved.norm() <= 1.001 * 0.1 * 1e-3 * len(splits.train_batches(0))


@pytest.mark.parametrize(("again", "scores", "kept"), [(0.4, [0.5, 0.7], 1.0), (0.9, [0.5, 0.9], 2.0)])
def test_a_best_epoch_that_a_killed_run_does_not_meet_again_keeps_its_score(again, scores, kept, tmp_path):
    """On a GPU a repeated epoch may come out otherwise; best.ckpt holds the first one's weights."""
    net = nn.Linear(1, 1, bias=False)
    task = classification(net, lr=0.1)

    def validate(best: Best, score: float, weight: float) -> None:
        nn.init.constant_(net.weight, weight)
        metrics = {"validation/score": torch.tensor(score)}
        best.on_validation_end(SimpleNamespace(callback_metrics=metrics), task)

    killed, repeated = (Best(tmp_path, higher_is_better=True) for _ in range(2))
    validate(killed, 0.5, 0.0)
    state = killed.state_dict() | {"scores": list(killed.scores)}
    validate(killed, 0.7, 1.0)
    repeated.load_state_dict(state)
    validate(repeated, again, 2.0)
    assert repeated.scores == pytest.approx(scores)
    assert (repeated.epoch, torch.load(repeated.path)["state_dict"]["net.weight"].item()) == (1, kept)
