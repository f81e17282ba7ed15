"""Loggers of real runs: what they write, where, and what they never write."""

import csv
import json
import os
import re
import sys
from pathlib import Path

import pytest

from lottalora.tracking.bars import duration
from lottalora.tracking.local import TensorBoard
from lottalora.tracking.logger import Logger
from lottalora.tracking.logger import Watch
from lottalora.tracking.logger import summary_of
from lottalora.tracking.weights_and_biases import WeightsAndBiases
from lottalora.tracking.weights_and_biases import tags_of
from tests import commands
from tests.rows.factory import make_row
from tests.tracking.offline import read_offline

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"


def run(home, *words, **environment):
    for name in os.environ:
        if not name.startswith("WANDB") and name != "NETRC":
            environment.setdefault(name, os.environ[name])
    environment |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    command = ["run.py", "data=digits", "model.size=tiny", "trainer.epochs=2"]
    command += [f"paths.results={home / 'results'}", *words]
    return commands.run(*command, cwd=ROOT, env=environment)


def the_row(home):
    (path,) = (home / "results" / "rows").glob("*/*/*.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    home = tmp_path_factory.mktemp("offline")
    ran = run(home, "logger=wandb", WANDB_MODE="offline", WANDB_API_KEY=KEY)
    assert ran.returncode == 0, ran.stderr
    (folder,) = (home / "results" / "runs").glob("*/wandb/offline-run-*")
    return home, the_row(home), read_offline(folder), ran


def test_wandb_run_is_identified_by_its_row(offline):
    _, row, found, _ = offline
    assert found["run"].run_id == row["digest"]
    assert found["run"].job_type == "scaffold"
    assert found["run"].run_group == ""
    assert set(found["run"].tags) == {"mlp", "digits", row["recipe"]}


def test_wandb_run_holds_config_and_final_figures_of_its_row(offline):
    _, row, found, _ = offline
    assert found["config"]["optimizer"] == row["config"]["optimizer"]
    assert found["summary"]["test/score"] == row["score"]
    assert found["summary"]["test/scaffold_removed"] == row["arms"]["scaffold_removed"]
    assert found["summary"]["test/loss"] > 0
    assert found["exit"] == 0


def test_wandb_run_has_one_entry_an_epoch_with_losses_score_and_beta_of_each_layer(offline):
    _, row, found, _ = offline
    assert [entry["epoch"] for entry in found["history"]] == [0, 1]
    best = found["history"][row["best_epoch"]]
    assert best["validation/score"] == row["validation_score"]
    assert {layer: best[f"beta/{layer}"] for layer in row["beta"]} == row["beta"]
    assert sum(best["beta.values"]) == len(row["beta"])
    assert 0 < found["history"][1]["train/loss"] < found["history"][0]["train/loss"]


def test_wandb_run_holds_figures_of_the_machine(offline):
    assert offline[2]["stats"] > 0


def test_wandb_key_is_in_nothing_that_is_written_or_printed(offline):
    home, _, _, ran = offline
    files = [path for path in home.rglob("*") if path.is_file()]
    assert len(files) > 5
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    assert KEY not in ran.stdout + ran.stderr


def test_choice_of_logger_leaves_the_digest_and_the_score_alone(offline, tmp_path):
    ran = run(tmp_path, "logger=csv")
    assert ran.returncode == 0, ran.stderr
    ours, other = the_row(tmp_path), offline[1]
    assert (ours["digest"], ours["score"], ours["beta"]) == (other["digest"], other["score"], other["beta"])
    (file,) = tmp_path.glob("results/runs/*/csv/version_0/metrics.csv")
    entries = list(csv.DictReader(file.open()))
    assert [entry["step"] for entry in entries[:2]] == ["0", "1"]
    assert float(entries[ours["best_epoch"]]["validation/score"]) == ours["validation_score"]


def test_tensorboard_file_holds_score_of_each_epoch_and_histograms_of_beta(tmp_path):
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    ran = run(tmp_path, "logger=tensorboard")
    assert ran.returncode == 0, ran.stderr
    (folder,) = tmp_path.glob("results/runs/*/tensorboard")
    events = accumulator.EventAccumulator(str(folder), size_guidance={"histograms": 0}).Reload()
    row = the_row(tmp_path)
    scores = [event.value for event in events.Scalars("validation/score")]
    assert scores[row["best_epoch"]] == pytest.approx(row["validation_score"])
    assert [event.step for event in events.Histograms("beta")] == [0, 1]


def test_wandb_online_without_a_key_is_refused_in_one_line_before_training(tmp_path):
    ran = run(tmp_path, "logger=wandb")
    assert ran.returncode == 1
    assert re.fullmatch(
        r"error: logger=wandb is online but .* `wandb login`.* logger.mode=offline .*\n", ran.stderr
    )
    assert list((tmp_path / "results").rglob("*.ckpt")) == []


def test_wandb_server_that_does_not_answer_makes_the_run_offline(tmp_path):
    ran = run(tmp_path, "logger=wandb", WANDB_API_KEY=KEY, WANDB_BASE_URL="http://127.0.0.1:9")
    assert ran.returncode == 0, ran.stderr
    assert "does not answer" in ran.stderr
    assert list(tmp_path.glob("results/runs/*/wandb/offline-run-*"))


def test_unknown_mode_of_wandb_is_refused(tmp_path):
    ran = run(tmp_path, "logger=wandb", "logger.mode=ofline")
    assert ran.stderr.startswith(
        "error: logger.mode must be online or offline, got 'ofline'. It is WANDB_MODE"
    )


def test_tags_are_cut_where_wandb_would_refuse_them():
    assert tags_of({"model": "mlp", "data": "d" * 70, "recipe": ""}) == ["mlp", "d" * 64]


def test_final_figures_say_of_a_diverged_run_that_it_diverged():
    assert summary_of(make_row(score=None))["diverged"] is True
    assert "diverged" not in summary_of(make_row())


def test_logger_that_fails_costs_its_figures_and_not_the_run(caplog):
    class Broken(Logger):
        def begin(self, about):
            pass

        def epoch(self, epoch, metrics, beta):
            raise OSError("disk full")

        def end(self, summary):
            raise AssertionError("called after it failed")

    watch = Watch(Broken())
    watch.epoch(0, {}, {})
    watch.end()
    assert "the logger has stopped (OSError: disk full)" in caplog.text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0 s"), (59.4, "59 s"), (90, "2 min"), (3600, "1.0 h"), (9000, "2.5 h"), (4.5e6, "1,250 h")],
)
def test_duration_is_said_in_the_unit_that_fits(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("name", "kind"), [("tensorboard", TensorBoard), ("wandb", WeightsAndBiases)])
def test_a_logger_without_its_package_is_refused_when_it_is_made(name, kind, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=f"logger={name} needs the package {name}. Type: pip install {name}"):
        kind()


def test_a_logger_is_made_before_data_are_read(tmp_path):
    words = ("data=mnist", f"paths.data={tmp_path}/none", "logger=wandb", "logger.mode=sometimes")
    assert "logger.mode must be online or offline" in run(tmp_path, *words).stderr


def test_the_logged_training_loss_is_that_of_examples_however_many_batches_make_a_step(tmp_path):
    ran = run(tmp_path, "logger=csv", "trainer.accumulate=2")
    assert ran.returncode == 0, ran.stderr
    (path,) = tmp_path.glob("results/runs/*/csv/version_0/metrics.csv")
    logged = float(next(csv.DictReader(path.open()))["train/loss"])
    history = the_row(tmp_path)["history"]
    first = [loss for epoch, loss in zip(history["epoch"], history["loss"], strict=True) if epoch <= 1]
    assert logged == pytest.approx(sum(first) / len(first), rel=0.05)
