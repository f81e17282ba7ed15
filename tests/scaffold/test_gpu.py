"""What a wrapped model does on a CPU it does on a GPU: bits of W_seed, gradients of every form, files."""

import copy

import pytest
import torch
from torch import nn

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Adapters
from lottalora.scaffold import Scaffold
from lottalora.scaffold import Source
from lottalora.scaffold import deviation
from lottalora.scaffold import draw
from lottalora.scaffold import fused_as
from lottalora.scaffold import load_into
from lottalora.scaffold import merge
from lottalora.scaffold import paths_taken
from lottalora.scaffold import read
from lottalora.scaffold import regenerated
from lottalora.scaffold import resample
from lottalora.scaffold import save
from lottalora.scaffold import unmerge
from lottalora.scaffold import verify
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap

GPU = "cuda"
pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
DOUBLE = torch.float64


def linears():
    return nn.Sequential(nn.Linear(24, 40), nn.GELU(), nn.Linear(40, 12)), torch.randn(50, 24)


def convolutions():
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 8, 1))
    return net, torch.randn(6, 3, 9, 9)


def attention():
    return nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), torch.randn(5, 7, 16)


def recurrent():
    return Last(nn.LSTM(8, 16, batch_first=True)), torch.randn(5, 6, 8)


class Last(nn.Module):
    """The output of a recurrent net, without its states."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x)[0]


MODELS = (linears, convolutions, attention, recurrent)


def made(model, **options):
    """A wrapped model in float64 whose adapters do something, and its input."""
    torch.manual_seed(0)
    net, x = model()
    wrap(net, Scaffold(rank=3, **options), compose=[nn.LSTM] if model is recurrent else [])
    with torch.no_grad():
        for name, p in net.named_parameters():
            if p.requires_grad and name.endswith(("B", "beta")):
                p.normal_(0.5, 0.3)
    return net.to(DOUBLE), x.to(DOUBLE)


def results(net, x):
    """Output and gradients, on the CPU."""
    x = x.detach().clone().requires_grad_()
    h = net(x)
    trained = [p for p in net.parameters() if p.requires_grad]
    torch.manual_seed(1)
    dh = torch.randn(h.shape).to(h)
    return [t.detach().cpu() for t in (h, *torch.autograd.grad(h, [x, *trained], dh))]


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("form", ["auto", "off", "add", "accumulate", "compose", "merge"])
def test_output_and_gradients_are_those_of_the_cpu(model, form):
    net, x = made(model)
    with fused_as("off"):
        expected = results(net, x)
    with fused_as(form):
        found = results(net.to(GPU), x.to(GPU))
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("form", ["auto", "add", "accumulate", "compose", "merge"])
def test_autocast_computes_what_float32_does_but_for_rounding(model, dtype, form):
    net, x = made(model)
    net, x = net.float().to(GPU), x.float().to(GPU)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = results(net, x)
    with torch.autocast(GPU, dtype), fused_as(form):
        found = results(net, x)
    largest = max(true.norm() for true in expected)
    for mine, true in zip(found, expected, strict=True):
        assert (mine.float() - true).norm() < 0.1 * true.norm() + 1e-3 * largest


def test_auto_takes_the_equation_as_written():
    net, x = made(linears)
    net.to(GPU)(x.to(GPU))
    assert dict(paths_taken(net)) == {"reference": 2}


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_the_bits_of_a_scaffold_are_those_of_the_cpu(family):
    """Whether a model is moved there before it is wrapped or after."""
    drawn = draw(Source(5, "0", (30, 20), family))
    before, after = nn.Sequential(nn.Linear(20, 30)).to(GPU), nn.Sequential(nn.Linear(20, 30))
    for net in (before, after):
        wrap(net, Scaffold(rank=2, seed=5, family=family))
    for net in (before, after.to(GPU)):
        assert net[0].W_seed.device.type == GPU and torch.equal(net[0].W_seed.cpu(), drawn)
        assert verify(net) == []


def test_another_seed_is_drawn_there():
    net, _ = made(linears)
    net = net.float()
    twin = copy.deepcopy(net).to(GPU)
    for each in (net, twin):
        resample(each, 77)
    for mine, theirs in zip(net.state_dict().values(), twin.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs.cpu())
    assert torch.equal(net[0].W_seed, twin[0].W_seed.cpu())


@pytest.mark.parametrize("model", [linears, convolutions])
def test_a_scaffold_that_is_not_kept_is_drawn_anew_on_the_gpu(model):
    net, x = made(model)
    net, x = net.float().to(GPU), x.float().to(GPU)
    expected = net(x)
    with regenerated(net), torch.no_grad():
        assert torch.equal(net(x), expected)
    with without_scaffold(net):
        assert not torch.allclose(net(x), expected)
    assert torch.equal(net(x), expected)


def test_a_file_written_on_a_gpu_is_that_of_the_cpu(tmp_path):
    net, x = made(linears)
    net, x = net.float(), x.float()
    save(net, tmp_path / "cpu.safetensors", probe=(x,))
    save(net.to(GPU), tmp_path / "gpu.safetensors", probe=(x.to(GPU),))
    there = linears()[0].to(GPU)
    load_into(there, tmp_path / "cpu.safetensors")
    assert deviation(there, read(tmp_path / "gpu.safetensors")) < 1e-5
    torch.testing.assert_close(there(x.to(GPU)), net(x.to(GPU)))
    here = load_into(linears()[0], tmp_path / "gpu.safetensors")
    for name, value in net.state_dict().items():
        assert torch.equal(value.cpu(), here.state_dict()[name]), name


@pytest.mark.parametrize("model", MODELS)
def test_merging_leaves_the_output_and_is_undone(model):
    net, x = made(model)
    net, x = net.to(GPU), x.to(GPU)
    state = {name: value.clone() for name, value in net.state_dict().items()}
    expected = net(x)
    merged = merge(net)
    torch.testing.assert_close(net(x), expected)
    unmerge(net, merged)
    torch.testing.assert_close(net(x), expected)
    for name, value in net.state_dict().items():
        assert torch.equal(value, state[name]), name


def test_several_adapters_answer_by_row():
    net, x = made(linears)
    net, x = net.to(GPU), x[:2].to(GPU)
    adapters = Adapters(net, "first")
    first = net(x)
    adapters.add_adapter("second", {name: value / 2 for name, value in adapters.state("first").items()})
    adapters.set_adapter("second")
    second = net(x)
    with adapters.per_row(["second", "first"]):
        mixed = net(x)
    torch.testing.assert_close(mixed, torch.stack([second[0], first[1]]))


def stepping(net, x, **settings):
    optimizer = torch.optim.AdamW([p for p in net.parameters() if p.requires_grad], lr=1e-2, **settings)

    def step():
        optimizer.zero_grad(set_to_none=False)
        net(x).square().mean().backward()
        optimizer.step()

    return step


@pytest.mark.parametrize("model", [linears, convolutions, attention])
def test_a_cuda_graph_replays_training_steps(model):
    from benchmarks.kernels import captured  # it imports Triton

    net, x = made(model)
    net, x = net.to(GPU), x.to(GPU)
    twin = copy.deepcopy(net)
    step, replayed = (stepping(each, x, fused=True, capturable=True) for each in (net, twin))
    replay = captured(replayed)  # after three steps
    for _ in range(4):
        replay()
    for _ in range(7):
        step()
    for mine, theirs in zip(net.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("model", [linears, convolutions, attention])
@pytest.mark.parametrize("form", ["auto", "compose"])
def test_a_compiled_model_computes_the_same(model, form):
    net, x = made(model)
    net, x = net.float().to(GPU), x.float().to(GPU)
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False), fused_as(form):
        expected = results(net, x)
        torch.testing.assert_close(results(torch.compile(net), x), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("model", [linears, convolutions, attention])
@pytest.mark.parametrize("form", ["auto", "accumulate", "compose"])
def test_a_step_of_training_leaves_nothing_in_memory(model, form):
    net, x = made(model)
    step = stepping(net.to(GPU), x.to(GPU))
    with fused_as(form):
        for _ in range(3):
            step()
        before = torch.cuda.memory_allocated()
        for _ in range(10):
            step()
    assert torch.cuda.memory_allocated() == before


@pytest.mark.parametrize("form", ["auto", "accumulate"])
def test_adapter_dropout_is_one_mask_forward_and_backward(form):
    """The derivative along a direction, with the same masks, is what the gradients say."""
    net, x = made(linears, dropout=0.3)
    net, x = net.to(GPU), x.to(GPU)
    trained = [p for p in net.parameters() if p.requires_grad]

    def loss():
        torch.manual_seed(3)
        torch.cuda.manual_seed(3)
        return net(x).square().mean()

    with fused_as(form):
        gradients = torch.autograd.grad(loss(), trained)
        directions = [torch.randn_like(p) for p in trained]
        ends = []
        for sign in (1, -1):
            with torch.no_grad():
                for p, d in zip(trained, directions, strict=True):
                    p.add_(d, alpha=sign * 1e-5)
                ends.append(loss())
                for p, d in zip(trained, directions, strict=True):
                    p.sub_(d, alpha=sign * 1e-5)
    expected = (ends[0] - ends[1]) / 2e-5
    found = sum((g * d).sum() for g, d in zip(gradients, directions, strict=True))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-8)
