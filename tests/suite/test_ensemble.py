"""An ensemble's members are the runs that they would be alone."""

import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim import AdamW
from torch.optim.lr_scheduler import CosineAnnealingLR

from lottalora.data.batches.images import ImageSplits
from lottalora.data.digits import Digits
from lottalora.data.lorenz import Lorenz
from lottalora.data.mnist import MNIST
from lottalora.models.cfc import CfC
from lottalora.models.mlp import MLP
from lottalora.models.resnet import ResNet
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.binary import Binary
from lottalora.tasks.classification import Classification
from lottalora.tasks.regression import Regression
from lottalora.training.ensemble.fit import Ensemble
from lottalora.training.ensemble.members import Run
from lottalora.training.ensemble.members import generator_in
from lottalora.training.fit import FitResult
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit

MNIST_FOLDER = Path(os.environ.get("LOTTALORA_DATA", "nowhere"), "mnist")
STEPS = 20
ONE_EPOCH = TrainerSettings(epochs=1, accelerator="cpu")
DIVERGES = 1e30  # a learning rate
CELLS = (  # seed, family, α, learning rate
    (42, "normal", 8, 1e-3),
    (43, "normal", 8, 1e-3),
    (42, "binary", 16, 3e-3),
    (44, "cauchy", 4, DIVERGES),
)


@pytest.fixture(scope="module")
def data():
    """MNIST if it is there, else the digits, with as many examples as 20 steps take."""
    found = MNIST(root=str(MNIST_FOLDER), batch_size=128) if MNIST_FOLDER.exists() else Digits(batch_size=50)
    splits = found.read()
    count = STEPS * found.batch_size - 7  # the last batch is smaller
    train, validation = splits.train.take(torch.arange(count)), splits.validation.take(torch.arange(100))
    return found.spec, replace(splits, train=train, validation=validation)


def mlp(in_shape: tuple[int, ...]) -> nn.Module:
    return MLP(in_shape, 10, hidden=[128, 64], dropout=0.1)


def task_of(cell: tuple, spec, make=mlp, **options) -> Classification:
    seed, family, alpha, lr = cell
    torch.manual_seed(seed)
    net = make(spec.in_shape)
    settings = {"bias": "frozen"} | options
    wrap(net, Scaffold(rank=8, seed=seed, family=family, alpha=alpha, **settings), keep=["head"])
    optimizer = partial(AdamW, lr=lr, weight_decay=0.01, fused=True)
    return Classification(net, spec, optimizer, partial(CosineAnnealingLR, T_max=3))


def run_of(task, seed: int, folder: Path) -> Run:
    """As the suite makes it, right after the net was built from its seed."""
    return Run(task=task, seed=seed, generator=generator_in(torch.get_rng_state()), folder=folder)


def together(
    cells, spec, splits: ImageSplits, settings: TrainerSettings, folder: Path, **options
) -> tuple[list, list[FitResult]]:
    runs = [
        run_of(task_of(cell, spec, **options), cell[0], folder / str(number))
        for number, cell in enumerate(cells)
    ]
    better = spec.higher_is_better
    ensemble = Ensemble(runs, splits, settings, higher_is_better=better, folder=folder / "ensemble")
    return [run.task for run in runs], ensemble.fit()


def alone(cell, spec, splits, settings, folder, **options) -> tuple:
    task = task_of(cell, spec, **options)
    better = spec.higher_is_better
    return task, fit(task, splits, settings, seed=cell[0], higher_is_better=better, folder=folder)


def assert_same(ours, theirs, name: str = "") -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5, equal_nan=True, msg=name or None)


def assert_same_run(task, result: FitResult, other, expected: FitResult) -> None:
    for (name, value), same in zip(task.state_dict().items(), other.state_dict().values(), strict=True):
        assert_same(value, same, name)
    for name in ("best_epoch", "epochs", "diverged"):
        assert getattr(result, name) == getattr(expected, name), name
    assert result.validation_score == expected.validation_score
    assert result.beta_decay == expected.beta_decay
    for name, column in expected.history.items():  # of six digits: a loss near 2 has steps of 1e-5
        ours, theirs = torch.tensor(result.history[name]), torch.tensor(column)
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5, equal_nan=True, msg=name)


def test_members_after_20_steps_are_the_single_runs_with_their_batches_and_masks(data, tmp_path):
    spec, splits = data
    tasks, results = together(CELLS, spec, splits, ONE_EPOCH, tmp_path)
    for number, cell in enumerate(CELLS):
        expected = alone(cell, spec, splits, ONE_EPOCH, tmp_path / f"alone{number}")
        assert_same_run(tasks[number], results[number], *expected)
        assert results[number].diverged == (cell[3] == DIVERGES), "the others go on"


def test_members_of_one_seed_share_its_batches(data, tmp_path):
    spec, splits = data
    cells = [(42, family, 8, 1e-3) for family in ("normal", "uniform")]
    tasks, results = together(cells, spec, splits, ONE_EPOCH, tmp_path, bias="trained", layer_norm=True)
    for task, result, cell in zip(tasks, results, cells, strict=True):
        folder = tmp_path / f"alone-{cell[1]}"
        expected = alone(cell, spec, splits, ONE_EPOCH, folder, bias="trained", layer_norm=True)
        assert_same_run(task, result, *expected)


def test_convolutions_are_refused_since_they_would_be_slower(data, tmp_path):
    spec, splits = data
    make = partial(ResNet, out_dim=10, depth=8, shortcut=False)
    run = run_of(task_of(CELLS[0], spec, make), 42, tmp_path)
    with pytest.raises(ValueError, match=r"stem\.conv is a convolution: .* Type ensemble=false\."):
        Ensemble([run], splits, ONE_EPOCH, higher_is_better=True, folder=tmp_path)


