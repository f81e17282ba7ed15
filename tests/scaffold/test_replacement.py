"""A layer behaves like the one that it replaced."""

import copy
import operator

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from lottalora.scaffold import Adapter
from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap
from lottalora.scaffold.layers.lazy_weight import LazyWeight


def wrapped(net, freeze=(), **options):
    torch.manual_seed(0)
    wrap(net, Scaffold(**{"rank": 2, "seed": 1, **options}), freeze=freeze)
    return net


@pytest.mark.parametrize(
    "options", [{}, {"dora": True}, {"residual": True}, {"layer_norm": True}, {"dropout": 0.5}], ids=str
)
@pytest.mark.parametrize("dense", [lambda: nn.Linear(8, 8), lambda: nn.Conv1d(8, 8, 3, padding=1)])
def test_under_autocast_a_layer_returns_the_dtype_of_the_dense_one(dense, options):
    x = torch.randn(2, 8, 8)
    layer = wrapped(nn.Sequential(dense()), **options)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert dense()(x).dtype == layer(x).dtype == torch.bfloat16


def test_adapters_of_a_half_precision_model_train_as_in_float32():
    nets = [wrapped(nn.Sequential(nn.Linear(8, 8)).to(dtype)) for dtype in (torch.bfloat16, torch.float32)]
    nets[1][0].A.data.copy_(nets[0][0].A)
    x = torch.randn(64, 8)
    for net in nets:
        optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
        for _ in range(50):
            optimizer.zero_grad()
            net(x.to(net[0].W_seed.dtype)).float().sub(1).square().mean().backward()
            optimizer.step()
    half, full = (net[0].beta.item() for net in nets)
    assert abs(full - 1) > 0.01 and abs(half - full) < 2e-3


def test_adapter_dtype_is_kept_through_casts():
    layer = wrapped(nn.Sequential(nn.Linear(8, 8)), adapter_dtype="bfloat16")[0]
    assert layer.A.dtype == torch.bfloat16 and layer.W_seed.dtype == torch.float32
    assert layer.double().A.dtype == torch.bfloat16
    with pytest.raises(ValueError, match="adapter_dtype must be None or one of float64, .* got 'half'"):
        Adapter(adapter_dtype="half")


def test_cast_keeps_the_adapters_bits_and_gradients():
    layer = wrapped(nn.Sequential(nn.Linear(8, 8)))[0]
    layer(torch.randn(2, 8)).sum().backward()
    A, gradient = layer.A.detach().clone(), layer.B.grad.clone()
    layer.half()
    assert torch.equal(layer.A, A) and torch.equal(layer.B.grad, gradient)


def test_doras_gradients_are_finite_where_its_matrix_is_zero():
    layer = wrapped(nn.Sequential(nn.Linear(8, 8)), dora=True)[0]
    layer.beta.data.zero_()
    layer(torch.randn(2, 8)).sum().backward()
    assert all(p.grad.isfinite().all() for p in layer.parameters())
    assert layer.beta.grad != 0  # so that it can leave


def test_reading_the_dtype_of_a_weight_composes_nothing_and_works_under_dropout():
    layer = wrapped(nn.Sequential(nn.Linear(8, 4)), dropout=0.5).train()[0]
    weight = layer.weight
    assert isinstance(weight, torch.Tensor) and weight.dtype == torch.float32
    assert weight.shape == (4, 8) and weight.device == layer.W_seed.device and weight.size(0) == 4
    with pytest.raises(ValueError, match="no single matrix: call it instead"):
        F.linear(torch.randn(2, 8), weight)
    layer.eval()
    torch.testing.assert_close(F.linear(torch.randn(2, 8), weight).shape, torch.Size([2, 4]))


def test_values_of_a_read_weight_carry_gradients_and_can_be_copied():
    layer = wrapped(nn.Sequential(nn.Linear(8, 4)))[0]
    (layer.weight * 2).sum().backward()
    assert layer.B.grad.abs().sum() > 0
    assert type(layer.weight + 0) is torch.Tensor and isinstance(layer.weight, LazyWeight)
    torch.testing.assert_close(copy.deepcopy(layer.weight), layer.weight.detach())
    torch.testing.assert_close(torch.stack([layer.weight, layer.weight])[1], layer.weight + 0)


