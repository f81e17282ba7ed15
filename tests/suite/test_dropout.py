"""Dropout by drawn places: the same law as PyTorch's, and nothing out of training."""

import pytest
import torch

from lottalora.models.dropout import FEW
from lottalora.models.dropout import Dropout
from lottalora.models.dropout import dropout


@pytest.mark.parametrize("probability", [0.05, 0.1, 0.5, 0.9])
def test_share_of_zeros_and_mean_are_those_of_dropout(probability):
    torch.manual_seed(0)
    y = dropout(torch.ones(1000, 1000), probability)
    assert (y == 0).float().mean().item() == pytest.approx(probability, abs=2e-3)
    assert y.mean().item() == pytest.approx(1, abs=2e-2)
    assert set(y.unique().tolist()) == {0.0, torch.tensor(1 / (1 - probability)).item()}


def test_zeros_fall_independently_on_neighbours_and_anew_in_each_call():
    torch.manual_seed(0)
    first, second = (dropout(torch.ones(1000, 1000), 0.5) == 0 for _ in range(2))
    both = (first[:, 1:] & first[:, :-1]).float().mean().item()
    assert both == pytest.approx(0.25, abs=2e-3)
    assert (first & second).float().mean().item() == pytest.approx(0.25, abs=2e-3)


def test_a_small_tensor_takes_the_same_path_as_pytorch():
    x = torch.ones(FEW - 1)
    torch.manual_seed(0)
    ours = dropout(x, 0.3)
    torch.manual_seed(0)
    assert torch.equal(ours, torch.nn.functional.dropout(x, 0.3))


def test_out_of_training_and_at_probability_0_nothing_changes():
    x = torch.randn(100, 100)
    assert torch.equal(Dropout(0.5).eval()(x), x)
    assert torch.equal(dropout(x, 0.0), x)


def test_the_gradient_passes_where_the_value_did():
    x = torch.randn(100, 100, requires_grad=True)
    y = dropout(x, 0.5)
    y.sum().backward()
    assert torch.equal(x.grad != 0, y.detach() != 0)
