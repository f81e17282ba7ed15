"""One run on two devices: real processes on the CPU that come to what one process comes to."""

import csv
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from hydra import compose
from hydra import initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from torch import Tensor

from lottalora.data.digits import Digits
from lottalora.distributed.shard import share_of
from lottalora.experiment import run
from lottalora.training.fit import fit as training  # noqa: F401  (before the forks, so that Lightning is imported once)
from tests import commands
from tests.suite.processes import codes_of
from tests.suite.processes import start_all

ROOT = Path(__file__).resolve().parents[2]
TINY = ("model=mlp", "data=digits", "model.size=tiny", "trainer.accelerator=cpu", "rank=4")
# 1,258 images: three batches of 419, of which one process gets 210 rows, and one of a single image.
UNEVEN = ("trainer.epochs=2", "data.batch_size=419", "trainer.clip=0.5", "optimizer.lr=0.01")


@pytest.fixture(scope="module", autouse=True)
def imported_before_the_forks():
    """What each of some twenty processes would import by itself."""
    import torch.distributed.fsdp  # noqa: F401


def run_with(words):
    """What run.py does with these words, inside a job of Hydra's."""
    with initialize_config_dir(str(ROOT / "conf"), version_base="1.3"):
        whole = compose("config", overrides=list(words), return_hydra_config=True)
        whole.hydra.job.config_name = "config"
        HydraConfig.instance().set_config(whole)
        run(compose("config", overrides=list(words)))


def train(folder, *words, devices=2, of_second=(), before=lambda rank: None):
    """Exit codes of the processes of a run; the second may be given other words."""

    def work():
        rank = int(os.environ["RANK"])
        before(rank)
        own = of_second if rank else ()
        run_with([*TINY, *words, f"trainer.devices={devices}", f"paths.results={folder}", *own])

    return codes_of(start_all(work, processes=devices))


def row(folder):
    (path,) = folder.glob("rows/*/*/*.json")
    return json.loads(path.read_text())


def weights(folder):
    (path,) = folder.glob("runs/*/best.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def losses(folder):
    (path,) = folder.glob("runs/*/csv/version_0/metrics.csv")
    entries = [entry for entry in csv.DictReader(path.open()) if entry["train/loss"]]
    return [float(entry[key]) for entry in entries for key in ("train/loss", "validation/loss")]


def failure(folder):
    (path,) = folder.glob("failures/*.json")
    return json.loads(path.read_text())


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """The same run in one process, and in two with each strategy; without dropout, which they draw apart."""
    words = (*UNEVEN, "model.net.dropout=0", "logger=csv")
    folders = {}
    for name, devices in (("one", 1), ("ddp", 2), ("fsdp", 2)):
        folders[name] = tmp_path_factory.mktemp(name)
        strategy = "ddp" if name == "one" else name
        codes = train(folders[name], *words, f"trainer.strategy={strategy}", devices=devices)
        assert codes == [0] * devices
    return folders


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_end_with_the_weights_of_one(runs, strategy):
    ours, theirs = weights(runs[strategy]), weights(runs["one"])
    assert ours.keys() == theirs.keys() and len(ours) > 5
    for name in ours:
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-4, atol=1e-6, msg=name)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_losses_and_scores_of_one(runs, strategy):
    assert len(losses(runs["one"])) == 4
    assert losses(runs[strategy]) == pytest.approx(losses(runs["one"]), rel=1e-5)
    for key in ("score", "validation_score", "best_epoch", "arms"):
        assert row(runs[strategy])[key] == row(runs["one"])[key], key
    assert row(runs[strategy])["beta"] == pytest.approx(row(runs["one"])["beta"], rel=1e-5)


@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_two_processes_have_the_history_of_one(runs, strategy):
    ours, theirs = row(runs[strategy])["history"], row(runs["one"])["history"]
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert [value for value in ours[name] if value is not None] == pytest.approx(
            [value for value in theirs[name] if value is not None], rel=1e-4
        )


