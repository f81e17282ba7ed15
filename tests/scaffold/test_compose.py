"""Composed weights: any module computes with β W_seed + s B A in place of its parameter."""

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lottalora.scaffold import LottaLinear
from lottalora.scaffold import LottaWeight
from lottalora.scaffold import Scaffold
from lottalora.scaffold import Source
from lottalora.scaffold import beta_values
from lottalora.scaffold import draw
from lottalora.scaffold import materialize
from lottalora.scaffold import register_layer
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import verify
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap
from lottalora.scaffold.layers.compose import composed_weights
from lottalora.scaffold.layers.composed_weight import Layout
from lottalora.scaffold.layers.dense import exact_weight
from lottalora.scaffold.whole_model.backbone import scaffold_layers

SCAFFOLD = Scaffold(rank=2, seed=3, B_init="kaiming")


class Experts(nn.Module):
    """Three expert matrices, and a position table."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 5, 4))
        self.position = nn.Parameter(torch.randn(1, 6, 4))
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x):
        return torch.einsum("ntd,eod->nteo", x + self.position + self.token, self.up)


class Shifted(nn.Embedding):
    """An embedding with a forward of its own, as transformers' position embeddings are."""

    def forward(self, index):
        return super().forward(index + 1) * 2


def sequence():
    return torch.randn(2, 6, 4)


def index():
    return torch.tensor([[1, 2, 0], [4, 0, 3]])


CASES = {
    "gru": (lambda: nn.GRU(4, 5, 2, bidirectional=True, batch_first=True), lambda: (sequence(),)),
    "lstm": (lambda: nn.LSTM(4, 5, proj_size=3), lambda: (sequence(),)),
    "gru cell": (lambda: nn.GRUCell(4, 5), lambda: (torch.randn(2, 4), torch.randn(2, 5))),
    "bilinear": (lambda: nn.Bilinear(3, 4, 5), lambda: (torch.randn(2, 3), torch.randn(2, 4))),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), lambda: (torch.randn(2, 4, 5, 5),)),
    "bag": (lambda: nn.EmbeddingBag(7, 4), lambda: (index(),)),
    "embedding": (lambda: nn.Embedding(7, 4, padding_idx=0), lambda: (index(),)),
    "small rows": (lambda: nn.Embedding(7, 4, max_norm=0.5), lambda: (index(),)),
    "one row": (lambda: nn.Embedding(1, 4), lambda: (torch.zeros(2, 3, dtype=torch.long),)),
    "shifted": (lambda: Shifted(7, 4), lambda: (index(),)),
    "weight norm": (
        lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(6, 4, 3)),
        lambda: (sequence(),),
    ),
    "experts": (Experts, lambda: (sequence(),)),
}
PICKLED = sorted(set(CASES) - {"weight norm"})  # PyTorch refuses to pickle what is parametrized


def case(name, scaffold=SCAFFOLD):
    torch.manual_seed(0)
    make, inputs = CASES[name]
    net, x = make(), inputs()
    account = wrap(net, scaffold, compose=["*"])
    return net, x, account


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("name", CASES)
def test_module_computes_as_its_class_does_with_the_composed_weights(name):
    net, x, _ = case(name)
    torch.manual_seed(0)
    plain = CASES[name][0]()
    state = plain.state_dict()
    for path, module in net.named_modules():
        for attribute in composed_weights(module):
            state[f"{path}.{attribute}".lstrip(".")] = getattr(module, attribute).detach()
    plain.load_state_dict(state)
    torch.testing.assert_close(first(net(*x)), first(plain(*x)))


@pytest.mark.parametrize("make", [nn.Conv1d, nn.ConvTranspose1d])
def test_parametrized_kernel_is_one_matrix_as_the_kernel_is(make):
    plain, normed = make(6, 4, 3), nn.utils.parametrizations.weight_norm(make(6, 4, 3))
    shapes = []
    for net, pattern in ((plain, "weight"), (normed, "*.original1")):
        wrap(holder := nn.Sequential(net), SCAFFOLD, compose=[f"0.{pattern}"])
        shapes.append([tuple(layer.W_seed.shape) for layer in scaffold_layers(holder).values()])
    assert shapes[0] == shapes[1] == [(4, 18)]