def test_members_that_train_w_seed_are_the_single_runs(data, tmp_path, monkeypatch):
    """As mode=full_from_scaffold makes them."""
    spec, splits = data

    def thawed(cell: tuple, spec) -> Classification:
        task = frozen(cell, spec)
        for layer in task.net.modules():
            if hasattr(layer, "W_seed"):
                W_seed = layer.W_seed
                del layer.W_seed
                layer.W_seed = nn.Parameter(W_seed.clone())
        return task

    frozen = task_of
    monkeypatch.setitem(globals(), "task_of", thawed)
    (task,), (result,) = together(CELLS[:1], spec, splits, ONE_EPOCH, tmp_path)
    assert_same_run(task, result, *alone(CELLS[0], spec, splits, ONE_EPOCH, tmp_path / "alone"))


def test_patience_ends_a_member_and_not_the_others(data, tmp_path):
    spec, splits = data
    settings = TrainerSettings(epochs=3, accelerator="cpu", patience=1, min_delta=0.02)
    cells = [(42, "normal", 8, 1e-3), (42, "normal", 8, 1e-12)]  # the second learns nothing
    tasks, results = together(cells, spec, splits, settings, tmp_path)
    assert [result.epochs for result in results] == [3, 2]
    expected = alone(cells[1], spec, splits, settings, tmp_path / "alone")
    assert_same_run(tasks[1], results[1], *expected)


def test_a_checkpoint_holds_a_members_values_and_not_the_stack(data, tmp_path):
    spec, splits = data
    together([CELLS[0]] * 3, spec, splits, ONE_EPOCH, tmp_path)
    task, _ = alone(CELLS[0], spec, splits, ONE_EPOCH, tmp_path / "alone")
    sizes = [(tmp_path / name / "best.ckpt").stat().st_size for name in ("0", "alone")]
    assert sizes[0] < 1.1 * sizes[1]


def test_an_ensemble_of_one_batch_an_epoch_stops_when_asked_and_goes_on(tmp_path):
    digits = Digits(batch_size=2000)
    splits, settings = digits.read(), TrainerSettings(epochs=6, accelerator="cpu", checkpoint_every=0)

    def ensemble(name: str) -> Ensemble:
        runs = [
            run_of(task_of(cell, digits.spec), cell[0], tmp_path / name / str(cell[0])) for cell in CELLS[:2]
        ]
        folder = tmp_path / name / "ensemble"
        return Ensemble(runs, splits, settings, higher_is_better=True, folder=folder)

    whole, first, second = ensemble("whole"), ensemble("parts"), ensemble("parts")
    expected = whole.fit()
    first.members[0].end_epoch = asked_in_epoch(2, first, first.members[0].end_epoch)
    with pytest.raises(SystemExit) as stopped:
        first.fit()
    assert stopped.value.code == 75 and first.epoch == 3
    results = second.fit()
    assert [result.epochs for result in results] == [6, 6]
    for ours, theirs, result, other in zip(second.members, whole.members, results, expected, strict=True):
        assert result.validation_score == other.validation_score
        assert repr(result.history) == repr(other.history)
        ours, theirs = ours.task.state_dict(), theirs.task.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def asked_in_epoch(number: int, ensemble: Ensemble, end_epoch):
    """The end of an epoch, in which the process is asked to stop."""

    def end(score) -> None:
        end_epoch(score)
        if ensemble.epoch == number:
            os.kill(os.getpid(), signal.SIGTERM)

    return end


def test_nets_that_vmap_cannot_compute_are_refused_in_one_sentence(tmp_path):
    lorenz = Lorenz(batch_size=50, sequences=True)

    def cfc(seed: int) -> Regression:
        torch.manual_seed(seed)
        net = CfC(lorenz.spec.in_shape, 3, hidden=8, backbone=8, dropout=0.0)
        return Regression(net, lorenz.spec, partial(AdamW, lr=1e-3), partial(CosineAnnealingLR, T_max=3))

    runs = [run_of(cfc(seed), seed, tmp_path / str(seed)) for seed in (1, 2)]
    ensemble = Ensemble(runs, lorenz.read(), ONE_EPOCH, higher_is_better=False, folder=tmp_path / "ensemble")
    with pytest.raises(ValueError, match="cannot be computed for all members at once. Type ensemble=false"):
        ensemble.fit()


def test_nets_of_two_shapes_are_refused_by_the_name_of_the_parameter(data, tmp_path):
    spec, splits = data
    nets = (mlp, lambda in_shape: MLP(in_shape, 10, hidden=[128, 32], dropout=0.1))
    runs = [run_of(task_of(CELLS[0], spec, make), 42, tmp_path) for make in nets]
    with pytest.raises(
        ValueError, match=r"have one shape: .* is \(64, 8\) in the first and \(32, 8\) in number 2"
    ):
        Ensemble(runs, splits, ONE_EPOCH, higher_is_better=True, folder=tmp_path)


def test_a_task_with_hooks_of_its_own_is_refused(data, tmp_path):
    spec, splits = data
    single = replace(spec, out_dim=1)
    optimizer, schedule = partial(AdamW, lr=1e-3), partial(CosineAnnealingLR, T_max=3)
    task = Binary(mlp(spec.in_shape), single, optimizer, schedule, positive_weight=None)
    run = run_of(task, 42, tmp_path)
    with pytest.raises(ValueError, match="Binary has on_train_start of its own"):
        Ensemble([run], splits, ONE_EPOCH, higher_is_better=True, folder=tmp_path)
