"""The benchmark scripts run; what they measure depends on the machine."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_benchmark_of_the_loop_trains_both_arms_alike():
    """Its bare loop is a second implementation of the training path, so the scores must be the same."""
    script = str(ROOT / "scripts/bench_mnist_loop.py")
    ran = subprocess.run(
        [sys.executable, script, "--sample", "--epochs", "2", "--repeats", "1"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    scores = re.findall(r"best validation ([\d.]+)", ran.stdout)
    assert len(scores) == 2 and scores[0] == scores[1] and float(scores[0]) > 0.5


def test_benchmark_of_a_convolutional_step_times_every_arm():
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts/bench_conv_step.py"), "--turns", "1", "--depth", "8"],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    ratios = re.findall(r"full training = ([\d.]+)", ran.stdout)
    assert len(ratios) == 4 and float(ratios[0]) == 1
