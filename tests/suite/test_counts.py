"""Known answers: the parameter counts of the paper's Table 14."""

import json

import pytest
import torch

from lottalora.build import build
from lottalora.data.mnist import MNIST

FULL = {"tiny": 109_386, "small": 242_762, "medium": 575_050, "large": 1_501_770}
TRAINABLE = {
    ("tiny", 1): 1_756,
    ("tiny", 2): 2_860,
    ("tiny", 4): 5_068,
    ("tiny", 8): 9_484,
    ("small", 1): 2_269,
    ("small", 8): 13_581,
    ("medium", 1): 3_294,
    ("medium", 2): 5_934,
    ("medium", 4): 11_214,
    ("medium", 8): 21_774,
    ("medium", 16): 42_894,
    ("medium", 32): 85_134,
    ("large", 1): 5_343,
}


@pytest.mark.parametrize(("size", "rank"), TRAINABLE)
def test_a_scaffold_trains_as_many_parameters_as_table_14_says(composed, size, rank):
    with torch.device("meta"):
        net, account = build(composed("data=mnist", f"model.size={size}", f"rank={rank}"), MNIST.spec)
    assert account.trainable == TRAINABLE[size, rank] == sum(p.numel() for p in net.parameters())
    assert account.full == FULL[size]


@pytest.mark.parametrize("size", FULL)
def test_a_baseline_trains_every_parameter(composed, size):
    with torch.device("meta"):
        _, account = build(composed("data=mnist", "mode=baseline", f"model.size={size}"), MNIST.spec)
    assert account.trainable == account.full == FULL[size]


def test_the_dry_run_as_json_is_one_line_with_the_four_counts(command):
    finished = command("model.size=medium", "rank=32", "dry_run=json")
    (line,) = finished.stdout.splitlines()
    assert json.loads(line) == {
        "trainable": 85_134,
        "internal_trainable": 84_484,  # without the head's 650
        "full": 575_050,
        "full_plus_adapters": 659_534,
    }
    assert finished.stderr == ""
