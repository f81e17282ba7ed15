"""What wrap would change by accident it refuses by name, and it leaves the model as it was."""

import copy
import functools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import prune

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Family
from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap


def refused(net, message, family="normal", **arguments):
    """Assert that wrap refuses a net in one line, and that no module or parameter is another one then."""
    classes = [type(module) for module in net.modules()]
    parameters = list(net.parameters())
    with pytest.raises(ValueError, match=message) as error:
        wrap(net, Scaffold(rank=2, family=family), **arguments)
    assert "\n" not in str(error.value)
    assert [type(module) for module in net.modules()] == classes
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))


def two_attentions(change):
    net = nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2), nn.MultiheadAttention(8, 2))
    change(net[1], net[2])
    return net


def tie_weight(one, other):
    other.out_proj.weight = one.out_proj.weight


def share_module(one, other):
    other.out_proj = one.out_proj


def tie_bias(one, other):
    other.in_proj_bias = one.in_proj_bias


ATTENTIONS = {
    "tied": (tie_weight, "'1' cannot be split .* its out_proj.weight is also 2.out_proj.weight. Undo that"),
    "shared": (share_module, "'1' cannot be split .* its out_proj is also 2.out_proj"),
    "tied bias": (tie_bias, "'1' cannot be split .* its in_proj_bias is also 2.in_proj_bias"),
    "weight_norm": (
        lambda one, other: nn.utils.parametrizations.weight_norm(one.out_proj),
        "'1' cannot be split .* its out_proj is not one plain weight",
    ),
    "old spectral_norm": (
        lambda one, other: nn.utils.spectral_norm(other.out_proj),
        "'2' cannot be split .* its out_proj is not one plain weight",
    ),
    "pruned": (
        lambda one, other: prune.random_unstructured(other.out_proj, "bias", 0.5),
        "'2' cannot be split .* its out_proj is not one plain weight",
    ),
    "pruned bias": (
        lambda one, other: prune.random_unstructured(other, "in_proj_bias", 0.5),
        "'2' cannot be split .* its in_proj_bias is pruned",
    ),
}


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("case", ATTENTIONS)
def test_attention_that_cannot_be_split_is_refused_and_can_be_kept(case):
    change, message = ATTENTIONS[case]
    net = two_attentions(change)
    refused(net, message, compose=["*"])
    wrap(net, Scaffold(rank=2), keep=["1.*", "2.*"])
    assert isinstance(net[0], LottaLinear)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("compose", [[], ["*"]])
def test_attention_with_a_normalised_projection_is_refused_and_can_be_kept(compose):
    net = two_attentions(lambda one, other: nn.utils.weight_norm(one, "in_proj_weight"))
    refused(net, "would still be trained densely: .*1.in_proj_weight_v", compose=compose)
    wrap(net, Scaffold(rank=2), keep=["1.*"])


@pytest.mark.parametrize("layer", [nn.Linear(8, 8), nn.Conv1d(8, 8, 1)])
@pytest.mark.parametrize(
    "change",
    [
        lambda layer: prune.random_unstructured(layer, "bias", 0.5),
        lambda layer: nn.utils.parametrize.register_parametrization(layer, "bias", nn.Tanh()),
    ],
)
def test_layer_with_a_bias_that_is_computed_is_refused_and_can_be_kept(layer, change):
    net = nn.Sequential(nn.Linear(8, 8), copy.deepcopy(layer))
    change(net[1])
    refused(net, "1.weight stands beside a bias that is pruned or parametrized, .*, or name it in keep=")
    wrap(net, Scaffold(rank=2), keep=["1"])