@pytest.mark.parametrize("name", CASES)
def test_every_trained_parameter_gets_a_gradient_and_none_is_a_dense_matrix(name):
    net, x, account = case(name)
    first(net(*x)).square().sum().backward()
    assert [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []
    ours = {id(p) for m in net.modules() if isinstance(m, LottaWeight) for p in m.parameters()}
    others = [p for p in net.parameters() if id(p) not in ours]
    assert all(sum(n > 1 for n in p.shape) <= 1 for p in others)
    assert account.trainable == sum(p.numel() for p in net.parameters())
    frozen = sum(entry.frozen for entry in account.entries) + account.vectors_frozen
    assert account.full + account.internal_trainable == account.trainable + frozen


@pytest.mark.parametrize("name", PICKLED)
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_copy_computes_the_same_and_shares_nothing(name, copied):
    net, x, _ = case(name)
    twin = copied(net)
    assert type(twin) is type(net) and isinstance(twin, CASES[name][0]().__class__)
    torch.testing.assert_close(first(twin(*x)), first(net(*x)))
    before = first(net(*x)).detach().clone()
    with torch.no_grad():
        for p in twin.parameters():
            p.add_(1)
    assert torch.equal(first(net(*x)), before) and not torch.equal(first(twin(*x)), before)


@pytest.mark.parametrize("name", CASES)
def test_functional_call_and_state_reach_the_composed_parts(name):
    net, x, _ = case(name)
    changed = {n: p.detach() + 0.1 for n, p in net.named_parameters()}
    expected = first(torch.func.functional_call(net, changed, x))
    assert not torch.allclose(first(net(*x)), expected)
    net.load_state_dict(changed, strict=False)
    torch.testing.assert_close(first(net(*x)), expected)


@pytest.mark.parametrize("name", CASES)
def test_what_moves_the_scaffold_moves_composed_weights(name):
    net, x, _ = case(name)
    before = first(net(*x)).detach()
    with without_scaffold(net):
        assert not torch.allclose(first(net(*x)), before)
    set_backbone_seed(net, 4)
    assert not torch.allclose(first(net(*x)), before)
    set_backbone_seed(net, 3)
    assert torch.equal(first(net(*x)), before)


def test_meta_model_is_materialised_with_the_drawn_weights():
    with torch.device("meta"):
        net = nn.GRU(4, 5)
    wrap(net, SCAFFOLD, compose=[nn.GRU])
    materialize(net)
    twin = nn.GRU(4, 5)
    wrap(twin, SCAFFOLD, compose=[nn.GRU])
    for name, weight in composed_weights(net).items():
        assert torch.equal(weight.W_seed, composed_weights(twin)[name].W_seed)
        assert weight.beta == 1 and weight.A.abs().max() <= 1 / weight.A.shape[1] ** 0.5


def test_container_with_a_composed_parameter_still_has_its_items_alone():
    class Scaled(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, 4), nn.ReLU())
            self.mix = nn.Parameter(torch.randn(4, 4))

    net = Scaled()
    wrap(net, SCAFFOLD, compose=["mix"])
    assert len(net) == 2 and [type(m) for m in net] == [LottaLinear, nn.ReLU] and net[-1] is net[1]
    assert net(torch.randn(2, 4)).shape == (2, 4)
    assert net.mix.shape == (4, 4)


def test_stack_has_an_adapter_and_a_beta_for_each_matrix():
    net, _, account = case("experts")
    up = composed_weights(net)["up"]
    with torch.no_grad():
        up.beta.copy_(torch.tensor([1.0, 2.0, 3.0]))
    W, A, B = up.W_seed.view(3, 5, 4), up.A.view(3, 2, 4), up.B.view(3, 5, 2)
    expected = torch.stack([(i + 1) * W[i] + B[i] @ A[i] for i in range(3)])
    torch.testing.assert_close(net.up, expected)
    assert account.entries[0].trained == 3 * (2 * (5 + 4) + 1)
    assert beta_values(net)["composed_up[2]"] == 3
    assert account.entries[1].shape == (1, 6, 4) and composed_weights(net)["position"].W_seed.shape == (6, 4)


def test_each_matrix_of_a_stack_has_the_law_of_its_family():
    W = draw(Source(0, "experts", (12, 8), "orthogonal", stack=3)).view(3, 4, 8)
    torch.testing.assert_close(W @ W.mT, torch.eye(4).expand(3, 4, 4), atol=1e-5, rtol=0)
    whole = Source(0, "experts", (12, 8), "xavier_normal", stack=3)
    one = Source(0, "experts", (4, 8), "xavier_normal")
    assert abs(draw(whole).std() / draw(one).std() - 1) < 0.5
    assert torch.equal(draw(whole, (5, 9)), draw(whole)[5:9])


