"""The course of a run, and what becomes of one that diverges."""

import json
import math
import os
from functools import partial

import pytest
import torch
from pytorch_lightning import Callback

from lottalora.data.digits import Digits
from lottalora.models.mlp import MLP
from lottalora.results import rows
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.tasks.classification import Classification
from lottalora.training.fit import TrainerSettings
from lottalora.training.fit import fit
from lottalora.training.history import due
from lottalora.training.history import thinned
from tests import commands
from tests.suite.conftest import ROOT

WORDS = ("model=mlp", "data=digits", "model.size=tiny", "trainer.epochs=2", "trainer.accelerator=cpu")


class Losses(Callback):
    """Every step's own loss and count, and the step after which weights become NaN, if one is given."""

    def __init__(self, *, broken_after=None):
        self.losses, self.counts, self.rates = [], [], []
        self.broken_after = broken_after

    def on_train_batch_start(self, trainer, *_):
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer, task, outputs, *_):
        self.losses.append(outputs["loss"].item() * trainer.accumulate_grad_batches)
        self.counts.append(outputs["count"])
        if len(self.losses) == self.broken_after:
            with torch.no_grad():
                next(task.net.parameters()).fill_(math.nan)


def train(folder, *, epochs=2, accumulate=1, broken_after=None):
    torch.manual_seed(3)
    net = MLP((1, 8, 8), 10, hidden=[16], dropout=0.0)
    wrap(net, Scaffold(rank=2, seed=1), keep=["head"])
    schedule = partial(torch.optim.lr_scheduler.StepLR, step_size=1, gamma=0.5)
    task = Classification(net, Digits.spec, partial(torch.optim.AdamW, lr=0.01), schedule)
    watch = Losses(broken_after=broken_after)
    plan = TrainerSettings(epochs=epochs, accumulate=accumulate, accelerator="cpu")
    splits = Digits(batch_size=20).read()  # 63 batches an epoch, the last of 18 images
    trained = fit(task, splits, plan, seed=0, higher_is_better=True, folder=folder, callbacks=[watch])
    return trained, watch


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("epochs", [1, 2])
def test_points_hold_the_mean_loss_since_the_one_before(epochs, accumulate, tmp_path):
    trained, watch = train(tmp_path, epochs=epochs, accumulate=accumulate)
    history, batches = trained.history, len(watch.losses) // epochs
    assert len(history["epoch"]) == 20
    ends = [round(epoch * batches) for epoch in history["epoch"]]
    for start, end, loss in zip([0, *ends], ends, history["loss"], strict=False):
        parts = list(zip(watch.losses, watch.counts, strict=True))[start:end]
        assert loss == pytest.approx(sum(x * n for x, n in parts) / sum(n for _, n in parts), rel=1e-5)
    assert history["learning_rate"] == [watch.rates[end - 1] for end in ends]


def test_points_of_an_epoch_are_evenly_spaced_and_one_where_there_are_epochs_enough():
    assert due(1000, 1) == {50 * point - 1 for point in range(1, 20)}
    assert due(1000, 20) == due(1000, 300) == set()
    assert due(1000, 19) == {499}
    assert max(due(7, 1)) < 7  # fewer batches than points: one after each


@pytest.mark.parametrize("points", [1, 199, 200, 201, 218, 243, 400, 777])
def test_long_histories_are_thinned_evenly_and_keep_their_last_point(points):
    kept = thinned(list(range(points)))
    assert len(kept) == min(points, 200)
    assert kept[-1] == points - 1
    gaps = {later - earlier for earlier, later in zip(kept, kept[1:], strict=False)}
    assert max(gaps, default=1) - min(gaps, default=1) <= 1


def test_history_of_400_epochs_fits_a_row():
    column = [0.123456789 / (1 + point) for point in range(200)]
    assert len(json.dumps({name: column for name in range(10)}, indent=1)) < rows.ROOM


@pytest.mark.parametrize(("epochs", "after", "epoch"), [(1, 20, 21 / 63), (2, 100, 2.0)])
def test_training_stops_at_the_first_point_after_a_weight_is_not_finite(epochs, after, epoch, tmp_path):
    trained, watch = train(tmp_path, epochs=epochs, broken_after=after)
    assert trained.diverged
    assert trained.history["epoch"][-1] * 63 - after <= 7
    assert len(watch.losses) - after <= 7
    assert (trained.validation_score, trained.best_epoch) == (None, None)
    assert trained.epochs == epochs


def run(folder, *words):
    return commands.run(*words, cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, timeout=120)


@pytest.fixture(scope="module")
def diverged(tmp_path_factory):
    folder = tmp_path_factory.mktemp("diverged")
    return folder, run(folder, str(ROOT / "run.py"), *WORDS, "optimizer.lr=1e10")


def test_run_that_diverges_leaves_a_row_that_says_so_and_its_own_exit_code(diverged):
    folder, outcome = diverged
    assert outcome.returncode == 76
    last = outcome.stderr.splitlines()[-1]
    assert last.startswith("diverged in epoch 1: its loss, score or β is not finite: ")
    (row,), problems = rows.read_all(folder / "results")
    assert problems == []
    assert (row["diverged"], row["score"], row["epochs"], row["arms"]) == (True, None, 1, {})
    assert not list(folder.glob("results/failures/*")) and not list(folder.glob("results/runs/*/resume.ckpt"))


def test_diverged_run_counts_as_done_and_force_repeats_it(diverged):
    folder, _ = diverged
    again = run(folder, str(ROOT / "run.py"), *WORDS, "optimizer.lr=1e10")
    assert again.returncode == 0
    assert again.stderr.startswith("done: results/rows/mlp_digits/tiny/")
    assert ".json: diverged (force=true to run again)" in again.stderr
    assert run(folder, str(ROOT / "run.py"), *WORDS, "optimizer.lr=1e10", "force=true").returncode == 76


def test_sweep_names_what_diverged_at_its_end_and_goes_on_without_it(diverged):
    folder, _ = diverged
    words = (*WORDS, "optimizer.lr=1e10,1e11,0.001")
    for time in (1, 2):
        outcome = run(folder, str(ROOT / "run.py"), "-m", *words)
        assert outcome.returncode == 0
        *named, total = outcome.stderr.splitlines()[-3:]
        assert [line.partition("results")[0] for line in named] == ["diverged: "] * 2, time
        assert total == "2 of 3 runs diverged; force=true runs them again"
    status = json.loads(run(folder, "-m", "lottalora", "status", *words, "--json").stdout)
    assert (status["done"], len(status["diverged"]), status["failed"]) == (3, 2, [])
    of_folder = json.loads(run(folder, "-m", "lottalora", "status", "--json").stdout)
    assert (of_folder["done"], len(of_folder["diverged"])) == (3, 2)
    planned = json.loads(run(folder, "-m", "lottalora", "plan", *words, "--json").stdout)
    assert (planned["done"], planned["diverged"]) == (3, 2)