def test_bag_with_sparse_gradients_is_refused_and_can_be_kept_or_frozen():
    net = nn.ModuleList([nn.Linear(8, 8), nn.EmbeddingBag(8, 8, mode="sum", sparse=True)])
    refused(net, "1.weight is in an EmbeddingBag with sparse=True, .*: name it in keep=", compose=["*"])
    wrap(copy.deepcopy(net), Scaffold(rank=2), keep=["1"])
    wrap(net, Scaffold(rank=2), freeze=["1"], compose=["*"])
    assert net[1](torch.tensor([[0, 1]])).shape == (1, 8)


class Slots(nn.Linear):
    __slots__ = ("foo",)


def test_layer_with_slots_is_refused_and_can_be_kept():
    net = nn.Sequential(nn.Linear(8, 8), Slots(8, 8))
    refused(net, r"Module '1' \(Slots\) cannot become another class in place .*: name it in keep=")
    wrap(net, Scaffold(rank=2), keep=["1"])


SCRIPTED = {
    "script": lambda inner: torch.jit.script(inner),
    "trace": lambda inner: torch.jit.trace(inner, torch.ones(1, 8)),
}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", SCRIPTED)
def test_scripted_modules_without_a_matrix_stay(how):
    net = nn.Sequential(nn.Linear(8, 8), SCRIPTED[how](nn.Sequential(nn.ReLU(), nn.LayerNorm(8))))
    account = wrap(net, Scaffold(rank=2))
    net(torch.randn(3, 8)).sum().backward()
    assert account.trainable == sum(p.numel() for p in net.parameters()) == 2 * 16 + 1 + 8 + 16


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", SCRIPTED)
def test_scripted_vector_cannot_be_frozen(how):
    net = nn.Sequential(nn.Linear(8, 8), SCRIPTED[how](nn.Sequential(nn.LayerNorm(8))))
    refused(
        net, "1.0.weight is in a scripted or traced module, which .*: leave it out of freeze=", freeze=["1"]
    )


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("compose", [[], ["*"]])
@pytest.mark.parametrize("how", SCRIPTED)
def test_scripted_matrix_is_refused_and_can_be_kept(how, compose):
    net = nn.Sequential(nn.Linear(8, 8), SCRIPTED[how](nn.Sequential(nn.Linear(8, 8))))
    refused(net, "1.0.weight is in a scripted or traced module, which .*: name it in keep=", compose=compose)
    account = wrap(net, Scaffold(rank=2), keep=["1"])
    assert [entry.place for entry in account.entries] == ["adapt", "keep"]
    net(torch.randn(3, 8)).sum().backward()


class Hundredfold(nn.Linear):
    def __call__(self, x):
        return 100 * super().__call__(x)


def with_another_forward():
    layer = nn.Linear(8, 8)
    old = layer.forward
    layer.forward = lambda x: 100 * old(x)
    return layer


@pytest.mark.parametrize("layer", [lambda: Hundredfold(8, 8), with_another_forward])
def test_layer_that_is_called_in_another_way_is_refused_and_can_be_kept_or_composed(layer):
    torch.manual_seed(0)
    for way in ("keep", "compose"):
        net, x = nn.Sequential(nn.Linear(8, 8, bias=False), layer()), torch.randn(3, 8)
        refused(net, "trained densely: 1.weight .*, with a forward or __call__ of its own.*Name each")
        before = net(x)
        wrap(net, Scaffold(family="learned", rank=2), **{way: ["1"]})
        torch.testing.assert_close(net(x), before)


def test_attention_with_a_forward_of_its_own_is_refused():
    net = nn.Sequential(nn.Linear(8, 8), nn.MultiheadAttention(8, 2))
    old = net[1].forward
    net[1].forward = lambda x: old(x, x, x)
    refused(net, "'1' cannot be split .* its forward is another one than that of its class")


class Asking(nn.Module):
    """Layers with a ReLU after each that is a Linear, by one of several questions."""

    def __init__(self, ask):
        super().__init__()
        self.layers, self.last, self.ask = nn.ModuleList([nn.Linear(8, 8)]), nn.Linear(8, 8), ask

    def forward(self, x):
        for layer in [*self.layers, self.last]:
            x = layer(x)
            if self.is_linear(layer):
                x = x.relu()
        return x