def test_kernel_of_a_transposed_convolution_is_one_row_for_each_output():
    owner = nn.ConvTranspose1d(4, 6, 3, groups=2)
    kernel = torch.randn(4, 3, 3)  # (in, out / groups, k)
    layout = Layout.of(owner, kernel)
    matrix = layout.to_matrix(kernel)
    assert matrix.shape == (6, 2 * 3)
    assert torch.equal(matrix[4], kernel[2:, 1].flatten())  # output 4 is number 1 of the second group
    assert torch.equal(layout.to_tensor(matrix), kernel)


def test_embedding_looks_up_rows_of_the_weight_it_stands_for():
    net, (x,), _ = case("embedding")
    assert isinstance(net, nn.Embedding) and net.weight[0].abs().sum() == 0
    torch.testing.assert_close(net(x), F.embedding(x, net.weight))
    set_backbone_seed(net, 9)
    net(x).square().sum().backward()
    assert net.weight[0].abs().sum() == 0 and composed_weights(net)["weight"].B.grad[0].abs().sum() == 0


def test_embedding_shares_its_adapter_with_a_tied_head():
    net = nn.ModuleDict({"embed": nn.Embedding(7, 4), "head": nn.Linear(4, 7, bias=False)})
    net["head"].weight = net["embed"].weight
    account = wrap(net, SCAFFOLD, compose=[nn.Embedding])
    assert isinstance(net["head"], LottaLinear) and len(account.entries) == 1
    assert net["head"].B is composed_weights(net["embed"])["weight"].B
    torch.testing.assert_close(net["head"].weight, net["embed"].weight)
    assert account.trainable == sum(p.numel() for p in net.parameters()) == 2 * (7 + 4) + 1


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize(
    "options",
    [{"padding_idx": 0}, {"scale_grad_by_freq": True}, {"padding_idx": 4, "scale_grad_by_freq": True}],
)
def test_gradients_of_looked_up_rows_are_those_of_the_table_they_come_from(options, dora):
    torch.manual_seed(0)
    net, rows = nn.Embedding(7, 4, **options).double(), torch.tensor([0, 1, 2, 2, 0, 4])
    wrap(net, Scaffold(rank=2, family="uniform", dora=dora, B_init="kaiming"), compose=["weight"])
    weight = composed_weights(net)["weight"]
    with torch.no_grad():  # as after a step: a tied head trains the row of the padding too
        weight.B += torch.randn_like(weight.B)
    trained = [p for p in net.parameters() if p.requires_grad]
    table = weight.weight + 0
    padding, by_frequency = net.padding_idx, net.scale_grad_by_freq
    expected = F.embedding(rows, table, padding, scale_grad_by_freq=by_frequency)
    torch.testing.assert_close(net(rows), expected, rtol=1e-12, atol=0)
    dh = torch.randn_like(expected)
    found = torch.autograd.grad(net(rows), trained, dh)
    torch.testing.assert_close(found, torch.autograd.grad(expected, trained, dh), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rows_that_are_looked_up_often_are_counted_in_half_precision_too(dtype):
    net = nn.Embedding(4, 3, scale_grad_by_freq=True).to(dtype)
    wrap(net, SCAFFOLD, compose=["*"])
    h, row = net(torch.ones(5000, dtype=torch.long)), composed_weights(net)["weight"].W_seed[1]
    h.backward(row.sign().expand_as(h))  # so that dβ is a sum without cancellation
    beta = composed_weights(net)["weight"].beta
    torch.testing.assert_close(beta.grad, row.float().abs().sum(), rtol=0.05, atol=0)


@pytest.mark.parametrize("paddings", [(1, None), (None, 1), (1, 2)])
def test_tied_embeddings_have_the_padding_row_of_their_own_each(paddings):
    net = nn.ModuleList(nn.Embedding(7, 4, padding_idx=padding) for padding in paddings).double()
    net[1].weight = net[0].weight
    wrap(net, SCAFFOLD, compose=["*"])
    rows, trained = torch.tensor([0, 1, 2, 2]), list(net.parameters())
    table = net[0].weight + 0
    for embedding, padding in zip(net, paddings, strict=True):
        found, expected = embedding(rows), F.embedding(rows, table, padding)
        dh = torch.randn_like(expected)
        found, expected = (torch.autograd.grad(h, trained, dh, retain_graph=True) for h in (found, expected))
        torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("options", [({"padding_idx": 1}, {"padding_idx": 2}), ({"max_norm": 0.5}, {})])
def test_tied_embeddings_that_are_no_one_table_are_frozen_by_composing(options):
    net = nn.ModuleList(nn.Embedding(7, 4, **own) for own in options)
    net[1].weight, net.head = net[0].weight, nn.Linear(4, 4)
    with pytest.raises(ValueError, match="trained densely: 0.weight"):
        wrap(net, SCAFFOLD, freeze=[nn.Embedding])
    wrap(net, SCAFFOLD, freeze=[nn.Embedding], compose=["*"])
    assert verify(net) == [] and not list(net[0].parameters())


def test_keep_and_freeze_win_over_compose():
    net = nn.ModuleDict({"a": nn.GRU(3, 4), "b": nn.GRUCell(3, 4), "c": nn.Linear(3, 3)})
    account = wrap(net, SCAFFOLD, keep=["a"], freeze=[nn.GRUCell], compose=["*"])
    assert [entry.place for entry in account.entries] == ["keep", "keep", "freeze", "freeze", "adapt"]
    assert type(net["a"]) is nn.GRU
    assert list(net["b"].parameters()) == []  # freeze names the biases too
    assert torch.equal(net["b"].weight_ih, draw(Source(3, "b.weight_ih", (12, 3))))


def test_classes_are_patterns_and_cover_subclasses():
    net = nn.ModuleDict({"embed": Shifted(7, 4), "fc": nn.Linear(4, 4)})
    account = wrap(net, SCAFFOLD, keep=[nn.Embedding])
    assert {entry.name: entry.place for entry in account.entries} == {
        "embed.weight": "keep",
        "fc.weight": "adapt",
    }


def test_literal_name_wins_over_its_reading_as_a_pattern():
    net = nn.ModuleDict({"w[0]": nn.Linear(3, 3), "w0": nn.Linear(3, 3)})
    account = wrap(net, SCAFFOLD, keep=["w[0]"])
    assert {e.name: e.place for e in account.entries} == {"w[0].weight": "keep", "w0.weight": "adapt"}


def test_literal_name_wins_over_patterns_of_the_other_kind():
    net = nn.ModuleDict({"a": nn.Linear(3, 3), "b": nn.Linear(3, 3)})
    account = wrap(net, SCAFFOLD, freeze=["*"], keep=["b"])
    assert [entry.place for entry in account.entries] == ["freeze", "keep"]


def test_vector_in_disguise_stays_trained_and_narrow_layer_is_a_matrix():
    net = nn.ModuleDict({"experts": Experts(), "out": nn.Linear(8, 1)})
    account = wrap(net, SCAFFOLD, compose=["*"])
    assert isinstance(net["experts"].token, nn.Parameter) and isinstance(net["out"], LottaLinear)
    assert account.vectors_trained == 4 + 1  # the token, and the bias of `out`


def test_vector_in_disguise_that_is_tied_to_a_narrow_layer_is_its_matrix():
    net = nn.Sequential(nn.Linear(4, 1, bias=False), nn.Linear(1, 4))
    net.row = net[0].weight  # (1, 4)
    with pytest.raises(ValueError, match="trained densely: row"):
        wrap(net, SCAFFOLD)
    account = wrap(net, SCAFFOLD, compose=["row"])
    assert [entry.name for entry in account.entries] == ["row", "1.weight"]
    torch.testing.assert_close(net.row, net[0].weight)
    net.row.sum().backward()
    assert net[0].B.grad is not None and account.trainable == sum(p.numel() for p in net.parameters())


def test_constant_of_the_model_stays_as_it_is():
    net = Experts()
    net.position.requires_grad_(False)
    sines = net.position.clone()
    account = wrap(net, SCAFFOLD, compose=["*"])
    assert torch.equal(net.position, sines)
    entry = account.entries[1]
    assert (entry.place, entry.trained, entry.frozen) == ("keep", 0, 24) and "a constant" in entry.note
    assert account.trainable == sum(p.numel() for p in net.parameters() if p.requires_grad)


def test_registered_class_is_adapted_as_the_layer_that_it_is():
    class Cast(nn.Linear):
        def forward(self, x):
            return F.linear(x.to(self.weight.dtype), self.weight, self.bias)

    with pytest.raises(ValueError, match="trained densely: 0.weight"):
        wrap(nn.Sequential(Cast(3, 4)), SCAFFOLD)
    register_layer(Cast, "linear")
    net = nn.Sequential(Cast(3, 4))
    wrap(net, SCAFFOLD)
    assert isinstance(net[0], LottaLinear)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"compose": ["fc.bias"]}, "compose='fc.bias' names no matrix: fc.bias has one axis that counts"),
        ({"compose": [nn.LayerNorm]}, "compose=nn.LayerNorm names no matrix"),
        ({"compose": [nn.LSTM]}, "compose=nn.LSTM names no weight of this model. Modules: fc, norm, gru"),
        ({"keep": [nn.Embedding], "compose": ["*"]}, "keep=nn.Embedding names no weight"),
        (
            {"compose": nn.GRU},
            r"takes a list of patterns, got the class nn.GRU: write compose=\[nn.GRU\]",
        ),
        ({"keep": [3]}, "keep takes names, shell patterns and classes of nn.Module, got 3"),
        ({}, r"gru.weight_ih_l0, gru.weight_hh_l0 \(GRU\). Name each .*, for example compose=\[nn.GRU\]"),
    ],
)
def test_what_makes_no_sense_is_refused_and_the_model_is_as_before(arguments, message):
    net = nn.ModuleDict({"fc": nn.Linear(3, 3), "norm": nn.LayerNorm(3), "gru": nn.GRU(3, 4)})
    before = {name: type(module) for name, module in net.named_modules()}
    with pytest.raises(ValueError, match=message):
        wrap(net, SCAFFOLD, **arguments)
    assert {name: type(module) for name, module in net.named_modules()} == before


def test_models_on_scaffolds_are_stacked_and_mapped():
    nets = [nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)) for _ in range(3)]
    for seed, net in enumerate(nets):
        wrap(net, Scaffold(rank=2, seed=seed, B_init="kaiming"))
    x = torch.randn(5, 4)
    parameters, buffers = torch.func.stack_module_state(nets)
    both = torch.vmap(lambda p, b: torch.func.functional_call(nets[0], (p, b), (x,)))(parameters, buffers)
    torch.testing.assert_close(both, torch.stack([net(x) for net in nets]))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("block", ["mlp", "transformer", "composed"])
def test_model_compiles_without_a_graph_break(block):
    torch.manual_seed(0)
    net = {
        "mlp": lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)),
        "transformer": lambda: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
        "composed": Experts,
    }[block]()
    wrap(net, SCAFFOLD, compose=["*"])
    x = sequence()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), net(x))


@pytest.mark.parametrize("options", [{}, {"dora": True}])
@pytest.mark.parametrize("make", [lambda: nn.Embedding(7, 4), lambda: nn.Embedding(7, 4, max_norm=0.5)])
def test_rows_of_a_half_precision_table_have_its_dtype(make, options):
    net = nn.Sequential(make(), nn.Linear(4, 4))
    wrap(net, Scaffold(rank=2, **options), compose=["*"])
    net.bfloat16()
    assert net[0](index()).dtype is net(index()).dtype is torch.bfloat16


def test_products_of_narrow_adapters_are_computed_as_wide_as_the_weight():
    torch.manual_seed(0)
    net = nn.ModuleList(
        [nn.Linear(16, 16), nn.Conv2d(16, 16, 3), nn.Embedding(9, 16), nn.GRUCell(16, 5), Experts()]
    )
    wrap(net, Scaffold(rank=8, adapter_dtype="bfloat16", B_init="kaiming"), compose=["*"])
    for layer in scaffold_layers(net).values():
        expected = exact_weight(layer).float()
        torch.testing.assert_close(layer.weight.detach() + 0, expected, rtol=1e-5, atol=1e-6)
    rows = net[2](torch.arange(9))
    torch.testing.assert_close(rows, net[2].weight + 0, rtol=1e-5, atol=1e-6)


class InTurn(nn.Module):
    """Calls all its children, and has a weight of its own."""

    def __init__(self):
        super().__init__()
        self.layer, self.w = nn.Linear(4, 4), nn.Parameter(torch.randn(4, 4))

    def forward(self, x):
        for child in self.children():
            x = child(x)
        return x @ self.w.T


def test_forward_that_calls_the_composed_weight_as_a_child_is_told_so():
    net = InTurn()
    wrap(net, SCAFFOLD, compose=["*"])
    with pytest.raises(ValueError, match=r"a forward that calls all of self.children\(\) calls it too"):
        net(torch.randn(2, 4))
    wrap(net := InTurn(), SCAFFOLD, keep=["w"])
    assert net(torch.randn(2, 4)).shape == (2, 4)
