"""The layers against the equation, in float64."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottalora.scaffold import Adapter
from lottalora.scaffold import LottaConv1d
from lottalora.scaffold import LottaConv2d
from lottalora.scaffold import LottaConv3d
from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Source
from lottalora.scaffold.layers import convolution as convolutions

DOUBLE = torch.float64
SOURCE = Source(0, "layer", (4, 3))
CONVOLUTIONS = {1: (nn.Conv1d, LottaConv1d), 2: (nn.Conv2d, LottaConv2d), 3: (nn.Conv3d, LottaConv3d)}


def linear(out=8, columns=16, bias=True, **options):
    torch.manual_seed(0)
    b = nn.Parameter(torch.randn(out, dtype=DOUBLE)) if bias else None
    return moved(LottaLinear(torch.randn(out, columns, dtype=DOUBLE), Adapter(**options), bias=b))


def convolution(dims, adapter=None, bias=True, **like):
    torch.manual_seed(0)
    dense, lotta = CONVOLUTIONS[dims]
    original = dense(
        **{"in_channels": 4, "out_channels": 6, "kernel_size": 3, **like}, bias=bias, dtype=DOUBLE
    )
    W_seed = torch.randn_like(original.weight.flatten(1)).detach()
    return moved(lotta(W_seed, adapter or Adapter(rank=2), like=original, bias=original.bias)), original


@torch.no_grad()
def moved(layer):
    """Away from the start values, or else BA = 0 and β = 1 would hide mistakes."""
    for parameter in layer.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return layer


def test_forward_is_the_equation():
    layer = linear(rank=4, alpha=8.0)
    x = torch.randn(5, 16, dtype=DOUBLE)
    h = layer.beta * x @ layer.W_seed.T + 8.0 / 4 * x @ layer.A.T @ layer.B.T + layer.bias
    torch.testing.assert_close(layer(x), h)


@pytest.mark.parametrize(
    "options", [{}, {"alpha": 3.0}, {"alpha": 3.0, "rslora": True}, {"rank": 0}, {"dora": True}]
)
def test_forward_equals_the_product_with_the_dense_weight(options):
    layer = linear(**options)
    x = torch.randn(2, 3, 16, dtype=DOUBLE)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


@pytest.mark.parametrize(
    ("adapter", "scale"),
    [
        (Adapter(rank=4), 1),
        (Adapter(rank=4, alpha=8.0), 2),
        (Adapter(rank=4, alpha=8.0, rslora=True), 4),
        (Adapter(rank=0), 0),
    ],
)
def test_scale_is_alpha_over_rank_or_over_its_root(adapter, scale):
    assert adapter.scale == scale


def test_gradients_are_those_of_the_equation():
    layer = linear(out=3, columns=5, rank=2, dora=False)
    x = torch.randn(4, 5, dtype=DOUBLE, requires_grad=True)
    names = [name for name, _ in layer.named_parameters()]
    assert sorted(names) == ["A", "B", "beta", "bias"]

    def forward(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(forward, (x, *layer.parameters()))


@pytest.mark.parametrize("rank", [0, 1, 8])
def test_start_is_the_frozen_weight_alone(rank):
    W = torch.randn(6, 4)
    layer = LottaLinear(W, Adapter(rank=rank))
    x = torch.randn(3, 4)
    torch.testing.assert_close(layer(x), x @ W.T)


def test_kaiming_start_of_B_is_not_zero():
    layer = LottaLinear(torch.randn(6, 4), Adapter(rank=2, B_init="kaiming"))
    assert layer.B.abs().max() > 0


def test_rank_zero_trains_beta_and_bias_only():
    layer = linear(rank=0)
    assert sorted(name for name, _ in layer.named_parameters()) == ["beta", "bias"]


def test_parameters_are_what_is_trained_and_state_holds_no_scaffold():
    frozen_bias = LottaLinear(torch.randn(6, 4), Adapter(rank=2), bias=torch.ones(6))
    assert sorted(name for name, _ in frozen_bias.named_parameters()) == ["A", "B", "beta"]
    assert sorted(frozen_bias.state_dict()) == ["A", "B", "beta", "bias", "identity"]


def test_scaffold_is_bit_identical_after_training():
    layer = linear()
    before = layer.W_seed.clone()
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
    for _ in range(20):
        optimizer.zero_grad()
        layer(torch.randn(5, 16, dtype=DOUBLE)).square().mean().backward()
        optimizer.step()
    assert torch.equal(layer.W_seed, before)


def test_dropout_acts_on_the_adapter_path_alone():
    layer = linear(rank=2, dropout=0.999999)
    layer.train()
    x = torch.randn(5, 16, dtype=DOUBLE)
    torch.testing.assert_close(layer(x), layer.beta * x @ layer.W_seed.T + layer.bias)
    layer.eval()
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))


def test_dora_gives_each_row_of_the_weight_its_magnitude():
    layer = linear(rank=2, dora=True)
    torch.testing.assert_close(layer.weight.norm(dim=1), layer.magnitude.abs())


def test_no_gradient_flows_through_doras_norm():
    layer = linear(rank=2, dora=True, bias=False)
    x = torch.randn(5, 16, dtype=DOUBLE)
    W = layer.beta * layer.W_seed + layer.B @ layer.A
    constant = (layer.magnitude / W.norm(dim=1)).detach()
    expected = torch.autograd.grad((x @ W.T * constant).square().sum(), layer.B)
    torch.testing.assert_close(torch.autograd.grad(layer(x).square().sum(), layer.B), expected)


def test_dora_starts_where_the_plain_layer_starts():
    W = torch.randn(6, 4, dtype=DOUBLE)
    x = torch.randn(3, 4, dtype=DOUBLE)
    torch.testing.assert_close(LottaLinear(W, Adapter(rank=2, dora=True))(x), x @ W.T)


def test_parts_come_in_the_order_dora_bias_residual_layer_norm():
    layer = linear(out=6, columns=6, rank=2, dora=True, residual=True, layer_norm=True)
    x = torch.randn(3, 6, dtype=DOUBLE)
    W = layer.beta * layer.W_seed + layer.B @ layer.A
    W = W * (layer.magnitude / W.norm(dim=1))[:, None]
    h = F.layer_norm(x @ W.T + layer.bias + x, (6,), layer.norm.weight, layer.norm.bias)
    torch.testing.assert_close(layer(x), h)


def test_weight_that_is_no_single_matrix_is_refused():
    with pytest.raises(ValueError, match="no single matrix: call it instead"):
        linear(out=16, residual=True).weight.sum()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LottaLinear(torch.ones(3), Adapter()), r"matrix, \(out, in\), got float32 of shape \(3,\)"),
        (lambda: LottaLinear(torch.ones(3, 3).long(), Adapter()), "floating-point matrix, .* got int64"),
        (lambda: LottaLinear(torch.ones(3, 3), Adapter(), bias=torch.ones(4)), r"shape \(3,\), got \(4,\)"),
        (lambda: LottaLinear(torch.ones(3, 3), Adapter(), source=SOURCE), r"draws, \(4, 3\), got \(3, 3\)"),
        (lambda: setattr(linear(), "W_seed", torch.ones(2, 2)), r"shape \(8, 16\), got one of \(2, 2\)"),
        (
            lambda: setattr(linear(), "W_seed", nn.Parameter(torch.ones(8, 16))),
            "frozen, so it takes a tensor",
        ),
    ],
)
def test_frozen_weight_of_another_kind_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_residual_needs_as_many_outputs_as_inputs():
    with pytest.raises(ValueError, match="as many outputs as inputs, got 16 → 8"):
        linear(residual=True)


SHAPES = [
    {},
    {"stride": 2, "padding": 1},
    {"dilation": 2, "padding": 2},
    {"groups": 2},
    {"groups": 4, "out_channels": 8},  # depthwise, two kernels a channel
    {"padding": "same"},
    {"padding": 1, "padding_mode": "circular"},
    {"bias": False},
]


@pytest.mark.parametrize("like", SHAPES, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolution_equals_the_dense_one_with_its_weight(dims, like):
    layer, original = convolution(dims, **like)
    x = torch.randn(2, 4, *[7] * dims, dtype=DOUBLE)
    assert layer.weight.shape == original.weight.shape
    dense = torch.func.functional_call(original, {"weight": layer.weight}, (x,))
    torch.testing.assert_close(layer(x), dense)


def test_convolutions_weight_is_the_reshaped_matrix_sum():
    layer, _ = convolution(2, groups=2)
    W = layer.beta * layer.W_seed + layer.B @ layer.A
    torch.testing.assert_close(layer.weight, W.view(6, 2, 3, 3))


@pytest.fixture
def both_forms(monkeypatch):
    """Output and gradients of a convolution as one composed kernel and as two paths, by name."""

    def run(layer, x):
        found = []
        for one_kernel in (True, False):
            monkeypatch.setattr(convolutions, "composed_is_faster", lambda *_, form=one_kernel: form)
            values = {"x": x.clone().requires_grad_(), **dict(layer.named_parameters())}
            h = layer(values["x"])
            weights = torch.arange(h.numel(), dtype=h.dtype).cos().view(h.shape)  # or a norm hides gradients
            gradients = torch.autograd.grad((weights * h).sum(), list(values.values()))
            found.append({"h": h.detach(), **dict(zip(values, gradients, strict=True))})
        return found

    return run


@pytest.mark.parametrize("like", SHAPES, ids=str)
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_composed_kernel_gives_output_and_gradients_of_the_two_paths(both_forms, dims, like):
    layer, _ = convolution(dims, **like)
    composed, paths = both_forms(layer, torch.randn(2, 4, *[7] * dims, dtype=DOUBLE))
    assert {"h", "x", "A", "B", "beta"} <= composed.keys()
    torch.testing.assert_close(composed, paths)


@pytest.mark.parametrize(
    "options", [{"alpha": 3.0}, {"dora": True}, {"residual": True}, {"layer_norm": True}], ids=str
)
@pytest.mark.parametrize("groups", [1, 2])
def test_composed_kernel_has_the_options_of_the_two_paths(both_forms, groups, options):
    adapter = Adapter(rank=2, **options)
    layer, _ = convolution(2, adapter, out_channels=4, padding=1, groups=groups)
    composed, paths = both_forms(layer, torch.randn(2, 4, 5, 5, dtype=DOUBLE))
    torch.testing.assert_close(composed, paths)


def test_composed_kernel_equals_the_two_paths_to_a_hundred_thousandth_in_float32(both_forms):
    layer, _ = convolution(2, Adapter(rank=8), in_channels=64, out_channels=64, padding=1)
    composed, paths = both_forms(layer.float(), torch.randn(8, 64, 8, 8) / 64**0.5)
    torch.testing.assert_close(composed["h"], paths["h"], rtol=1e-5, atol=1e-5)


def test_dropout_in_training_keeps_the_two_paths_apart():
    layer, _ = convolution(2, Adapter(rank=2, dropout=0.999999), bias=False)
    x = torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    layer.train()
    torch.testing.assert_close(layer(x), layer.beta * F.conv2d(x, layer.W_seed.view(6, 4, 3, 3)))
    layer.eval()
    torch.testing.assert_close(layer(x), F.conv2d(x, layer.weight))


@pytest.mark.parametrize(
    ("out", "columns", "rank", "composed"),
    [
        (16, 16 * 9, 1, True),
        (64, 64 * 9, 32, True),
        (128, 128 * 9, 8, False),
        (256, 64, 1, True),
        (512, 512, 8, False),
        (16, 16 * 9, 0, False),  # β alone is trained
    ],
)
def test_small_kernels_are_composed_and_large_ones_are_not(out, columns, rank, composed):
    assert convolutions.composed_is_faster(out, columns, rank) is composed


@pytest.mark.parametrize("options", [{"dora": True}, {"residual": True}, {"layer_norm": True}])
def test_convolution_has_the_options_of_the_linear_layer(options):
    layer, _ = convolution(2, Adapter(rank=2, **options), out_channels=4, padding=1)
    x = torch.randn(2, 4, 5, 5, dtype=DOUBLE)
    W = layer.beta * layer.W_seed + layer.B @ layer.A
    if layer.magnitude is not None:
        W = W * (layer.magnitude / W.norm(dim=1))[:, None]
    h = F.conv2d(x, W.view(4, 4, 3, 3), layer.bias, padding=1)
    if layer.adapter.residual:
        h = h + x
    if layer.norm is not None:
        h = F.group_norm(h, 1, layer.norm.weight, layer.norm.bias)
    torch.testing.assert_close(layer(x), h)


def test_residual_around_a_convolution_that_changes_the_shape_is_refused():
    with pytest.raises(ValueError, match="residual=True needs an output of the input's shape"):
        convolution(2, Adapter(rank=2, residual=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rank": -1}, "rank must be 0 or more, got -1"),
        ({"rank": 2.5}, "rank must be a whole number, 0 or more, got 2.5"),
        ({"rank": True}, "rank must be a whole number"),
        ({"alpha": 0.0}, "alpha must be above 0"),
        ({"alpha": float("nan")}, "alpha must be above 0"),
        ({"alpha": "8"}, "alpha must be a number, int or float, got '8'"),
        ({"alpha": True}, "alpha must be a number"),
        ({"dropout": None}, "dropout must be a number"),
        ({"train_beta": "false"}, "train_beta must be True or False, got 'false'"),
        ({"dora": 1}, "dora must be True or False, got 1"),
        ({"A_init": "ones"}, "A_init must be 'kaiming', 'normal' or 'zeros', got 'ones'"),
        ({"A_init": "zeros"}, "A and B both at 0 never get a gradient"),
        ({"B_init": "ones"}, "B_init must be 'zeros' or 'kaiming', got 'ones'"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
    ],
)
def test_adapter_refuses_what_has_no_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        Adapter(**options)


def test_layer_says_what_it_is():
    layer = LottaLinear(torch.zeros(8, 16), Adapter(rank=4), source=Source(7, "fc", (8, 16), "binary"))
    assert repr(layer) == "LottaLinear(16 → 8, rank 4, scale 1, binary, seed 7)"


class Doubled(torch.autograd.Function):
    """A custom function, which PyTorch hands its tensors without asking a subclass."""

    @staticmethod
    def forward(ctx, W):
        return 2 * W

    @staticmethod
    def backward(ctx, dW):
        return 2 * dW


def test_gradients_reach_the_adapter_through_a_custom_function_of_the_weight():
    layer = LottaLinear(torch.randn(4, 3, dtype=torch.float64), Adapter(rank=2, B_init="kaiming"))
    layer = layer.double()
    x = torch.randn(5, 4, dtype=torch.float64)
    trained = [layer.A, layer.B, layer.beta]
    found = torch.autograd.grad((x @ Doubled.apply(layer.weight)).square().sum(), trained)
    expected = torch.autograd.grad((x @ (2 * layer._matrix())).square().sum(), trained)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs.to(ours.dtype))


def test_starts_of_A_have_their_standard_deviation_and_leave_B_as_it_was():
    W = torch.zeros(4, 400)
    torch.manual_seed(0)
    normal = LottaLinear(W, Adapter(rank=50, A_init="normal"))
    zeros = LottaLinear(W, Adapter(rank=50, A_init="zeros", B_init="kaiming"))
    uniform = LottaLinear(W, Adapter(rank=50))
    assert normal.A.std().item() == pytest.approx(1 / 20, rel=0.03)
    assert uniform.A.std().item() == pytest.approx(1 / 20 / 3**0.5, rel=0.03)
    assert not zeros.A.any() and zeros.B.any() and not normal.B.any()
