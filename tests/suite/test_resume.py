"""A run that was stopped and repeated ends with the same numbers: real processes, real signals."""

import json
import os
import signal
import time
from pathlib import Path

import pytest
import torch

from tests import commands

ROOT = Path(__file__).resolve().parents[2]
WORDS = ("model=mlp", "data=digits", "model.size=tiny", "trainer.epochs=12", "trainer.accelerator=cpu")
EQUAL = ("score", "validation_score", "best_epoch", "beta", "arms", "digest", "history")


def start(folder: Path, *words: str) -> commands.Command:
    command = [ROOT / "run.py", *WORDS, f"paths.results={folder}"]
    return commands.start(*command, *words, env=os.environ | {"OMP_NUM_THREADS": "1"})


def finish(folder: Path, *words: str) -> str:
    process = start(folder, *words)
    _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def stop_with(number: signal.Signals, folder: Path, *words: str) -> int:
    """Send it as soon as the run has something to go on from."""
    process = start(folder, *words, "trainer.checkpoint_every=0")
    end = time.monotonic() + 100
    while not list(folder.glob("runs/*/resume.ckpt")) and process.poll() is None and time.monotonic() < end:
        time.sleep(0.005)
    process.send_signal(number)
    process.communicate(timeout=60)
    assert not list(folder.glob("rows/*/*/*.json")), "the run had ended before the signal came"
    return process.returncode


def row(folder: Path) -> dict:
    (path,) = folder.glob("rows/*/*/*.json")
    return json.loads(path.read_text())


def weights(folder: Path) -> dict:
    (path,) = folder.glob("runs/*/best.ckpt")
    return torch.load(path, weights_only=True)["state_dict"]


def assert_equal_to_the_bit(folder: Path, other: Path) -> None:
    for key in EQUAL:
        assert row(folder)[key] == row(other)[key], key
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("uninterrupted")
    finish(folder)
    return folder


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGKILL, -9)]
)
def test_stopped_run_ends_with_the_same_bits_as_an_uninterrupted_one(number, code, uninterrupted, tmp_path):
    assert stop_with(number, tmp_path) == code
    assert "going on from" in finish(tmp_path)
    assert_equal_to_the_bit(tmp_path, uninterrupted)
    assert not list(tmp_path.glob("runs/*/resume.ckpt")), "what is needed to go on goes when the row is there"


def test_truncated_checkpoint_is_named_and_the_run_starts_anew(uninterrupted, tmp_path):
    stop_with(signal.SIGKILL, tmp_path)
    (checkpoint,) = tmp_path.glob("runs/*/resume.ckpt")
    checkpoint.write_bytes(checkpoint.read_bytes()[:1000])
    said = finish(tmp_path)
    assert f"{checkpoint} or best.ckpt beside it cannot be read" in said
    assert "starts anew" in said
    assert_equal_to_the_bit(tmp_path, uninterrupted)


def test_short_run_writes_nothing_to_go_on_from_by_default(composed):
    assert composed("model=mlp", "data=digits").trainer.checkpoint_every == 60
