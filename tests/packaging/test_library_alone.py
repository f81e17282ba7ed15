"""The library without the suite: a process that finds torch, numpy, safetensors and what these need only."""

import importlib.metadata
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
ALONE = """
import importlib.machinery, sys

class Alone(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, *others):
        return None if name.partition(".")[0] in {blocked!r} else super().find_spec(name, *others)

sys.meta_path = [Alone if finder is importlib.machinery.PathFinder else finder for finder in sys.meta_path]
sys.path.insert(0, {src!r})
"""
FROM_WRAP_TO_MERGE = """
import torch
from torch import nn
from lottalora.scaffold import Scaffold, load, merge, register_architecture, save, verify, wrap

def build(width):
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 2))

register_architecture("two layers", build)
model = build(16)
wrap(model, Scaffold(rank=2, seed=1), keep=["2"])
x, optimizer = torch.randn(4, 8), torch.optim.AdamW(model.parameters(), lr=0.1)
model(x).square().sum().backward()
optimizer.step()
save(model, "two.safetensors", architecture=("two layers", {"width": 16}))
verify(model)
read_back = load("two.safetensors")
merge(read_back)
assert torch.allclose(read_back(x), model(x), atol=1e-5)
"""
OF_THE_SUITE = """
import torch
from lottalora.artifacts.runs import register_models
from lottalora.scaffold import ARCHITECTURES, Scaffold, save, wrap

register_models()
arguments = {"in_shape": [1, 8, 8], "out_dim": 10, "hidden": [24, 16], "dropout": 0.1}
net = ARCHITECTURES["mlp"].build(**arguments)
wrap(net, Scaffold(rank=2, seed=1), keep=["head"])
save(net, "mlp.safetensors", architecture=("mlp", arguments), probe=(torch.randn(3, 1, 8, 8),))

from lottalora.cli.main import main
for words in ("inspect", "verify", "export --to state_dict"):
    command, *options = words.split()
    assert main([command, "mlp.safetensors", *(["out", *options] if options else [])]) == 0, words
sys.exit(main(["card", "mlp.safetensors"]))  # written with a package of the suite
"""


@cache
def blocked():
    """The modules of every installed distribution that the library does not need."""
    needed, left = set(), ["lottalora", "torch", "numpy", "safetensors"]
    while left:
        name = re.sub(r"[-_.]+", "-", left.pop()).lower()
        if name in needed:
            continue
        needed.add(name)
        needs = [] if name == "lottalora" else importlib.metadata.requires(name) or []
        asked = [Requirement(need) for need in needs]
        left += [each.name for each in asked if not each.marker or each.marker.evaluate({"extra": ""})]
    return {
        module
        for module, owners in importlib.metadata.packages_distributions().items()
        if not {re.sub(r"[-_.]+", "-", owner).lower() for owner in owners} & needed
    }


def alone(code, folder):
    code = ALONE.format(blocked=blocked(), src=str(ROOT / "src")) + code
    kept = os.environ | {"LOTTALORA_DATA": str(folder)}
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=kept, capture_output=True, text=True)


def test_what_is_blocked_is_the_suite():
    assert {"hydra", "omegaconf", "yaml", "pytorch_lightning", "rich", "scipy"} <= blocked()
    assert {"torch", "numpy", "safetensors", "lottalora"} & blocked() == set()


def test_a_model_is_wrapped_trained_saved_loaded_and_merged(tmp_path):
    ran = alone(FROM_WRAP_TO_MERGE, tmp_path)
    assert (ran.returncode, ran.stderr) == (0, "")


def test_artifact_of_the_suite_is_inspected_verified_and_exported(tmp_path):
    ran = alone(OF_THE_SUITE, tmp_path)
    said = "error: The package huggingface_hub is missing. Type: pip install 'lottalora[suite]'\n"
    assert (ran.returncode, ran.stderr) == (1, said)
    assert "outputs: equal to the bit" in ran.stdout


@pytest.mark.parametrize(
    "words", ["run data=digits", "run --help", "size rank=1", "report", "completion bash"]
)
def test_command_of_the_suite_says_what_to_install_in_one_line(tmp_path, words):
    ran = alone(f"from lottalora.cli.main import main; sys.exit(main({words.split()!r}))", tmp_path)
    assert (ran.returncode, ran.stdout) == (1, "")
    line = r"error: The package \w+ is missing\. Type: pip install 'lottalora\[suite\]'\n"
    assert re.fullmatch(line, ran.stderr), ran.stderr


def test_help_needs_no_package(tmp_path):
    ran = alone("from lottalora.cli.main import main; main(['--help'])", tmp_path)
    assert ran.returncode == 0 and "verify" in ran.stdout, ran.stderr
