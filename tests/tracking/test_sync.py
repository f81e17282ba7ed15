"""`lottalora sync`: rows and offline runs reach W&B once, whichever way they came about."""

import os
from pathlib import Path

import pytest

from lottalora.results import rows
from lottalora.results.claims import claimed
from lottalora.tracking.sync import digest_of
from lottalora.tracking.sync import unsent
from tests import commands
from tests.rows.factory import make_row
from tests.tracking.offline import read_offline
from tests.tracking.server import server

ROOT = Path(__file__).parents[2]
KEY = "0123456789abcdef0123456789abcdef01234567"
NOWHERE = "http://127.0.0.1:9"


def python(home, *words, **environment):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("WANDB")}
    kept |= {"HOME": str(home), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT / "src")}
    return commands.run(*words, cwd=ROOT, env=kept | environment, timeout=120)


def sync(home, *words, **environment):
    return python(home, "-m", "lottalora", "sync", "--results", str(home / "results"), *words, **environment)


def offline_folders(home, digest="*"):
    return sorted(home.glob(f"results/runs/*/wandb/offline-run-*-{digest}"))


def row_in(home, **values):
    row = make_row(**values)
    rows.write(row, home / "results")
    return row


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run with an offline W&B run, one without a logger, and both after `sync --offline`."""
    home = tmp_path_factory.mktemp("sync")
    short = ["run.py", "data=digits", "model.size=tiny", f"paths.results={home / 'results'}"]
    for words in (["trainer.epochs=1", "logger=wandb", "logger.mode=offline"], ["trainer.epochs=2"]):
        ran = python(home, *short, *words)
        assert ran.returncode == 0, ran.stderr
    return home, sync(home, "--offline")


def test_row_without_a_wandb_run_gets_one_that_is_equal_to_it(trained):
    home, ran = trained
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.startswith("2 rows, 1 of them without a W&B run: written offline.")
    (row,) = [row for row in rows.read_all(home / "results")[0] if row["epochs"] == 2]
    (folder,) = offline_folders(home, row["digest"])
    found = read_offline(folder)
    assert (found["run"].run_id, found["run"].job_type) == (row["digest"], "scaffold")
    assert found["config"]["optimizer"] == row["config"]["optimizer"]
    assert found["config"]["row"]["finished"] == row["finished"]
    assert found["summary"]["test/score"] == row["score"]
    assert found["summary"]["test/scaffold_removed"] == row["arms"]["scaffold_removed"]
    assert [entry["epoch"] for entry in found["history"]] == [row["best_epoch"]]
    assert {layer: found["history"][0][f"beta/{layer}"] for layer in row["beta"]} == row["beta"]
    assert (found["stats"], found["exit"]) == (0, 0)


def test_second_call_writes_nothing(trained):
    home, _ = trained
    before = offline_folders(home)
    again = sync(home, "--offline")
    assert again.stdout.startswith("2 rows, 0 of them without a W&B run")
    assert offline_folders(home) == before
    assert len(before) == 2


def test_row_that_was_measured_anew_is_written_anew(tmp_path):
    row_in(tmp_path, score=0.5, digest="0" * 12)
    sync(tmp_path, "--offline")
    row_in(tmp_path, score=0.6, digest="0" * 12)
    assert "1 of them without a W&B run" in sync(tmp_path, "--offline").stdout
    assert {read_offline(each)["summary"]["test/score"] for each in offline_folders(tmp_path)} == {0.5, 0.6}


def test_row_that_diverged_is_written_too(tmp_path):
    row = row_in(tmp_path, score=float("nan"), validation_score=None, best_epoch=None)
    assert sync(tmp_path, WANDB_MODE="offline").returncode == 0
    (folder,) = offline_folders(tmp_path, row["digest"])
    assert read_offline(folder)["history"] == []
    assert "0 of them without a W&B run" in sync(tmp_path, "--offline").stdout


def test_wandb_leaves_nothing_in_the_home_folder(trained):
    home, _ = trained
    assert sorted(path.name for path in home.rglob("wandb") if "runs" not in path.parts) == []


def test_all_is_sent_once_and_with_the_key_in_no_file_and_no_output(trained):
    home, _ = trained
    wanted = {row["digest"]: row for row in rows.read_all(home / "results")[0]}
    with server() as (address, runs, sent):
        first = sync(home, WANDB_API_KEY=KEY, WANDB_BASE_URL=address)
        assert first.returncode == 0, first.stderr
        assert "2 offline runs: 2 sent, 0 not sent." in first.stdout
        assert runs.keys() == wanted.keys()
        for digest, row in wanted.items():
            assert runs[digest]["wandb-summary.json"][-1]["test/score"] == row["score"]
            assert runs[digest]["state"] == "finished"
            assert len(runs[digest]["wandb-history.jsonl"]) in (1, row["epochs"])
        uploads = len(sent)
        again = sync(home, WANDB_API_KEY=KEY, WANDB_BASE_URL=address)
        assert again.stdout.endswith("0 offline runs: 0 sent, 0 not sent.\n")
        assert len(sent) == uploads
    printed = first.stdout + first.stderr + again.stdout + again.stderr
    assert KEY not in printed
    files = [path for path in home.rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


def test_rows_that_the_server_knows_are_not_sent_from_another_copy(tmp_path):
    row, other = row_in(tmp_path), row_in(tmp_path, seed=1, digest="0" * 12)
    with server() as (address, runs, _):
        runs[row["digest"]] = {"state": "finished", "displayName": "sent by somebody else"}
        ran = sync(tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=address)
        assert ran.returncode == 0, ran.stderr
        assert "1 of them without a W&B run" in ran.stdout
        assert "wandb-summary.json" not in runs[row["digest"]]
        assert runs[other["digest"]]["state"] == "finished"


def test_what_a_killed_run_left_before_its_first_record_is_not_sent(tmp_path):
    head = b":W&B\xe1\xbe\x00"
    for name, content in (("killed", head), ("begun", head + bytes(20))):
        folder = tmp_path / "runs" / name / "wandb" / f"offline-run-20260101_000000-{name}"
        folder.mkdir(parents=True)
        (folder / f"run-{name}.wandb").write_bytes(content)
    assert [digest_of(folder) for folder in unsent(tmp_path)] == ["begun"]


def test_results_that_cannot_be_written_are_named_with_what_to_type(tmp_path):
    row_in(tmp_path)
    (tmp_path / "results" / "runs").write_text("no folder")
    ran = sync(tmp_path, "--offline")
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (1, "", 1), ran.stderr
    assert ran.stderr.startswith(f"Cannot write {tmp_path / 'results' / 'runs'}/")
    assert "Set --results DIR to a writable folder." in ran.stderr


def test_run_under_way_is_left_alone(tmp_path):
    row = row_in(tmp_path)
    with claimed(row["digest"], tmp_path / "results"):
        ran = sync(tmp_path, "--offline")
    assert "1 runs are still under way" in ran.stdout
    assert offline_folders(tmp_path) == []


def test_machine_without_a_key_is_told_so_and_nothing_is_written(tmp_path):
    row_in(tmp_path)
    ran = sync(tmp_path)
    assert ran.returncode == 1
    assert ran.stderr.startswith("There is no W&B key for https://api.wandb.ai on this machine: type `wandb")
    assert ran.stderr.count("\n") == 1
    assert offline_folders(tmp_path) == []


def test_server_that_does_not_answer_is_one_line(tmp_path):
    (tmp_path / "results").mkdir()
    ran = sync(tmp_path, WANDB_API_KEY=KEY, WANDB_BASE_URL=NOWHERE)
    assert ran.returncode == 1
    assert ran.stderr == f"{NOWHERE} does not answer. Nothing was sent; call this again later.\n"
