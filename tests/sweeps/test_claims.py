"""Claims and records of failures, with real processes."""

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest
from hydra import initialize_config_dir

from lottalora import CONF
from lottalora.results import claims
from lottalora.results import failures
from lottalora.results import rows
from lottalora.sweeps.cells import cells_of_overrides
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
DIGEST = "0123456789ab"
fork = multiprocessing.get_context("fork")


def hold(results, seconds, told):
    with claims.claimed(DIGEST, results) as other:
        told.send(other)
        time.sleep(seconds)


def started(results, seconds=60.0):
    """A process that has tried to claim, and what it was told."""
    receive, send = fork.Pipe(duplex=False)
    process = fork.Process(target=hold, args=(results, seconds, send))
    process.start()
    return process, receive.recv()


def test_a_claimed_cell_names_its_process_to_others_until_it_is_killed(tmp_path):
    process, other = started(tmp_path)
    assert other is None
    assert claims.holder(DIGEST, tmp_path)["pid"] == process.pid
    with claims.claimed(DIGEST, tmp_path) as other:
        assert other["pid"] == process.pid
        assert f"process {process.pid} on " in claims.holder_text(other)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert claims.holder(DIGEST, tmp_path) is None
    with claims.claimed(DIGEST, tmp_path) as other:
        assert other is None


def test_looking_at_a_claim_neither_takes_nor_frees_it(tmp_path):
    process, _ = started(tmp_path)
    assert list(claims.all_held(tmp_path)) == [DIGEST]
    assert list(claims.all_held(tmp_path)) == [DIGEST]
    second, other = started(tmp_path, 0.0)
    assert other["pid"] == process.pid
    for each in (process, second):
        each.kill()
        each.join()


def test_a_run_of_a_cell_that_another_process_runs_ends_with_a_code_of_its_own(tmp_path):
    words = ("data=digits", "model.size=tiny")
    with initialize_config_dir(str(CONF), version_base="1.3"):
        (cell,), _, _ = cells_of_overrides(words)
    with claims.claimed(cell.digest, tmp_path / "results"):
        done = commands.run(ROOT / "run.py", *words, cwd=tmp_path, timeout=120)
    assert done.returncode == 77
    assert f"skipped: {rows.run_name(cell.identity)} is run by process {os.getpid()}" in done.stderr


def test_a_claim_leaves_no_file_behind(tmp_path):
    with claims.claimed(DIGEST, tmp_path):
        assert claims.path_of(DIGEST, tmp_path).exists()
    assert not claims.path_of(DIGEST, tmp_path).exists()


def count_alone(results, times):
    """Add 1 to a number in a file, unprotected but for the claim, as often as the claim is got."""
    number = results / "number"
    while times:
        with claims.claimed(DIGEST, results) as other:
            if other is None:
                before = int(number.read_text())
                time.sleep(0.0005)
                number.write_text(str(before + 1))
                times -= 1


def test_eight_processes_never_hold_one_claim_together(tmp_path):
    (tmp_path / "number").write_text("0")
    processes = [fork.Process(target=count_alone, args=(tmp_path, 25)) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert (tmp_path / "number").read_text() == "200"


def test_a_failure_leaves_its_cause_and_a_success_removes_it(tmp_path):
    inside = {"overrides": ["rank=1"], "log_file": tmp_path / "log.txt"}
    with pytest.raises(ZeroDivisionError), failures.recorded(DIGEST, tmp_path, **inside):
        _ = 1 / 0
    record = failures.read_all(tmp_path)[DIGEST]
    assert record["cause"] == "ZeroDivisionError: division by zero"
    assert record["overrides"] == ["rank=1"]
    assert "1 / 0" in record["traceback"]
    with failures.recorded(DIGEST, tmp_path, **inside):
        pass
    assert failures.read_all(tmp_path) == {}
