"""What records or compiles a model on a scaffold computes the same, or says what does instead."""

import pytest
import torch
from torch import nn
from torch.autograd import forward_ad
from torch.fx.experimental.proxy_tensor import make_fx

from lottalora.scaffold import Scaffold
from lottalora.scaffold import merge
from lottalora.scaffold import wrap

NETS = {
    "linear": (lambda: nn.Linear(8, 8), (3, 8)),
    "convolution": (lambda: nn.Conv1d(8, 8, 3, padding=1), (3, 8, 5)),
    "recurrent": (lambda: nn.GRU(8, 8), (3, 8)),
    "attention": (lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0), (3, 8)),
}


def wrapped(name, **options):
    torch.manual_seed(0)
    net, shape = NETS[name]
    net = nn.Sequential(net())
    wrap(net, Scaffold(rank=2, B_init="kaiming", **options), compose=["*"])
    return net.eval(), torch.randn(shape)


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", ["linear", "convolution", "recurrent"])
def test_recorded_by_fx_it_computes_the_same(name):
    net, x = wrapped(name)
    torch.testing.assert_close(first(torch.fx.symbolic_trace(net)(x)), first(net(x)))


@pytest.mark.parametrize(
    ("name", "options", "what"),
    [
        ("linear", {"dora": True}, "a layer with dora"),
        ("convolution", {"layer_norm": True}, "a convolution with layer_norm"),
        ("attention", {}, "an attention on a scaffold"),
    ],
)
def test_what_fx_cannot_record_is_refused_with_what_can(name, options, what):
    net, _ = wrapped(name, **options)
    with pytest.raises(ValueError, match=f"torch.fx cannot trace {what}: call torch.export.export, or"):
        # An encoder layer is a leaf for fx, so that what is inside is traced by itself.
        torch.fx.symbolic_trace(net[0].self_attn if name == "attention" else net)


@pytest.mark.parametrize("name", ["linear", "convolution"])
def test_quantized_input_is_refused_with_what_works(name):
    net, x = wrapped(name)
    with pytest.raises(ValueError, match="takes no quantized input: call lottalora.scaffold.merge"):
        net(torch.quantize_per_tensor(x, 0.1, 0, torch.quint8))


def test_quantization_by_fx_is_refused_with_what_works():
    class Tracer(torch.fx.Tracer):
        """Stands for the one by which `prepare_fx` begins; importing that takes three seconds."""

        __module__ = "torch.ao.quantization.fx.tracer"

    net, _ = wrapped("linear")
    with pytest.raises(ValueError, match="is not quantized .*: call lottalora.scaffold.merge"):
        Tracer().trace(net)
    merge(net)
    Tracer().trace(net)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NETS)
def test_script_is_refused_with_what_works(name):
    net, _ = wrapped(name)
    with pytest.raises(ValueError, match="torch.jit.script cannot compile .*: call torch.export.export or"):
        torch.jit.script(net)


def test_a_graph_of_make_fx_follows_beta():
    model, x = nn.Sequential(nn.Linear(256, 256)), torch.randn(64, 256)
    wrap(model, Scaffold(rank=2))
    graph = make_fx(model)(x)
    with torch.no_grad():
        model[0].beta.add_(1)
    torch.testing.assert_close(graph(x), model(x))


@pytest.mark.parametrize(
    "model", [nn.Linear(64, 64), nn.TransformerEncoderLayer(64, 2, 64, batch_first=True).eval()]
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_a_nested_tensor_is_refused_by_name(model):
    model = nn.Sequential(model)
    wrap(model, Scaffold(rank=2))
    nested = torch.nested.nested_tensor([torch.randn(2, 64), torch.randn(3, 64)])
    with pytest.raises(ValueError, match="takes no nested tensor"), torch.no_grad():
        model(nested)


TRACED = {
    "transposed": (lambda: nn.ConvTranspose1d(4, 4, 3), lambda: torch.randn(1, 4, 5)),
    "bilinear": (lambda: Squared(), lambda: torch.randn(3, 4)),
    "embedding": (lambda: nn.Embedding(5, 4), lambda: torch.tensor([1, 3])),
}


class Squared(nn.Bilinear):
    """A bilinear layer of one input."""

    def __init__(self):
        super().__init__(4, 4, 2)

    def forward(self, x):
        return super().forward(x, x)


def composed(name):
    torch.manual_seed(0)
    net, x = TRACED[name]
    net = nn.Sequential(net())
    wrap(net, Scaffold(rank=2, B_init="kaiming"), compose=["*"])
    return net, x()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("name", TRACED)
def test_traced_by_jit_a_composed_weight_follows_its_parts(name):
    net, x = composed(name)
    traced = torch.jit.trace(net, x)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1)
    torch.testing.assert_close(traced(x), net(x))


@pytest.mark.parametrize("name", TRACED)
def test_forward_mode_derivatives_go_through_a_composed_weight(name):
    net, x = composed(name)
    net.double()
    x = x.double() if x.is_floating_point() else x
    primal = dict(net.named_parameters())
    along = {key: torch.randn_like(p) for key, p in primal.items()}

    def h(step):
        moved = {key: p + step * along[key] for key, p in primal.items()}
        return torch.func.functional_call(net, moved, (x,))

    with forward_ad.dual_level():
        dual = {key: forward_ad.make_dual(p, along[key]) for key, p in primal.items()}
        found = forward_ad.unpack_dual(torch.func.functional_call(net, dual, (x,))).tangent
    torch.testing.assert_close(found, (h(1e-5) - h(-1e-5)) / 2e-5, rtol=1e-5, atol=1e-8)
