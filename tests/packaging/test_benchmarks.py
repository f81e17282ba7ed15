"""The benchmark scripts run; what they measure depends on the machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests import commands

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def test_benchmark_of_the_loop_trains_both_arms_alike():
    """Its bare loop is a second implementation of the training path, so the scores must be the same."""
    said = said_by("bench_mnist_loop.py", "--sample", "--epochs", "2", "--repeats", "1")
    scores = re.findall(r"best validation ([\d.]+)", said)
    assert len(scores) == 2 and scores[0] == scores[1] and float(scores[0]) > 0.5


def test_benchmark_of_cfc_times_every_arm():
    said = said_by("bench_cfc.py", "--hidden", "16", "--repeats", "1")
    assert re.findall(r"^(\w+, \S+) ", said, re.MULTILINE) == [
        *("ncps, full", "suite, full"),
        *("suite, r=1", "suite, r=8", "suite, r=32"),
        *("ncps, r=1", "ncps, r=8", "ncps, r=32"),
    ]


def test_control_of_physionet_finds_the_falling_blood_pressure_of_the_made_records():
    said = said_by("control_physionet2012.py", "--sample")
    (score,) = re.findall(r"^split 0: AUROC ([\d.]+) on made records, not PhysioNet's$", said, re.MULTILINE)
    assert float(score) > 0.8


def test_control_of_physionet_without_a_folder_is_refused():
    ran = commands.run(ROOT / "scripts" / "control_physionet2012.py")
    assert ran.returncode == 2
    assert "name the folder of set-a/, such as DATA/physionet2012; or type --sample" in ran.stderr


def test_benchmark_of_a_convolutional_step_times_every_arm():
    ratios = re.findall(
        r"full training = ([\d.]+)", said_by("bench_conv_step.py", "--turns", "1", "--depth", "8")
    )
    assert len(ratios) == 4 and float(ratios[0]) == 1


def said_by(script: str, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