LINEAR = (nn.Linear, nn.Conv2d)


class AskingByInstance(Asking):
    def is_linear(self, layer):
        return isinstance(layer, LINEAR)


class AskingByType(Asking):
    def is_linear(self, layer):
        return type(layer) is nn.Linear


class AskingOfTheLast(Asking):
    def is_linear(self, layer):
        return isinstance(self.last, nn.Conv1d | nn.Linear)


@pytest.mark.parametrize("cls", [AskingByInstance, AskingByType, AskingOfTheLast])
def test_forward_that_asks_whether_a_layer_is_a_linear_is_refused(cls):
    asked = "1.last" if cls is AskingOfTheLast else "1.layers.0"
    net = nn.Sequential(nn.Linear(8, 8), cls(1))
    refused(
        net,
        f"'1' .{cls.__name__}. asks in its forward .* a Linear of torch, and after wrap '{asked}' is none",
    )
    wrap(net, Scaffold(rank=2), keep=["1"])


def test_forward_that_asks_of_a_layer_that_is_kept_is_wrapped():
    net = nn.Sequential(AskingOfTheLast(1))
    wrap(net, Scaffold(rank=2), keep=["0.last"])
    assert isinstance(net[0].layers[0], LottaLinear)


class AskingElse(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(8, 8), nn.ReLU()])

    def forward(self, x):
        for layer in self.layers:
            x = x if isinstance(x, tuple) or isinstance(layer, nn.ReLU) else layer(x)
        return x if type(x) is torch.Tensor else x[0]


def test_forward_that_asks_something_else_is_wrapped():
    net = AskingElse()
    wrap(net, Scaffold(rank=2))
    assert isinstance(net.layers[0], LottaLinear)


def test_forward_that_was_written_by_torch_fx_is_wrapped():
    net = torch.fx.symbolic_trace(nn.Sequential(nn.Linear(8, 8), nn.ReLU()))
    wrap(net, Scaffold(rank=2))
    net(torch.randn(3, 8)).sum().backward()
    assert isinstance(net.get_submodule("0"), LottaLinear)


def test_gps_layer_of_pyg_is_refused_since_it_would_skip_its_attention():
    from torch_geometric.nn import GPSConv

    net = nn.Sequential(GPSConv(8, None, heads=2))
    refused(
        net,
        r"'0' \(GPSConv\) asks .* a MultiheadAttention of torch, and after wrap '0.attn' is none",
    )
    wrap(net, Scaffold(rank=2), keep=["0.attn"])
    net[0](torch.randn(3, 8), None).sum().backward()
    assert all(p.grad is not None for p in net[0].attn.parameters())


def hooked(net):
    net["a"].weight.register_hook(lambda gradient: 0 * gradient)


def hooked_after(net):
    net["b"].in_proj_bias.register_post_accumulate_grad_hook(lambda parameter: None)


def transposed(net):
    net["c"].weight = nn.Parameter(net["a"].weight.data.T)


def row_as_bias(net):
    net["c"].bias = nn.Parameter(net["a"].weight.data[-1])


def in_a_list(net):
    net["c"].weights = [net["a"].weight]


def in_a_dict(net):
    net.weights = {"b": net["b"].in_proj_weight}


def as_an_attribute(net):
    vars(net["c"])["other"] = net["b"].out_proj.weight


def as_a_buffer(net):
    net["c"].register_buffer("w", net["a"].weight.detach(), persistent=False)


def as_a_transposed_view(net):
    net.turned = net["a"].weight.detach().t()


def as_a_row(net):
    net["c"].row = net["b"].in_proj_weight[3].detach()


def in_a_partial(net):
    net.project = functools.partial(F.linear, weight=net["a"].weight)