def test_t5_trains_with_adapter_dropout():
    transformers = pytest.importorskip("transformers")
    config = transformers.T5Config(
        d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2, vocab_size=20, decoder_start_token_id=0
    )
    net = transformers.T5ForConditionalGeneration(config)
    wrap(net, Scaffold(rank=2, dropout=0.1), keep=["shared", "*relative_attention_bias*", "lm_head"])
    net.train()(input_ids=torch.tensor([[1, 2, 3]]), labels=torch.tensor([[1, 2]])).loss.backward()


def test_encoder_layer_with_layer_norm_computes_in_eval_what_it_does_in_training():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    wrap(encoder, Scaffold(rank=2, layer_norm=True), keep=["self_attn"])
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        torch.testing.assert_close(encoder.train()(x), encoder.eval()(x))


class Double(nn.Module):
    def forward(self, x):
        return 2 * x


HOLDERS = {  # of a weight that is no parameter any more
    "linear": lambda: nn.Sequential(nn.Linear(8, 8)),
    "convolution": lambda: nn.Sequential(nn.Conv1d(8, 8, 3)),
    "composed": lambda: nn.Sequential(nn.ConvTranspose1d(8, 8, 3)),
    "frozen rows": lambda: nn.Sequential(nn.Embedding(8, 8), nn.Linear(8, 8)),
}
IN_PLACE = {
    "prune": lambda layer: prune.random_unstructured(layer, "weight", amount=0.5),
    "prune by norm": lambda layer: prune.ln_structured(layer, "weight", 0.5, 2, 0),
    "old weight_norm": lambda layer: nn.utils.weight_norm(layer),
    "old spectral_norm": lambda layer: nn.utils.spectral_norm(layer),
    "weight_norm": lambda layer: nn.utils.parametrizations.weight_norm(layer),
    "spectral_norm": lambda layer: nn.utils.parametrizations.spectral_norm(layer),
    "orthogonal": lambda layer: nn.utils.parametrizations.orthogonal(layer),
    "any": lambda layer: nn.utils.parametrize.register_parametrization(layer, "weight", Double()),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", IN_PLACE)
@pytest.mark.parametrize("holder", HOLDERS)
def test_what_replaces_a_weight_after_wrap_is_told_in_one_line_what_to_do(holder, change):
    net = HOLDERS[holder]()
    wrap(net, Scaffold(rank=2), compose=["*"], freeze=[nn.Embedding] if holder == "frozen rows" else [])
    state, hooks = copy.deepcopy(net.state_dict()), len(net[0]._forward_pre_hooks)
    with pytest.raises(ValueError, match="parametrized in place: do that before wrap, or call") as error:
        IN_PLACE[change](net[0])
    assert "\n" not in str(error.value)
    after = net.state_dict()
    assert list(after) == list(state) and all(torch.equal(after[key], state[key]) for key in state)
    assert len(net[0]._forward_pre_hooks) == hooks


def test_adapter_can_be_parametrized():
    net = wrapped(nn.Sequential(nn.Linear(8, 4)), B_init="kaiming")
    x, A = torch.randn(2, 8), net[0].A.detach().clone()
    W_seed, B, bias = net[0].W_seed, net[0].B, net[0].bias
    nn.utils.parametrize.register_parametrization(net[0], "A", Double())
    torch.testing.assert_close(net(x), F.linear(x, W_seed + B @ (2 * A), bias))
    assert "LottaLinear" in repr(net)


@pytest.mark.parametrize("holder", HOLDERS)
def test_composed_weight_can_be_neither_assigned_nor_tied_by_hand(holder):
    net = HOLDERS[holder]()
    wrap(net, Scaffold(rank=2), compose=["*"], freeze=[nn.Embedding] if holder == "frozen rows" else [])
    before = {name: type(module) for name, module in net.named_modules()}
    with pytest.raises(ValueError, match="'weight' is composed .*: tie or set weights before wrap"):
        net[0].weight = nn.Parameter(torch.zeros(8, 8))
    assert {name: type(module) for name, module in net.named_modules()} == before


@pytest.mark.parametrize(
    "write", [nn.init.zeros_, nn.init.kaiming_uniform_, nn.init.trunc_normal_, lambda W: W.mul_(2)]
)
def test_writing_into_a_composed_weight_is_refused_since_it_would_be_lost(write):
    layer = wrapped(nn.Sequential(nn.Linear(8, 4)))[0]
    with torch.no_grad(), pytest.raises(ValueError, match="_ would write into a weight that is composed"):
        write(layer.weight)


def assign_data(W):
    W.data = torch.ones(4, 8)


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda W: W.__setitem__(0, 1.0), "__setitem__ would write into a weight that is composed"),
        (lambda W: torch.add(torch.ones(4, 8), 1, out=W), "add would write"),
        (assign_data, "__set__ would write"),
        (lambda W: W.requires_grad_(False), "cannot be set: call requires_grad_ of the layer"),
        (lambda W: setattr(W, "requires_grad", False), "cannot be set: call requires_grad_ of the layer"),
    ],
    ids=["item", "out", "data", "requires_grad_", "requires_grad"],
)
def test_other_writing_into_a_composed_weight_is_refused(write, message):
    layer = wrapped(nn.Sequential(nn.Linear(8, 4)))[0]
    with torch.no_grad(), pytest.raises(ValueError, match=message):
        write(layer.weight)


