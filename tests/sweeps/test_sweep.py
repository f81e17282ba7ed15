"""The real command, -m, with runs of one short epoch."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lottalora.results import rows
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
SHORT = ("data=digits", "model.size=tiny", "trainer.epochs=1")


def start(folder, *words):
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return commands.start(ROOT / "run.py", "-m", *SHORT, *words, cwd=folder, env=environment)


def ended(process):
    _, errors = process.communicate(timeout=300)
    return process.returncode, errors


def asked(folder, *words, code=0):
    answer = commands.run("-m", "lottalora", *words, "--json", cwd=folder, timeout=120)
    assert answer.returncode == code, answer.stderr
    return json.loads(answer.stdout)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    """Two processes with one sweep at one time; half of its runs cannot be."""
    folder = tmp_path_factory.mktemp("sweep")
    words = ("mode=baseline,scaffold", "rank=1,-1", "seed=1,2")
    processes = [start(folder, *words), start(folder, *words)]
    return folder, words, [ended(process) for process in processes]


def test_two_processes_with_one_sweep_run_no_cell_twice(swept):
    folder, _, _ = swept
    found, problems = rows.read_all(folder / "results")
    assert problems == []
    assert sorted((row["mode"], row["seed"]) for row in found) == [
        (mode, seed) for mode in ("baseline", "scaffold") for seed in (1, 2)
    ]
    logs = [(folder / "results" / "runs" / rows.run_name(row) / "log.txt").read_text() for row in found]
    assert [len(re.findall(r"^accuracy 0\.", log, re.MULTILINE)) for log in logs] == [1] * 4


def test_failing_runs_stop_no_other_and_are_named_at_once_and_at_the_end(swept):
    _, _, outcomes = swept
    for code, errors in outcomes:
        assert code == 1
        assert errors.count("rank must be a whole number, 0 or more, got -1.") >= 2 * 2
        assert errors.splitlines()[-1].startswith("error: ")
        assert "Traceback" not in errors


def test_a_repeated_sweep_runs_only_what_failed(swept):
    folder, words, _ = swept
    before = {path: path.stat().st_mtime_ns for path in folder.glob("results/rows/*/*/*.json")}
    code, errors = ended(start(folder, *words))
    assert code == 1
    assert re.search(r"^\d+ runs.*, 4 done already \(force=true to run again\)$", errors, re.MULTILINE)
    assert "done: " not in errors
    assert {path: path.stat().st_mtime_ns for path in folder.glob("results/rows/*/*/*.json")} == before


def test_plan_and_status_count_what_is_done_and_what_failed(swept):
    folder, words, _ = swept
    planned = asked(folder, "plan", *SHORT, "mode=baseline,scaffold", "rank=1,2", "seed=1,2")
    assert (planned["runs"], planned["done"], planned["waiting"]) == (6, 4, 2)
    assert planned["hours_from"] == {"rows of the same model, size, data and epochs": 2}
    assert 0 < planned["hours_of_work"] < 0.1
    assert planned["memory_mb"] > 100
    assert planned["disk_mb"] > 0
    assert planned["energy_kwh"] >= 0
    found = asked(folder, "status", *SHORT, *words, code=1)  # as of `plan`: runs that cannot be
    assert found["cannot_run"] == len(found["failed"])
    assert found["done"] == 4
    assert found["waiting"] == 0
    assert [each["cause"] for each in found["failed"]] == [
        "rank must be a whole number, 0 or more, got -1."
    ] * len(found["failed"])
    assert asked(folder, "status")["done"] == 4


def test_fail_fast_stops_the_sweep_and_a_failure_is_kept_with_its_log(tmp_path, monkeypatch):
    words = ("data=mnist", f"paths.data={tmp_path}/none", "seed=range(20)", "fail_fast=true")
    for name in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    code, errors = ended(start(tmp_path, *words, "hydra.launcher.workers=1"))
    assert code == 1
    assert "fail_fast=true: the other runs are stopped" in errors
    found = asked(tmp_path, "status")
    assert len(found["failed"]) == 1
    assert "MNIST is not at" in found["failed"][0]["cause"]
    assert (tmp_path / found["failed"][0]["log"]).read_text()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_sweep_that_is_asked_to_end_says_how_to_go_on_and_its_runs_keep_their_state(tmp_path, number):
    words = ("seed=1,2", "trainer.epochs=500", "trainer.checkpoint_every=0", "hydra.launcher.workers=1")
    process = start(tmp_path, *words)
    end = time.monotonic() + 100
    while not list(tmp_path.glob("results/runs/*/resume.ckpt")) and time.monotonic() < end:
        time.sleep(0.01)
    process.send_signal(number)
    code, errors = ended(process)
    assert (code, errors.splitlines()[-1]) == (75, "stopped: 0 of 2 runs ended. Repeat the command to go on.")
    (log,) = tmp_path.glob("results/runs/*/log.txt")
    assert "SIGTERM in epoch" in log.read_text()


def test_a_terminal_shows_a_line_for_each_run_above_one_bar_and_gets_its_cursor_back(tmp_path):
    ours, theirs = pty.openpty()
    command = [ROOT / "run.py", "-m", *SHORT, "rank=1,-1"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "100"}
    process = commands.start(*command, cwd=tmp_path, env=environment, stderr=theirs)
    os.close(theirs)
    shown = b""
    with contextlib.suppress(OSError):  # the terminal is gone when its last process is
        while piece := os.read(ours, 65536):
            shown += piece
    assert process.wait(timeout=120) == 1
    text = shown.decode()
    assert "/2 mlp_digits-tiny-scaffold_r1_normal_0.1_s42-" in text
    assert "/2 failed: data=digits" in text
    assert "1 of 2 runs, " in text and "2 of 2 runs, 0 s left" in text
    assert text.rindex("\x1b[?25h") > text.rindex("\x1b[?25l")


@pytest.mark.slow
def test_a_sweep_killed_at_random_moments_and_repeated_leaves_each_row_once(tmp_path):
    command = [
        sys.executable,
        "scripts/kill_sweep.py",
        "--results",
        str(tmp_path),
        "--runs",
        "12",
        "--kills",
        "3",
    ]
    answer = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert answer.returncode == 0, answer.stdout
    assert "12 rows of 12, 0 damaged, 0 finished twice" in answer.stdout


def test_plan_takes_the_measured_epoch_of_a_recipe_where_there_are_no_rows(tmp_path):
    words = ["model=resnet", "data=cifar10", "mode=baseline", "trainer.epochs=5", "seed=1,2"]
    planned = asked(tmp_path, "plan", *words)
    assert planned["hours_from"] == {"cost model, scaled to the recipe's measured epoch": 2}
    assert planned["hours_of_work"] == pytest.approx(2 * 5 * 138 / 3600, rel=0.01)


def test_plan_takes_no_time_from_runs_in_another_precision(tmp_path):
    words = ["model=resnet", "data=cifar10", "mode=baseline", "seed=1"]
    kept = Path("results/rows/resnet_cifar10/plain20/baseline_s42-46fc2318f08f.json")
    (tmp_path / kept).parent.mkdir(parents=True)
    (tmp_path / kept).write_text((ROOT / kept).read_text())
    assert asked(tmp_path, "plan", *words)["hours_from"] == {
        "cost model, scaled to the recipe's measured epoch": 1
    }
    same = asked(tmp_path, "plan", *words, "trainer.precision=bf16-mixed")
    assert same["hours_from"] == {"rows of the same model, size, data and epochs": 1}


def test_plan_scales_with_the_pixels_and_the_tokens_asked_for(tmp_path):
    def hours(*words: str) -> float:
        return asked(tmp_path, "plan", *words)["hours_of_work"]

    images = ("model=vit_random", "data=flowers102", "model.size=tiny", "mode=baseline")
    assert hours(*images, "data.image_size=112") == pytest.approx(hours(*images) / 4, rel=0.02)
    text = ("model=gpt", "data=wikitext103", "mode=baseline")
    whole = 43_700 / 3600  # of 34,429 steps of 32 blocks of 128 tokens
    assert hours(*text, "data.tokens=1280000") == pytest.approx(whole * 10_000 / (34_429 * 32), rel=0.02)


def test_plan_says_that_it_does_not_know_how_long_a_text_of_ones_own_takes(tmp_path):
    words = ("model=gpt", "data=text", f"data.root={tmp_path}", "data.name=mine", "mode=baseline")
    assert asked(tmp_path, "plan", *words)["hours_from"] == {"unknown": 1}
    counted = asked(tmp_path, "plan", *words, "data.tokens=128000", "data.batch_size=1000")
    assert counted["hours_from"] == {"cost model": 1}
    flops = 6 * 2_368_320 * 128_000  # 6 N a token, and one step
    assert counted["hours_of_work"] * 3600 == pytest.approx(0.5 + 2e-3 + flops / 5e10, rel=0.01)