def in_lists_of_lists(net):
    net.groups = [("a", {"weights": [net["a"].weight]})]
    net.groups.append(net.groups)


def in_a_dict_of_views(net):
    net.start = net.state_dict()


HOLDING = {
    hooked: "a.weight has a hook on its gradient, and after wrap it has no gradient: remove the hook",
    hooked_after: "b.in_proj_bias has a hook on its gradient",
    transposed: "a.weight shares memory with c.weight: make them one parameter",
    row_as_bias: "a.weight shares memory with c.bias",
    in_a_list: "a.weight is also in c.weights: take it out before wrap, or name its layer in keep=",
    in_a_dict: "b.in_proj_weight is also in weights: ",
    as_an_attribute: "b.out_proj.weight is also in c.other: ",
    as_a_buffer: "a.weight shares memory with c.w: take that out before wrap, or name its layer in keep=",
    as_a_transposed_view: "a.weight shares memory with turned: ",
    as_a_row: "b.in_proj_weight shares memory with c.row: ",
    in_a_partial: "a.weight is also in project: ",
    in_lists_of_lists: "a.weight is also in groups: ",
    in_a_dict_of_views: "a.weight shares memory with start: ",
}


@pytest.mark.parametrize("device", ["cpu", "meta"])
@pytest.mark.parametrize("hold", HOLDING)
def test_weight_that_something_else_holds_is_refused(hold, device):
    layers = {"a": nn.Linear(8, 8), "b": nn.MultiheadAttention(8, 2), "c": nn.Linear(8, 8)}
    net = nn.ModuleDict(layers).to(device)
    hold(net)
    refused(net, HOLDING[hold])
    held = ["a", "b.*", "c"] if hold is in_a_dict_of_views else ["a", "c"]
    net["d"] = nn.Linear(8, 8, device=device)
    wrap(net, Scaffold(rank=2), keep=[nn.MultiheadAttention, "a"] if "b." in HOLDING[hold] else held)


def test_parameters_that_lie_side_by_side_in_one_storage_are_wrapped():
    net = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8), nn.GRU(8, 8)])
    whole = torch.randn(sum(p.numel() for p in net.parameters()))
    for p, part in zip(net.parameters(), whole.split([p.numel() for p in net.parameters()]), strict=True):
        p.data = part.view(p.shape)
    wrap(net, Scaffold(rank=2), compose=["*"])
    assert isinstance(net[1], LottaLinear)


def with_a_bias(make, bias):
    net = nn.Sequential(nn.MultiheadAttention(8, 2), make())
    net[1].bias = bias
    return net


@pytest.mark.parametrize("make", [lambda: nn.Linear(8, 4), lambda: nn.Conv1d(8, 4, 1)])
@pytest.mark.parametrize("how", [{}, {"freeze": ["1"]}])
def test_layer_with_a_bias_of_another_length_is_refused_before_anything_is_changed(make, how):
    net = with_a_bias(make, nn.Parameter(torch.zeros(1)))
    refused(net, r"1.weight stands beside a bias of shape \(1,\), .* \(4,\): name it in keep=", **how)
    wrap(net, Scaffold(rank=2), keep=["1"])


def test_family_without_a_distribution_for_a_shape_is_refused_before_anything_is_changed(monkeypatch):
    def square(shape):
        return FAMILIES["normal"].distribution((shape[0], {shape[0]: shape[0]}[shape[1]]))

    monkeypatch.setitem(FAMILIES, "square", Family("square", square, True))
    net = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 4))
    refused(
        net, r"1.weight: init family 'square' has no distribution for the shape \(4, 8\)", family="square"
    )
    wrap(net, Scaffold(rank=2, family="square"), keep=["1"])


class Named(nn.Linear):
    """A layer with attributes and children of its own."""

    def __init__(self, **own):
        super().__init__(8, 8)
        for name, value in own.items():
            setattr(self, name, value)


