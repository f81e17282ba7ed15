"""The benchmark scripts run; what they measure depends on the machine."""

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.timing import compare_gradients
from tests import commands

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def test_benchmark_of_the_loop_trains_both_arms_alike():
    """Its bare loop is a second implementation of the training path, so the scores must be the same."""
    said = ran("-c", "from benchmarks import loop; loop.report(2, repeats=1, sample=True)").stdout
    scores = re.findall(r"best validation ([\d.]+)", said)
    assert len(scores) == 2 and scores[0] == scores[1] and float(scores[0]) > 0.5


def test_benchmark_writes_a_line_for_each_arm(tmp_path):
    words = ["--only", "mlp", "512 to 256, 128 rows", "--seconds", "0.1", "--out", str(tmp_path)]
    said = ran("-m", "benchmarks", "layers", "steps", "generator", "--values", "10000", *words).stdout
    with open(tmp_path / "speed.csv") as file:
        lines = list(csv.DictReader(file))
    arms = {(line["group"], line["arm"]) for line in lines}
    kinds = {"full training", "scaffold", "reference", "PEFT"}
    assert {(group, arm) for group in ("layer", "training step") for arm in kinds} <= arms
    ours = [line for line in lines if line["arm"] == "scaffold"]
    assert all(0.5 < float(line["limit"]) < 1 and line["forms"] for line in ours)
    assert all(float(line["to_peft"]) > 0 for line in ours)
    page = (tmp_path / "speed.md").read_text()
    assert "|  | full, ms | scaffold | reference | PEFT | ÷ PEFT |" in page
    assert "| MLP, MNIST | " in page
    assert (tmp_path / "speed.svg").stat().st_size > 1000
    assert "torch.randn" in said and "normal" in said


def test_benchmark_of_a_part_writes_nothing_without_a_folder():
    pages = [ROOT / "docs" / f"speed.{ending}" for ending in ("md", "csv", "svg")]
    before = [page.read_bytes() for page in pages]
    said = ran("-m", "benchmarks", "--only", "512 to 256, 128 rows", "--seconds", "0.1").stdout
    assert "512 to 256, 128 rows, scaffold: " in said and "|  | full, ms | scaffold |" in said
    assert "torch.randn" not in said  # of the generator, which has no such name
    assert [page.read_bytes() for page in pages] == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("layers --only mlp", "'mlp': nothing of that name is in layers on device cpu"),
        ("loop --only mlp", "'mlp': nothing of that name is in loop on device cpu"),
        ("layers steps --only mlp", "--only names nothing of layers: leave out the one or the other"),
        (
            "steps --only 'Table 9, 3M'",
            "'Table 9, 3M': nothing of that name is in steps on device cpu",
        ),
        ("--only layers", "unknown name 'layers'. Known: '"),
        ("--only 'gpt 3'", "unknown name 'gpt 3'. Known: 'gpt 3M', 'gpt 30M', "),
        ("step", "unknown group 'step'. Known: 'steps', 'layers', 'loop', 'generator'"),
    ],
)
def test_benchmark_refuses_words_that_select_nothing(words, said):
    asked = commands.run("-m", "benchmarks", *shlex.split(words), "--device", "cpu", cwd=ROOT)
    assert (asked.returncode, asked.stdout) == (2, "")
    assert f"python -m benchmarks: error: {said}" in asked.stderr


def test_benchmark_refuses_gradients_that_differ_or_are_zero():
    true = {"A": torch.ones(3)}
    compare_gradients("x", true, {"A": torch.ones(3)})
    for wrong in (torch.tensor([1.0, 1.0, 1.1]), torch.zeros(3)):
        with pytest.raises(SystemExit, match="gradient of A is zero or differs by .* Nothing was timed"):
            compare_gradients("x", true, {"A": wrong})
    with pytest.raises(SystemExit, match="is zero"):
        compare_gradients("x", {"A": torch.zeros(3)}, {"A": torch.zeros(3)})


def test_control_of_physionet_finds_the_falling_blood_pressure_of_the_made_records():
    said = said_by("control_physionet2012.py", "--sample")
    (score,) = re.findall(r"^split 0: AUROC ([\d.]+) on made records, not PhysioNet's$", said, re.MULTILINE)
    assert float(score) > 0.8


def test_control_of_mnist_tells_few_digits_from_one_projection_and_most_from_eight():
    said = said_by("control_mnist.py", "--sample", "--rank", "1", "8", "--seed", "42")
    one, eight = re.findall(
        r"accuracy ([\d.]+) %, greatest .* on built-in digits, not MNIST$", said, re.MULTILINE
    )
    assert 20 < float(one) < 60 and float(eight) > 85


@pytest.mark.parametrize(
    ("script", "folder"),
    [
        ("control_physionet2012.py", "set-a/, such as DATA/physionet2012"),
        ("control_mnist.py", "MNIST/raw/, such as DATA/mnist"),
    ],
)
def test_control_without_a_folder_is_refused(script, folder):
    ran = commands.run(ROOT / "scripts" / script)
    assert ran.returncode == 2
    assert f"name the folder of {folder}; or type --sample" in ran.stderr


def test_nearest_neighbour_by_random_tokens_finds_the_colours_of_the_made_flowers():
    words = ("model=vit_random", "model.size=tiny", "data.image_size=32", "data.sample=true")
    said = said_by("control_flowers102.py", *words)
    (share,) = re.findall(r"^nearest neighbour: ([\d.]+) % of 102 of made images", said, re.MULTILINE)
    assert float(share) > 30  # of 102 classes


def ran(*words: str) -> subprocess.CompletedProcess:
    paths = os.pathsep.join((str(ROOT / "src"), str(ROOT)))
    done = subprocess.run(
        [sys.executable, *words],
        env=os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done


def said_by(script: str, *words: str) -> str:
    ran = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / script), *words],
        env=os.environ | {"PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout
