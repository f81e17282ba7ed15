"""The real command from end to end, on handwritten digits."""

import itertools
import json
import os
import subprocess
import sys

import pytest

from lottalora.results import rows
from tests import commands
from tests.suite.conftest import ROOT

SMALL = ("data=digits", "model.size=tiny", "trainer.epochs=3")
ENVIRONMENT = os.environ | {"OMP_NUM_THREADS": "1"}


def run(folder, *words):
    return commands.run(ROOT / "run.py", *words, cwd=folder, env=ENVIRONMENT)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder in which each mode ran once, as jobs of one multirun, and its rows by mode."""
    folder = tmp_path_factory.mktemp("modes")
    outcome = run(folder, "-m", *SMALL, "mode=baseline,scaffold,zero,head")
    assert outcome.returncode == 0, outcome.stderr
    found, problems = rows.read_all(folder / "results")
    assert problems == []
    return folder, {row["mode"]: row for row in found}


def test_each_mode_leaves_one_row(finished):
    _, row = finished
    assert sorted(row) == ["baseline", "head", "scaffold", "zero"]


def test_a_run_leaves_nothing_in_the_working_directory_but_results(finished):
    folder, _ = finished
    assert os.listdir(folder) == ["results"]
    assert sorted(os.listdir(folder / "results")) == ["claims", "rows", "runs"]


def test_a_baseline_and_a_scaffold_learn_and_the_baseline_is_better(finished):
    _, row = finished
    assert row["baseline"]["score"] > 0.85
    assert 0.4 < row["scaffold"]["score"] < row["baseline"]["score"]


def test_every_mode_is_scored_on_the_same_data(finished):
    _, row = finished
    assert len({each["data_fingerprint"] for each in row.values()}) == 1


def test_only_a_scaffold_is_scored_again_without_it(finished):
    _, row = finished
    assert [mode for mode in sorted(row) if row[mode]["arms"]] == ["scaffold"]
    removed = row["scaffold"]["arms"]["scaffold_removed"]
    assert 0 <= removed <= 1
    assert removed != row["scaffold"]["score"]


def test_a_row_holds_beta_of_every_wrapped_layer_and_it_was_trained(finished):
    _, row = finished
    assert sorted(row["scaffold"]["beta"]) == ["body.1", "body.4"]
    assert all(value != 1 for value in row["scaffold"]["beta"].values())
    assert row["baseline"]["beta"] == {}


def test_a_row_counts_what_its_mode_trains(finished):
    _, row = finished
    trainable = {mode: row[mode]["counts"]["trainable"] for mode in row}
    assert trainable["baseline"] == row["baseline"]["counts"]["full"] == 64 * 128 + 128 + 128 * 64 + 64 + 650
    assert trainable["scaffold"] == trainable["zero"] == 8 * (64 + 128) + 8 * (128 + 64) + 2 + 650
    assert trainable["head"] == 2 + 650


def test_a_row_names_no_place_of_the_machine(finished):
    folder, row = finished
    places = [str(folder), os.path.expanduser("~"), os.environ.get("LOTTALORA_DATA")]
    text = json.dumps(list(row.values()))
    assert "paths" not in row["scaffold"]["config"]
    assert [place for place in places if place and place in text] == []


def test_a_shortened_recipe_is_marked(finished):
    _, row = finished
    assert row["scaffold"]["recipe"] == "modified"
    assert row["scaffold"]["changed"] == {"epochs": 3, "schedule.T_max": 3}


def test_a_row_says_where_it_comes_from(finished):
    _, row = finished
    versions = row["scaffold"]["versions"]
    assert {"python", "torch", "pytorch-lightning", "lottalora"} <= versions.keys() | {"lottalora"}
    assert row["scaffold"]["seconds"] > 0
    assert row["scaffold"]["peak_memory_mb"] > 50
    assert row["scaffold"]["config"]["trainer"]["epochs"] == 3


def test_a_repeated_command_finds_its_rows_and_runs_nothing(finished):
    folder, _ = finished
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")}
    outcome = run(folder, "-m", *SMALL, "mode=baseline,scaffold")
    assert outcome.returncode == 0, outcome.stderr
    counted, following = outcome.stderr.splitlines()
    assert counted == "2 runs, 2 done already (force=true to run again)"
    assert following == "next: python -m lottalora report"
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*.json")} == before


def test_a_repeated_single_run_says_its_score_and_what_to_type_next(finished):
    folder, row = finished
    outcome = run(folder, *SMALL, "mode=scaffold")
    assert outcome.stderr.startswith("done: results/rows/mlp_digits/tiny/scaffold_")
    said = (
        f"accuracy {row['scaffold']['score']:.4f} (force=true to run again). Next: python -m lottalora report"
    )
    assert outcome.stderr.rstrip().endswith(said)


def test_a_done_run_without_the_files_asked_for_is_an_error_that_names_force(finished):
    folder, _ = finished
    outcome = run(folder, *SMALL, "mode=scaffold", "artifact=true", "keep_weights=true")
    assert (outcome.returncode, outcome.stdout) == (1, "")
    assert outcome.stderr.startswith(
        "error: The row exists without its artifact and its weights: results/rows/"
    )
    assert outcome.stderr.endswith(".json. Type force=true to run it again.\n")
    outcome = run(folder, *SMALL, "mode=baseline", "keep_weights=true")
    assert outcome.stderr.startswith("error: The row exists without its weights: results/rows/")


def test_a_sweep_counts_the_done_runs_without_the_files_asked_for(finished):
    folder, _ = finished
    outcome = run(folder, "-m", *SMALL, "mode=baseline,scaffold", "keep_weights=true")
    assert outcome.returncode == 0, outcome.stderr
    said = "2 done without the weights asked for; force=true runs all again"
    assert outcome.stderr.splitlines()[1:-1] == [said]


def test_a_done_run_whose_artifact_and_weights_are_there_is_done(tmp_path):
    words = (*SMALL, "trainer.epochs=1", "artifact=true", "keep_weights=true")
    assert run(tmp_path, *words).returncode == 0
    for more in ([], ["-m"]):
        outcome = run(tmp_path, *more, *words)
        assert outcome.returncode == 0, outcome.stderr
        assert "without" not in outcome.stderr


def test_a_forced_run_gives_the_same_score_and_beta_to_the_last_bit(finished):
    folder, row = finished
    command = [sys.executable, str(ROOT / "run.py"), *SMALL, "mode=scaffold", "force=true"]
    outcome = subprocess.run(command, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    (again,) = [each for each in rows.read_all(folder / "results")[0] if each["mode"] == "scaffold"]
    assert again["finished"] >= row["scaffold"]["finished"]
    assert (again["score"], again["beta"]) == (row["scaffold"]["score"], row["scaffold"]["beta"])


def test_a_dry_run_imports_neither_lightning_nor_torchvision_and_reads_no_data(tmp_path):
    program = (
        "import runpy, sys; sys.argv = ['run.py', 'data=mnist', 'paths.data=nowhere', 'dry_run=true'];"
        f"runpy.run_path({str(ROOT / 'run.py')!r}, run_name='__main__');"
        "sys.exit([m for m in ('pytorch_lightning', 'torchvision', 'sklearn') if m in sys.modules] or 0)"
    )
    outcome = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == 0, outcome.stderr
    assert "21,774" in outcome.stdout
    assert "recipe         paper" in outcome.stdout
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("words", [[str(ROOT / "run.py"), "--help"], ["-m", "lottalora", "--help"]])
def test_help_is_printed_without_importing_torch_or_hydra(tmp_path, words):
    command = [sys.executable, "-X", "importtime", *words]
    outcome = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert outcome.returncode == 0
    imported = {line.split("|")[-1].strip() for line in outcome.stderr.splitlines()}
    assert "argparse" in imported or "yaml" in imported
    assert not imported & {"torch", "hydra", "omegaconf"}


def test_a_row_holds_the_course_of_its_run(finished):
    _, row_of = finished
    history = row_of["scaffold"]["history"]
    assert len(history["epoch"]) == 21  # three epochs of seven points
    assert history["epoch"][6::7] == [1, 2, 3]
    scores = history["validation_score"]
    assert [place for place, score in enumerate(scores) if score is not None] == [6, 13, 20]
    best = scores[6::7][row_of["scaffold"]["best_epoch"]]
    assert best == pytest.approx(row_of["scaffold"]["validation_score"], rel=1e-5)
    assert history["loss"][-1] < 0.9 * history["loss"][0]
    assert history["step"] == sorted(set(history["step"]))
    for lower, upper in itertools.pairwise(("beta_min", "beta_q25", "beta_median", "beta_q75", "beta_max")):
        assert all(low <= high for low, high in zip(history[lower], history[upper], strict=True))
    assert not any(key.startswith("beta") for key in row_of["baseline"]["history"])


def test_a_row_is_plain_json(finished):
    folder, _ = finished
    paths = sorted((folder / "results" / "rows").rglob("*.json"))
    assert len(paths) == 4
    assert all(json.loads(path.read_text())["schema"] == 3 for path in paths)