WAYS_TO_WRITE = {
    "init": nn.init.zeros_,
    "data": lambda W: W.data.normal_(),
    "item of data": lambda W: W.data.__setitem__(0, 1.0),
    "row of data": lambda W: W.data[0].zero_(),
    "detached": lambda W: W.detach().mul_(2),
    "row": lambda W: W[0].zero_(),
    "view": lambda W: W.view(-1).zero_(),
    "operator": lambda W: operator.imul(W, 2.0),
    "operator on data": lambda W: operator.iadd(W.data, 2.0),
    "several": lambda W: torch._foreach_mul_([W], 2.0),
    "inplace of relu": lambda W: F.relu(W, inplace=True),
    "inplace of dropout": lambda W: F.dropout(W, 0.5, inplace=True),
    "max_norm": lambda W: F.embedding(torch.tensor([0]), W.view(len(W), -1), max_norm=0.1),
}


@pytest.mark.parametrize("way", WAYS_TO_WRITE)
@pytest.mark.parametrize("holder", HOLDERS)
def test_writing_into_a_weight_that_no_parameter_holds_is_refused(holder, way):
    net = HOLDERS[holder]()
    wrap(net, Scaffold(rank=2), compose=["*"], freeze=[nn.Embedding] if holder == "frozen rows" else [])
    with torch.no_grad(), pytest.raises(ValueError, match="would write into a weight that is composed"):
        WAYS_TO_WRITE[way](net[0].weight)


def test_a_view_without_a_gradient_of_a_weight_with_one_refuses_writing():
    weight = wrapped(nn.Sequential(nn.Linear(8, 4)))[0].weight
    assert weight.requires_grad
    with pytest.raises(ValueError, match="would write into a weight that is composed"):
        torch.detach(weight).zero_()


@pytest.mark.parametrize(
    "hook",
    [
        lambda W: W.register_hook(lambda gradient: None),
        lambda W: W.register_post_accumulate_grad_hook(lambda W: None),
        lambda W: W.retain_grad(),
    ],
)
@pytest.mark.parametrize("layer", [lambda: nn.Linear(8, 8), lambda: nn.Embedding(8, 8)])
def test_hook_on_the_gradient_of_a_composed_weight_is_refused_since_it_would_not_be_called(layer, hook):
    net = nn.Sequential(layer(), nn.Linear(8, 8))
    wrap(net, Scaffold(rank=2), compose=["*"])
    with pytest.raises(
        ValueError, match="of a weight that is composed .* has no effect, .*: call it on A, B"
    ):
        hook(net[0].weight)


@pytest.mark.parametrize("read", [lambda W: W.detach().numpy(), lambda W: np.asarray(W.detach()[1:])])
@pytest.mark.parametrize("frozen", [False, True])
def test_array_of_a_composed_weight_refuses_writing(read, frozen):
    layer = wrapped(nn.Sequential(nn.Embedding(8, 4), nn.Linear(4, 4)), rank=1, freeze=["0"])[not frozen]
    array = read(layer.weight)
    assert array.any()
    with pytest.raises(ValueError, match="read-only"):
        array[:] = 0