def test_run_with_dora_comes_to_the_same_where_each_process_draws_its_rows(tmp_path):
    words = ("trainer.epochs=1", "model.net.dropout=0", "adapter.dora=true")
    assert train(tmp_path / "one", *words, devices=1) == [0]
    assert train(tmp_path / "two", *words, "trainer.strategy=fsdp") == [0, 0]
    assert row(tmp_path / "two")["score"] == row(tmp_path / "one")["score"]
    assert row(tmp_path / "two")["beta"] == pytest.approx(row(tmp_path / "one")["beta"], rel=1e-5)


def test_run_on_two_devices_that_diverges_ends_in_both_and_says_so(tmp_path):
    assert train(tmp_path, "optimizer.lr=1e10") == [76, 0]
    assert row(tmp_path)["diverged"] and row(tmp_path)["epochs"] == 1
    assert not list(tmp_path.glob("failures/*.json"))


def test_run_on_two_devices_is_the_same_run_and_says_on_what_it_ran(runs):
    assert row(runs["ddp"])["digest"] == row(runs["one"])["digest"]
    assert row(runs["ddp"])["device"] == f"2 × {row(runs['one'])['device']}"
    assert row(runs["fsdp"])["config"]["trainer"]["strategy"] == "fsdp"


def test_second_process_with_another_scaffold_is_refused(tmp_path):
    assert train(tmp_path, "trainer.epochs=1", of_second=["backbone_seed=7"]) == [1, 1]
    assert failure(tmp_path)["cause"].startswith("Process 2 of 2 has other frozen weights than the first.")
    assert not list(tmp_path.glob("rows/*/*/*.json"))


def test_second_process_with_other_trained_weights_is_refused(tmp_path):
    assert train(tmp_path, "trainer.epochs=1", of_second=["seed=7", "backbone_seed=42"]) == [1, 1]
    assert failure(tmp_path)["cause"].startswith("Process 2 of 2 has other trained weights than the first.")


def test_error_of_one_process_ends_both_and_is_the_recorded_cause(tmp_path, capfd):
    def break_second(rank):
        def fail(self):
            raise OSError("the disk of the second is gone")

        if rank:
            Digits.read = fail

    assert train(tmp_path, "trainer.epochs=1", before=break_second) == [1, 1]
    assert "the disk of the second is gone" in failure(tmp_path)["cause"]
    assert "(in process 2 of 2)" in failure(tmp_path)["cause"]
    assert "Connection" not in failure(tmp_path)["cause"]


def test_finished_run_on_two_devices_is_not_run_again(runs):
    before = row(runs["ddp"])
    assert train(runs["ddp"], *UNEVEN, "model.net.dropout=0") == [0, 0]
    assert row(runs["ddp"]) == before


def stop(folder, ranks, number=signal.SIGTERM):
    """What each process does first: these ranks send themselves a signal once there is a checkpoint."""

    def wait():
        while not list(folder.glob("runs/*/resume.ckpt")):
            time.sleep(0.002)
        os.kill(os.getpid(), number)

    return lambda rank: rank in ranks and threading.Thread(target=wait, daemon=True).start()


