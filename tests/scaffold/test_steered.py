"""The linear layer with dropout as one function equals the equation."""

import pytest
import torch

from lottalora.scaffold import Adapter
from lottalora.scaffold import LottaLinear
from lottalora.scaffold.dropout import mask_like
from lottalora.scaffold.steered import Steered

DOUBLE = torch.float64


def tensors(beta: bool, bias: bool) -> tuple:
    torch.manual_seed(0)
    shapes = {"x": (5, 4), "A": (2, 4), "B": (3, 2)}
    x, A, B = (torch.randn(shape, dtype=DOUBLE, requires_grad=True) for shape in shapes.values())
    W, mask = torch.randn(3, 4, dtype=DOUBLE), torch.rand(5, 4, dtype=DOUBLE).round() * 2
    return (
        x, mask, W, A, B,
        torch.tensor(0.7, dtype=DOUBLE, requires_grad=True) if beta else None,
        torch.randn(3, dtype=DOUBLE, requires_grad=True) if bias else None,
        1.5,
    )  # fmt: skip


@pytest.mark.parametrize("beta", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_equation_and_its_gradients(beta, bias):
    x, mask, W, A, B, factor, b, scale = given = tensors(beta, bias)
    expected = (factor if beta else 1) * x @ W.T + scale * (mask * x) @ A.T @ B.T + (b if bias else 0)
    torch.testing.assert_close(Steered.apply(*given), expected)
    assert torch.autograd.gradcheck(Steered.apply, given)


def test_a_layer_with_dropout_gives_what_the_equation_gives_with_the_same_mask():
    layer = LottaLinear(torch.randn(3, 4, dtype=DOUBLE), Adapter(rank=2, dropout=0.5, B_init="kaiming"))
    x = torch.randn(2, 5, 4, dtype=DOUBLE)
    torch.manual_seed(3)
    h = layer(x)
    torch.manual_seed(3)
    dropped = mask_like(x.flatten(0, 1), 0.5).view_as(x) * x  # (N, T, in) → (N T, in) and back
    torch.testing.assert_close(h, layer.beta * x @ layer.W_seed.T + dropped @ layer.A.T @ layer.B.T)