@pytest.mark.parametrize("layer", [lambda: nn.Linear(8, 8), lambda: nn.GRU(8, 8), lambda: nn.Embedding(8, 8)])
def test_reset_parameters_starts_all_that_is_trained_again(layer):
    torch.manual_seed(0)
    net = layer()
    wrap(net, Scaffold(rank=2), compose=["*"])
    x = torch.randint(8, (5,)) if isinstance(net, nn.Embedding) else torch.randn(5, 8)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.zero_() if "bias" in name else parameter.add_(1)
    net.reset_parameters()
    parts = dict(net.named_parameters())
    assert all((p == 1).all() for name, p in parts.items() if name.endswith("beta"))
    assert all((p == 0).all() for name, p in parts.items() if name.endswith("B"))
    assert all(p.std() > 0 for name, p in parts.items() if name.endswith("A") or "bias" in name)
    net(x)


class WithA(nn.Linear):
    def __init__(self):
        super().__init__(8, 8)
        self.A = nn.Parameter(torch.ones(8))


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (
            lambda: nn.Linear(8, 8).to(torch.float8_e4m3fn),
            "1.weight is float8_e4m3fn, and a scaffold is one of",
        ),
        (lambda: nn.Linear(0, 8), "1.weight has no entries, shape 8 × 0: name it in keep="),
        (WithA, "1.weight stands beside a tensor 'A' of its layer, a name that a scaffold layer needs"),
    ],
    ids=["float8", "empty", "own A"],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_layer_that_cannot_be_on_a_scaffold_is_refused_and_can_be_kept(layer, message):
    net = nn.Sequential(nn.Linear(8, 8), layer())
    with pytest.raises(ValueError, match=message):
        wrap(net, Scaffold(rank=2))
    assert type(net[0]) is nn.Linear
    wrap(net, Scaffold(rank=2), keep=["1"])


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("change", ["prune", "old weight_norm", "old spectral_norm", "weight_norm"])
def test_what_was_done_to_a_weight_before_wrap_goes_on(change):
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Linear(8, 8)), torch.randn(2, 8)
    IN_PLACE[change](net[0])
    expected = net.eval()(x)
    wrap(net, Scaffold(rank=2, family="learned"), compose=["*"])
    torch.testing.assert_close(net(x), expected)


def test_wrap_under_inference_mode_is_refused():
    net = nn.Sequential(nn.Linear(8, 4))
    with torch.inference_mode(), pytest.raises(ValueError, match="call wrap outside of it"):
        wrap(net, Scaffold(rank=2))
    assert type(net[0]) is nn.Linear


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_convolution_with_layer_norm_takes_one_example_without_a_batch(dims):
    dense = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[dims - 1]
    layer = wrapped(nn.Sequential(dense(2, 3, 3)), layer_norm=True)[0]
    x = torch.randn(2, *(5 for _ in range(dims)))
    torch.testing.assert_close(layer(x), layer(x.unsqueeze(0))[0])


def test_what_was_put_on_a_module_stays():
    linear = nn.Linear(8, 4)
    linear.tag = "mine"
    linear.register_buffer("count", torch.zeros(1))
    linear.register_buffer("cache", torch.ones(1), persistent=False)
    linear.gain = nn.Parameter(torch.ones(4))
    wrap(linear, Scaffold(rank=2))
    assert isinstance(linear, LottaLinear) and linear.tag == "mine" and linear.in_features == 8
    assert {"count", "gain", "A"} <= linear.state_dict().keys() and "cache" not in linear.state_dict()
    assert torch.equal(linear.cache, torch.ones(1))


def test_pretrained_model_that_wraps_itself_comes_back_the_same(tmp_path):
    transformers = pytest.importorskip("transformers")

    class Net(transformers.PreTrainedModel):
        config_class = transformers.PretrainedConfig

        def __init__(self, config, seed=1):
            super().__init__(config)
            self.body = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
            wrap(self, Scaffold(rank=2, seed=seed))
            self.post_init()

        def forward(self, x):
            return self.body(x)

    net, x = Net(transformers.PretrainedConfig()), torch.randn(2, 8)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    net.save_pretrained(tmp_path)
    assert torch.equal(Net.from_pretrained(tmp_path)(x), net(x))
    with pytest.raises(Exception, match="another scaffold"):
        Net.from_pretrained(tmp_path, seed=2)(x)