def test_run_on_two_devices_that_was_stopped_ends_with_the_same_bits(tmp_path):
    words = ("trainer.epochs=4", "trainer.checkpoint_every=0", "trainer.strategy=fsdp")
    assert train(tmp_path / "whole", *words) == [0, 0]
    assert train(tmp_path / "parts", *words, before=stop(tmp_path / "parts", {0}))[0] == 75
    assert not list(tmp_path.glob("parts/rows/*/*/*.json")), "the run had ended before the signal came"
    assert not list(tmp_path.glob("parts/failures/*.json"))
    assert train(tmp_path / "parts", *words) == [0, 0]
    for key in ("score", "validation_score", "best_epoch", "beta", "arms"):
        assert row(tmp_path / "parts")[key] == row(tmp_path / "whole")[key], key
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_reaches_both_processes_stops_the_run_and_one_device_goes_on_with_it(tmp_path, number):
    words = ("trainer.epochs=40", "trainer.checkpoint_every=0", "model.net.dropout=0")
    codes = train(tmp_path, *words, before=stop(tmp_path, {0, 1}, number))
    assert codes[0] == 75
    assert not list(tmp_path.glob("rows/*/*/*.json")), "the run had ended before the signal came"
    assert not list(tmp_path.glob("failures/*.json"))
    assert train(tmp_path, *words, devices=1) == [0]
    assert row(tmp_path)["epochs"] == 40


@pytest.mark.slow
def test_plain_command_starts_a_process_for_each_device(tmp_path):
    command = [sys.executable, str(ROOT / "run.py"), *TINY, "trainer.epochs=1", "trainer.devices=2"]
    ran = subprocess.run([*command, f"paths.results={tmp_path}"], capture_output=True, text=True, timeout=300)
    assert (ran.returncode, ran.stderr.count("accuracy")) == (0, 1), ran.stderr
    assert row(tmp_path)["device"].startswith("2 × cpu")
    again = commands.run(*command[1:], f"paths.results={tmp_path}")
    assert again.stderr.startswith("done: ")


@pytest.mark.slow
def test_torchrun_starts_the_processes_of_one_run(tmp_path):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    words = [*TINY, "trainer.epochs=1", "trainer.strategy=fsdp", f"paths.results={tmp_path}"]
    run_py = str(ROOT / "run.py")
    ran = subprocess.run([*launcher, run_py, *words, "trainer.devices=2"], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    assert row(tmp_path)["device"].startswith("2 × cpu")
    refused = subprocess.run([*launcher, run_py, *words], capture_output=True, text=True)
    assert "2 processes were started for this run, but trainer.devices=1." in refused.stderr


class Pair(NamedTuple):
    x: Tensor
    y: Tensor


def test_shares_of_a_batch_are_its_rows_each_once():
    batch = Pair(torch.arange(10).view(5, 2), torch.arange(5)), torch.arange(5)
    shares = [share_of(batch, process, 2) for process in range(2)]
    assert all(isinstance(share.rows[0], Pair) and share.counted for share in shares)
    assert [share.rows[1].tolist() for share in shares] == [[0, 2, 4], [1, 3]]
    assert shares[1].rows[0].x.tolist() == [[2, 3], [6, 7]]


def test_shares_are_contiguous_as_some_metrics_need_their_predictions_and_targets():
    share = share_of((torch.arange(12).view(4, 3), torch.arange(4)), 1, 2)
    assert all(part.is_contiguous() for part in share.rows)


def test_process_without_a_row_of_its_own_gets_one_that_does_not_count():
    shares = [share_of((torch.tensor([7]),), process, 2) for process in range(2)]
    assert [share.counted for share in shares] == [True, False]
    assert shares[1].rows[0].tolist() == [7]


@pytest.mark.parametrize(
    "batch",
    [
        (torch.eye(4).to_sparse(), torch.arange(4)),
        (torch.zeros(2, 9), torch.zeros(4)),
        (torch.zeros(4), 4),
        {"x": torch.zeros(4)},
    ],
    ids=["a sparse matrix", "unequal rows", "a number", "an unknown kind"],
)
def test_batch_that_is_no_list_of_examples_is_refused(batch):
    with pytest.raises(ValueError, match="is no list of examples that devices could share out"):
        share_of(batch, 0, 2)


def test_net_that_normalises_over_the_batch_is_refused(tmp_path):
    words = ("model=resnet", "data=cifar10", "data.sample=true", "model.size=plain20")
    assert train(tmp_path, *words) == [1, 1]
    assert "This net normalises over the batch" in failure(tmp_path)["cause"]