@pytest.mark.parametrize("name", ["fused", "norm", "source", "adapter", "A", "check", "transposed", "_lost"])
@pytest.mark.parametrize("value", [lambda: False, lambda: nn.LayerNorm(8)], ids=["attribute", "child"])
def test_layer_with_an_attribute_or_a_child_of_a_name_of_ours_is_refused_and_can_be_kept(name, value):
    net = nn.Sequential(nn.Linear(8, 8), Named(**{name: value()}))
    refused(net, f"1.weight is in a layer with an attribute '{name}', .*: name it in keep=")
    wrap(net, Scaffold(rank=2), keep=["1"])
    assert hasattr(net[1], name)


@pytest.mark.parametrize("make", [nn.Linear, nn.Embedding, lambda *sizes: nn.Conv2d(*sizes, 1)])
def test_every_attribute_of_a_layer_of_ours_is_refused_in_the_one_that_it_replaces(make):
    net = nn.Sequential(make(8, 8), nn.Linear(8, 8))
    before, freeze = vars(net[0]).keys(), [nn.Embedding] if make is nn.Embedding else []
    wrap(net, Scaffold(rank=2), freeze=freeze)
    for name in vars(net[0]).keys() - before:
        other = nn.Sequential(make(8, 8), nn.Linear(8, 8))
        setattr(other[0], name, "mine")
        refused(other, f"an attribute '{name}'", freeze=freeze)


def test_table_of_short_rows_that_a_layer_without_reads_is_refused_and_can_be_kept():
    net = nn.ModuleList([nn.Embedding(8, 8, max_norm=0.5), nn.Linear(8, 8), nn.Linear(8, 8)])
    net[1].weight = net[0].weight
    refused(net, "0.weight is in an embedding with max_norm, .*: name it in keep=", compose=["*"])
    wrap(net, Scaffold(rank=2), keep=["0"])


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_what_a_module_holds_besides_its_weights_does_not_keep_it_from_being_wrapped():
    net = nn.ModuleList([nn.Linear(8, 8), nn.utils.spectral_norm(nn.Linear(8, 8)), nn.LSTM(8, 8)])
    net.data = [list(range(100)) for _ in range(1000)]
    net.index = torch.eye(8).to_sparse()
    net.register_buffer("copied", net[0].weight.detach().clone())
    net.forward_like = functools.partial(F.linear, weight=net[0].bias)
    wrap(net, Scaffold(rank=2), compose=["*"])
    assert isinstance(net[0], LottaLinear)


@pytest.mark.parametrize("option", [{"dropout": 0.1}, {"layer_norm": True}], ids=["dropout", "layer_norm"])
@pytest.mark.parametrize("layer", [nn.Linear, lambda *sizes, **how: nn.Conv1d(*sizes, 1, **how)])
def test_option_that_complex_numbers_do_not_have_is_refused_and_the_layer_can_be_kept(layer, option):
    net = nn.ModuleList([nn.Linear(8, 8), layer(8, 8, dtype=torch.complex64)])
    name = next(iter(option))
    before = list(net.parameters())
    with pytest.raises(ValueError, match=f"{name} is for real numbers, and 1.weight is complex64: leave out"):
        wrap(net, Scaffold(rank=2, **option))
    assert all(one is other for one, other in zip(net.parameters(), before, strict=True))
    wrap(net, Scaffold(rank=2, **option), keep=["1"])
    assert isinstance(net[0], LottaLinear)


@pytest.mark.parametrize("option", [{"dropout": 0.1, "rank": 0}, {"dora": True}, {"residual": True}])
def test_complex_layers_take_the_other_options(option):
    net, x = nn.Sequential(nn.Linear(8, 8, dtype=torch.complex64)), torch.randn(3, 8, dtype=torch.complex64)
    wrap(net, Scaffold(**{"rank": 2, **option}))
    net(x).abs().sum().backward()
    assert net[0].beta.grad is not None
