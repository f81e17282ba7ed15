"""Sweeps on a real Slurm that is started here: sent, killed, stopped before the limit, cancelled."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lottalora.distributed.launch import free_port
from lottalora.sweeps.slurm.submit import seconds_of
from tests import commands

ROOT = Path(__file__).resolve().parents[2]
SLURM = ROOT / "scripts/slurm_local.sh"
EPOCHS = 18
LONG = ("model=mlp", "data=digits", "model.size=tiny", f"trainer.epochs={EPOCHS}", "trainer.accelerator=cpu")
SAME = ("score", "validation_score", "best_epoch", "beta", "arms", "digest")  # of a run that was stopped
LARGEST = 4  # tasks of one array
pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        os.geteuid() != 0 or not shutil.which("slurmctld") or not shutil.which("munged"),
        reason="needs root and Debian's packages slurm-wlm and munge",
    ),
]

needs_submitit = pytest.mark.skipif(
    not importlib.util.find_spec("submitit"), reason="needs the package hydra-submitit-launcher"
)


@pytest.fixture(scope="module", autouse=True)
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    os.environ |= {"SLURM_LOCAL_DIR": str(folder), "SLURM_CONF": str(folder / "slurm.conf")}
    os.environ |= {"SLURM_LOCAL_MAX_ARRAY": str(LARGEST), "SLURM_LOCAL_PORT": str(free_port())}
    path = os.environ["PATH"]
    os.environ |= {"OMP_NUM_THREADS": "1", "PATH": f"{folder / 'bin'}:{path}"}
    try:
        subprocess.run([SLURM, "start"], check=True, timeout=120)
        yield
    finally:
        subprocess.run([SLURM, "stop"], timeout=60)
        for name in ("SLURM_LOCAL_DIR", "SLURM_LOCAL_MAX_ARRAY", "SLURM_LOCAL_PORT", "SLURM_CONF"):
            del os.environ[name]
        os.environ["PATH"] = path


def lottalora(*words: str) -> subprocess.CompletedProcess:
    return commands.run("-m", "lottalora", *words, cwd=ROOT, timeout=60)


def undisturbed(*words: str) -> None:
    ran = commands.run("run.py", *words, cwd=ROOT, timeout=900)
    assert ran.returncode == 0, ran.stderr


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> dict[int, dict]:
    """The rows of two runs that no one stops, by their rank."""
    folder = tmp_path_factory.mktemp("alone")
    undisturbed("-m", *LONG, "rank=4,8", f"paths.results={folder}")
    return rows(folder)


def rows(folder: Path) -> dict[int, dict]:
    found = [json.loads(path.read_text()) for path in folder.glob("rows/*/*/*.json")]
    return {row["rank"]: row for row in found}


def wait_for(condition, seconds: float = 120, pause: float = 0.05) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(pause)


def wait_for_slurm(condition, seconds: float = 120) -> None:
    """Wait for what a command says, which takes processor time from the jobs that are waited for."""
    wait_for(condition, seconds, pause=0.5)


def queue() -> str:
    return subprocess.run(["squeue", "--noheader"], capture_output=True, text=True, check=True).stdout


def process_of(rank: int) -> int:
    """The run itself, below the batch script."""
    found = subprocess.run(
        ["pgrep", "--full", f"lottalora run .*rank={rank} .*test_slurm"], capture_output=True, text=True
    )
    return int(found.stdout.split()[0])


def test_stopped_and_killed_jobs_end_with_the_scores_of_uninterrupted_ones(alone, tmp_path):
    results = tmp_path / "test_slurm"
    words = [*LONG, "rank=4,8", "trainer.checkpoint_every=0", f"paths.results={results}"]
    sent = lottalora("submit", *words)
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.split("Job ")[1].split(".")[0]
    wait_for(lambda: len(list(results.glob("runs/*/resume.ckpt"))) == 2)

    # What Slurm does before a time limit: USR1 to the batch script.
    subprocess.run(["scancel", "--signal=USR1", "--batch", f"{job}_0"], check=True)
    os.kill(process_of(8), signal.SIGKILL)
    wait_for_slurm(lambda: f"{job}_1 " not in queue())
    wait_for_slurm(lambda: "1 to send" in lottalora("submit", *words).stdout)  # else it sends nothing
    wait_for_slurm(lambda: rows(results).keys() == {4, 8} and not queue())
    assert "Nothing was sent" in lottalora("submit", *words).stdout
    (log,) = results.glob("runs/*_r4_*/log.txt")
    assert "SIGUSR1 in epoch" in log.read_text()
    assert f"job {job}_0, start 1" in log.read_text()
    for rank in (4, 8):
        for key in SAME:
            assert rows(results)[rank][key] == alone[rank][key], (rank, key)


@pytest.mark.slow
def test_job_that_hits_its_time_limit_again_and_again_ends_with_the_score_of_an_uninterrupted_one(tmp_path):
    results, alone, quick = (tmp_path / name for name in ("test_slurm", "alone", "quick"))
    undisturbed(*LONG, "rank=4", f"paths.results={quick}")
    epochs = int(EPOCHS * 60 / rows(quick)[4]["seconds"])  # a minute of training, longer than a job may take
    words = [*LONG, "rank=4", f"trainer.epochs={epochs}"]
    sent = lottalora("submit", *words, f"paths.results={results}", "--time", "1", "--signal-lead", "20")
    assert sent.returncode == 0, sent.stderr
    wait_for_slurm(lambda: rows(results) and not queue(), seconds=900)
    (log,) = results.glob("runs/*/log.txt")
    assert "SIGUSR1 in epoch" in log.read_text() and "going on from" in log.read_text()
    undisturbed(*LONG, "rank=4", f"trainer.epochs={epochs}", f"paths.results={alone}")
    for key in SAME:
        assert rows(results)[4][key] == rows(alone)[4][key], key


@pytest.mark.parametrize(
    ("time", "seconds"),
    [("1", 60), ("1:30", 90), ("24:00:00", 86400), ("1-2", 93600), ("1-2:03:04", 93784), ("soon", None)],
)
def test_time_limit_is_read_as_slurm_reads_it(time, seconds):
    assert seconds_of(time) == seconds


def test_lead_as_long_as_the_time_limit_is_refused(tmp_path):
    words = [*LONG, "rank=1", f"paths.results={tmp_path}", "--time", "1", "--signal-lead", "60"]
    said = lottalora("submit", *words).stderr
    assert said == "--signal-lead must be from 1 to below the 60 seconds of --time 1, got 60.\n"


def test_cancelled_sweep_leaves_the_queue_and_does_not_come_back(tmp_path):
    words = [*LONG, "rank=1,2", f"paths.results={tmp_path}"]
    assert lottalora("submit", *words).returncode == 0
    wait_for(queue)
    cancelled = lottalora("cancel", *words)
    assert "Cancelled 2 jobs" in cancelled.stdout, cancelled.stderr
    wait_for_slurm(lambda: not queue())
    assert "No job of this sweep is in the queue" in lottalora("cancel", *words).stderr


def test_sweep_longer_than_an_array_may_be_is_sent_as_several(tmp_path):
    ranks = range(1, LARGEST + 3)
    words = [*LONG, f"rank={','.join(map(str, ranks))}", f"paths.results={tmp_path}"]
    sent = lottalora("submit", *words, "--array-limit", "2")
    assert "6 to send. Jobs " in sent.stdout, sent.stderr
    records = [json.loads(path.read_text()) for path in tmp_path.glob("slurm/*.json")]
    assert sorted(len(record["digests"]) for record in records) == [2, 4]
    assert len({digest for record in records for digest in record["digests"]}) == 6
    assert "Nothing was sent" in lottalora("submit", *words).stdout
    assert "Cancelled 6 jobs" in lottalora("cancel", *words).stdout
    wait_for_slurm(lambda: not queue())


def test_partition_that_does_not_exist_is_one_line(tmp_path):
    answer = lottalora("submit", *LONG, "rank=1", f"paths.results={tmp_path}", "--partition", "gpus")
    assert answer.returncode == 1
    assert answer.stderr == "Unknown partition 'gpus'. Known: local.\n"


def test_refusal_of_sbatch_is_one_line(tmp_path):
    answer = lottalora("submit", *LONG, "rank=1", f"paths.results={tmp_path}", "--gpus", "1")
    assert answer.returncode == 1
    assert answer.stderr.startswith("Slurm refused:") and answer.stderr.count("\n") == 1


def test_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    answer = lottalora("submit", *LONG, "rank=1", f"paths.results={tmp_path}")
    assert answer.returncode == 1
    assert answer.stderr.startswith("There is no Slurm here: sbatch is not in PATH.")


@pytest.mark.slow
def test_run_on_two_devices_is_one_job_that_is_stopped_and_goes_on(tmp_path):
    results, alone = tmp_path / "test_slurm", tmp_path / "alone"
    words = [*LONG, "trainer.epochs=6", "rank=4", "trainer.devices=2", "trainer.strategy=fsdp"]
    words.append("trainer.checkpoint_every=0")
    sent = lottalora("submit", *words, f"paths.results={results}")
    assert sent.returncode == 0, sent.stderr
    job = sent.stdout.split("Job ")[1].split(".")[0]
    wait_for(lambda: list(results.glob("runs/*/resume.ckpt")), seconds=400)
    subprocess.run(["scancel", "--signal=USR1", "--batch", f"{job}_0"], check=True)
    wait_for_slurm(lambda: rows(results) and not queue(), seconds=400)
    (log,) = results.glob("runs/*/log.txt")
    assert "SIGUSR1 in epoch" in log.read_text() and "going on from" in log.read_text()
    command = [sys.executable, "run.py", *words, f"paths.results={alone}"]
    subprocess.run(command, cwd=ROOT, check=True, timeout=400)
    for key in SAME:
        assert rows(results)[4][key] == rows(alone)[4][key], key


@pytest.mark.slow
def test_srun_starts_the_processes_of_one_run(tmp_path):
    words = [*LONG, "trainer.epochs=1", "rank=4", "trainer.devices=2", f"paths.results={tmp_path}"]
    command = ["srun", "--ntasks-per-node=2", "--overcommit", sys.executable, "run.py", *words]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=400)
    assert ran.returncode == 0, ran.stderr
    assert rows(tmp_path)[4]["device"].startswith("2 × cpu")


def sweep(*words: str) -> subprocess.CompletedProcess:
    return commands.run("run.py", "-m", "hydra/launcher=slurm_cpu", *words, cwd=ROOT, timeout=180)


@needs_submitit
def test_launcher_runs_the_cells_of_a_sweep_as_jobs_of_one_array(tmp_path):
    words = ["data=digits", "model.size=tiny", "trainer.epochs=1", f"paths.results={tmp_path}"]
    ran = sweep(*words, "rank=1,-1,2", "hydra.launcher.array_parallelism=1")
    assert ran.returncode == 1
    assert ran.stderr.splitlines()[-1].startswith("error: rank must be a whole number, 0 or more, got -1.")
    assert "Traceback" not in ran.stderr
    assert rows(tmp_path).keys() == {1, 2}
    (script,) = tmp_path.glob("slurm/*/*_submission.sh")
    assert "#SBATCH --array=0-2%1" in script.read_text()
    assert "#SBATCH --signal=USR2@90" in script.read_text()
    again = sweep(*words, "rank=1,2")
    assert (again.returncode, "2 runs, 2 done already" in again.stderr) == (0, True)


@needs_submitit
def test_job_of_the_launcher_that_is_told_of_its_end_goes_on_with_the_same_score(alone, tmp_path):
    results = tmp_path / "test_slurm"
    words = [*LONG, "rank=8", "trainer.checkpoint_every=0"]
    command = ["run.py", "-m", "hydra/launcher=slurm_cpu", *words, f"paths.results={results}"]
    sweeping = commands.start(*command, cwd=ROOT)
    wait_for(lambda: list(results.glob("runs/*/resume.ckpt")))
    (script,) = results.glob("slurm/*/*_submission.sh")
    subprocess.run(["scancel", "--signal=USR2", script.parent.name], check=True)
    _, said = sweeping.communicate(timeout=180)
    assert sweeping.returncode == 0, said
    logs = "".join(path.read_text() for path in results.glob("slurm/*/*.err"))
    assert "SIGUSR2 in epoch" in logs and "going on from" in logs
    for key in SAME:
        assert rows(results)[8][key] == alone[8][key], key


@needs_submitit
@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra.launcher.partition=gpus"], "error: Unknown partition 'gpus'. Known: local.\n"),
        (["hydra/launcher=slurm_gpu"], "Invalid generic resource (gres) specification"),
    ],
)
def test_what_slurm_cannot_give_to_the_launcher_is_one_line(tmp_path, words, said):
    ran = sweep("data=digits", "rank=1", f"paths.results={tmp_path}", *words)
    assert ran.returncode == 1
    assert said in ran.stderr.splitlines(keepends=True)[-1] and "Traceback" not in ran.stderr


@needs_submitit
def test_launcher_on_a_machine_without_slurm_is_told_so(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    ran = sweep("data=digits", "rank=1", f"paths.results={tmp_path}")
    assert ran.stderr.startswith("error: There is no Slurm here: sbatch is not in PATH.")
