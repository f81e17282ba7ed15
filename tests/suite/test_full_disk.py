"""A disk that is really full: the failure is one sentence, nothing is lost, a repeated command goes on."""

import os
import shutil
import subprocess

import pytest

from lottalora.cli.main import main
from lottalora.results import rows
from tests.rows.factory import make_baseline
from tests.rows.factory import make_row
from tests.suite.test_export import saved

SIZE = 500_000  # bytes
BIG = ("data=digits", "model.size=medium", "rank=1", "trainer.epochs=1", "trainer.accelerator=cpu")


@pytest.fixture
def disk(tmp_path):
    """A file system of half a megabyte, in which a dense MLP does not fit and adapters do."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("needs root and the right to mount")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_only_the_run_that_does_not_fit_fails_and_a_repeated_sweep_runs_it(command, disk):
    results = disk / "results"
    words = ["-m", *BIG, "mode=scaffold,baseline", f"paths.results={results}", "hydra.launcher.workers=1"]
    ran = command(*words)
    assert ran.returncode == 1
    last = ran.stderr.splitlines()[-1]
    assert last.startswith(f"error: Cannot write {results}/runs/")
    assert "No space left on device. Make room, or set paths.results=DIR to another disk, and repeat" in last
    assert "Traceback" not in ran.stderr
    found, problems = rows.read_all(results)
    assert ([row["mode"] for row in found], problems) == (["scaffold"], [])
    assert list(disk.rglob("*.tmp")) == []

    subprocess.run(["mount", "-o", f"remount,size={40 * SIZE}", str(disk)], check=True)
    again = command(*words)
    assert again.returncode == 0, again.stderr
    assert "2 runs, 1 done already" in again.stderr
    assert sorted(row["mode"] for row in rows.read_all(results)[0]) == ["baseline", "scaffold"]


def test_a_disk_that_is_full_already_is_refused_before_training(command, disk):
    (disk / "ballast").write_bytes(bytes(SIZE - 50_000))
    ran = command(*BIG, f"paths.results={disk / 'results'}")
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: Cannot write {disk}/results/rows/mlp_digits/medium: No space left")
    assert ran.stderr.count("\n") == 1
    sweep = command("-m", *BIG, f"paths.results={disk / 'results'}")
    assert sweep.returncode == 1
    assert "No space left on device" in sweep.stderr.splitlines()[-1] and "Traceback" not in sweep.stderr


def test_a_report_that_does_not_fit_leaves_whole_files_and_the_page_before(disk, tmp_path, capsys):
    for row in (make_row(), make_baseline()):
        rows.write(row, tmp_path / "results")
    (disk / "report.html").write_text("the page before")
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 50_000))
    assert main(["report", "--results", str(tmp_path / "results"), "--out", str(disk)]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"Cannot write the report to {disk}: No space left on device. Make room there, or")
    assert said.count("\n") == 1
    assert (disk / "report.html").read_text() == "the page before"
    assert list(disk.rglob("*.tmp")) == []


@pytest.mark.parametrize("target", ["state_dict", "onnx", "peft"])
def test_an_export_that_does_not_fit_is_one_sentence_and_leaves_nothing(disk, tmp_path, capsys, target):
    path = saved("mlp", tmp_path)
    (disk / "other").write_bytes(bytes(shutil.disk_usage(disk).free - 4_096))
    assert main(["export", str(path), str(disk / "out"), "--to", target]) == 1
    said = capsys.readouterr().err
    assert said.endswith(
        f"Cannot write {disk / 'out'}: No space left on device. "
        "Make room, or set OUT to another disk, and repeat the command to go on.\n"
    )
    assert "Traceback" not in said
    assert os.listdir(disk) == ["other"]
