"""wrap: no weight is forgotten, and the model stays the model."""

import copy
import io
import json

import pytest
import torch
from torch import nn

from lottalora.scaffold import Account
from lottalora.scaffold import LottaConv2d
from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import Source
from lottalora.scaffold import draw
from lottalora.scaffold import wrap


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(6, 12)
        self.fc2 = nn.Linear(12, 6)
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(x + self.fc2(self.fc1(x).relu()))


class Network(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(10, 6, padding_idx=0)
        self.blocks = nn.Sequential(Block(), Block())
        self.head = nn.Linear(6, 3)

    def forward(self, index):
        return self.head(self.blocks(self.embed(index)))


INDEX = torch.tensor([[1, 2, 0], [4, 9, 3]])
KEEP = ["embed", "head"]


def network(scaffold=None, keep=KEEP, freeze=()):
    torch.manual_seed(0)
    net = Network()
    return net, wrap(net, scaffold or Scaffold(rank=2, seed=5), keep=keep, freeze=freeze)


def places(account):
    return {entry.name: entry.place for entry in account.entries}


def test_every_matrix_is_adapted_frozen_or_kept():
    _, account = network(keep=["head"], freeze=["embed", "*.fc2"])
    assert places(account) == {
        "embed.weight": "freeze",
        "blocks.0.fc1.weight": "adapt",
        "blocks.0.fc2.weight": "freeze",
        "blocks.1.fc1.weight": "adapt",
        "blocks.1.fc2.weight": "freeze",
        "head.weight": "keep",
    }


def test_account_counts_what_the_optimizer_gets():
    net, account = network()
    assert account.trainable == sum(p.numel() for p in net.parameters())
    assert account.full == sum(p.numel() for p in Network().parameters())
    assert account.internal_trainable == 4 * (2 * (6 + 12) + 1)  # four matrices: r (in + out) + β
    assert account.full_plus_adapters == account.full + account.internal_trainable


@pytest.mark.parametrize("bias", ["trained", "frozen"])
@pytest.mark.parametrize("options", [{}, {"dora": True}, {"layer_norm": True}, {"rank": 0}])
def test_account_adds_up_for_every_option(options, bias):
    net, account = network(Scaffold(bias=bias, **options), keep=["head"], freeze=["embed", "blocks.1"])
    assert account.trainable == sum(p.numel() for p in net.parameters())
    frozen = sum(entry.frozen for entry in account.entries) + account.vectors_frozen
    assert account.full + account.internal_trainable == account.trainable + frozen


def test_each_trained_parameter_gets_a_gradient():
    net, _ = network(Scaffold(rank=2, B_init="kaiming"))
    net(INDEX).square().sum().backward()
    without = [name for name, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0]
    assert without == []


def test_layer_holds_the_draw_of_its_own_name():
    net, _ = network()
    for name in ("blocks.0.fc1", "blocks.1.fc1"):
        layer = net.get_submodule(name)
        assert torch.equal(layer.W_seed, draw(Source(5, name, (12, 6))))


def test_frozen_layers_train_nothing():
    net, _ = network(keep=["head"], freeze=["embed", "blocks"])
    assert [name for name, _ in net.named_parameters()] == ["head.weight", "head.bias"]
    assert torch.equal(net(INDEX), net(INDEX))


def test_frozen_embedding_keeps_its_padding_at_zero():
    net, _ = network(keep=["head"], freeze=["embed"])
    assert net.embed(torch.tensor([0])).abs().sum() == 0
    assert net.embed(torch.tensor([1])).abs().sum() > 0


def test_frozen_vectors_keep_their_value_and_stay_in_the_state():
    net, account = network(freeze=["*.norm"])
    assert torch.equal(net.state_dict()["blocks.0.norm.weight"], torch.ones(6))
    assert account.vectors_frozen == 4 * 6


def test_bias_of_an_adapted_layer_is_frozen_by_its_name_alone():
    torch.manual_seed(0)
    before = Network().blocks[0].fc1.bias
    net, account = network(Scaffold(bias="trained"), freeze=["blocks.0.fc1.bias"])
    _, trained = network(Scaffold(bias="trained"))
    assert torch.equal(net.blocks[0].fc1.bias, before)
    assert "blocks.0.fc1.bias" in net.state_dict()
    assert "blocks.0.fc1.bias" not in dict(net.named_parameters())
    assert "blocks.0.fc2.bias" in dict(net.named_parameters())
    assert account.vectors_trained == trained.vectors_trained - len(before)


PARTS = {
    "in_proj_bias": ["q", "k", "v"],
    "0.attention.in_proj_bias": ["q", "k", "v"],
    "*.in_proj_bias": ["q", "k", "v"],
    "*_proj.bias": ["q", "k", "v", "out"],
    "0.attention.k_proj.bias": ["k"],
}


@pytest.mark.parametrize("pattern", PARTS)
def test_bias_of_an_attention_is_frozen_whole_or_in_part_by_its_name(pattern):
    attention = nn.MultiheadAttention(6, 2)
    net = attention if pattern == "in_proj_bias" else nn.Sequential(nn.ModuleDict({"attention": attention}))
    before = nn.init.normal_(attention.in_proj_bias).clone()
    account = wrap(net, Scaffold(rank=2), freeze=[pattern])
    for each in ("q", "k", "v", "out"):
        bias = attention.get_submodule(f"{each}_proj").bias
        assert isinstance(bias, nn.Parameter) == (each not in PARTS[pattern])
    assert torch.equal(attention.in_proj_bias, before)
    assert account.vectors_frozen == 6 * len(PARTS[pattern])


def test_bias_of_an_attention_that_is_kept_is_frozen_whole_and_its_parts_are_refused():
    net, x = nn.Sequential(nn.Linear(6, 6), nn.MultiheadAttention(6, 2)), torch.randn(3, 2, 6)
    keep = ["*.in_proj_weight", "*.out_proj.weight"]
    with pytest.raises(ValueError, match="freeze='1.q_proj.bias' names no weight of this model"):
        wrap(net, Scaffold(rank=2), keep=keep, freeze=["1.q_proj.bias"])
    before = net[1](x, x, x)[0]
    assert wrap(net, Scaffold(rank=2), keep=keep, freeze=["*.in_proj_bias"]).vectors_frozen == 18
    assert not isinstance(net[1].in_proj_bias, nn.Parameter)
    assert torch.equal(net[1](x, x, x)[0], before)


def test_vector_is_frozen_by_any_name_of_its_module():
    norm = nn.LayerNorm(6)
    net = nn.ModuleDict({"one": norm, "layer": nn.Linear(6, 6), "two": norm})
    assert wrap(net, Scaffold(rank=2), freeze=["two"]).vectors_frozen == 12


def test_further_vector_of_an_adapted_layer_is_frozen_by_its_name():
    net = nn.Sequential(nn.Linear(6, 6))
    net[0].gain = nn.Parameter(torch.ones(6))
    assert wrap(net, Scaffold(rank=2), freeze=["0.gain"]).vectors_frozen == 6
    assert "0.gain" in net.state_dict() and not isinstance(net[0].gain, nn.Parameter)


def test_pattern_of_freeze_leaves_the_normalisation_of_layer_norm_trained():
    net = nn.Sequential(nn.Linear(6, 6))
    account = wrap(net, Scaffold(rank=2, layer_norm=True), freeze=["*.bias"])
    assert account.vectors_frozen == 6
    assert isinstance(net[0].norm.bias, nn.Parameter)


def test_frozen_biases_keep_their_value():
    torch.manual_seed(0)
    before = Network().blocks[0].fc1.bias
    net, _ = network(Scaffold(bias="frozen"))
    assert torch.equal(net.blocks[0].fc1.bias, before)
    assert "blocks.0.fc1.bias" not in dict(net.named_parameters())


@pytest.mark.parametrize("freeze", ["1", "1.bias", "2"])
def test_frozen_vector_that_was_tied_to_a_trained_one_keeps_its_value(freeze):
    net = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6), nn.LayerNorm(6)])
    net[1].bias = net[2].bias = net[0].bias
    wrap(net, Scaffold(rank=2), freeze=[freeze])
    frozen = net[int(freeze[0])].bias
    before = frozen.clone()
    with torch.no_grad():
        net[0].bias.add_(1)
    assert not isinstance(frozen, nn.Parameter) and torch.equal(frozen, before)


def test_state_holds_no_scaffold():
    net, _ = network()
    assert not [key for key in net.state_dict() if "W_seed" in key]


def test_root_module_is_wrapped_where_it_stands():
    net = nn.Linear(4, 3)
    wrap(net, Scaffold(rank=1))
    assert isinstance(net, LottaLinear)
    assert net(torch.randn(2, 4)).shape == (2, 3)


def test_module_used_twice_stays_one_module():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(shared, nn.ReLU(), shared)
    account = wrap(net, Scaffold(rank=1))
    assert net[0] is net[2] and isinstance(net[0], LottaLinear)
    assert len(account.entries) == 1


def test_reference_held_elsewhere_follows():
    net = nn.Sequential(nn.Linear(4, 4))
    held = [net[0]]
    wrap(net, Scaffold(rank=1))
    assert held[0] is net[0] and isinstance(held[0], LottaLinear)


def test_hooks_and_the_training_flag_stay():
    net, calls = nn.Sequential(nn.Linear(4, 4)).eval(), []
    net[0].register_forward_hook(lambda *_: calls.append("called"))
    wrap(net, Scaffold(rank=1))
    net(torch.randn(1, 4))
    assert calls == ["called"] and not net[0].training


def tied(first, second):
    second.weight = first.weight
    return nn.ModuleDict({"first": first, "second": second})


def test_tied_linear_layers_are_adapted_together():
    net = tied(nn.Linear(4, 4), nn.Linear(4, 4))
    account = wrap(net, Scaffold(rank=2))
    assert net["first"].A is net["second"].A
    assert torch.equal(net["first"].weight, net["second"].weight)
    assert net["first"].bias is not net["second"].bias
    assert account.trainable == sum(p.numel() for p in net.parameters())
    assert account.entries[0].note == "tied: second.weight"


def test_weight_tied_to_an_embedding_is_refused_unless_kept():
    with pytest.raises(
        ValueError, match=r"still be trained densely: first.weight \(Embedding\). Name each in keep="
    ):
        wrap(tied(nn.Embedding(4, 4), nn.Linear(4, 4)), Scaffold())
    net = nn.ModuleDict({"tied": tied(nn.Embedding(4, 4), nn.Linear(4, 4)), "fc": nn.Linear(4, 4)})
    wrap(net, Scaffold(), keep=["tied.second"])
    assert net["tied"]["first"].weight is net["tied"]["second"].weight


@pytest.mark.parametrize("family", ["normal", "learned"])
def test_weight_that_a_transposed_layer_reads_too_is_frozen_as_one_or_refused(family):
    from transformers.pytorch_utils import Conv1D

    net, x = nn.Sequential(tied(nn.Linear(4, 4), Conv1D(4, 4)), nn.Linear(4, 4)), torch.randn(3, 4)
    with pytest.raises(ValueError, match="trained densely: 0.first.weight"):
        wrap(net, Scaffold(family=family), freeze=["0"])
    wrap(net, Scaffold(family=family), freeze=["0"], compose=["0"])
    first, second = net[0]["first"], net[0]["second"]
    torch.testing.assert_close(first(x) - first.bias, x @ first.W_seed.T)
    torch.testing.assert_close(second(x) - second.bias, x @ first.W_seed)


def test_weight_tied_to_an_embedding_is_frozen_together():
    net = tied(nn.Embedding(7, 4), nn.Linear(4, 7, bias=False))
    wrap(net, Scaffold(), freeze=["first"])
    assert torch.equal(net["first"].weight, net["second"].weight)
    assert list(net.parameters()) == []


def test_convolutions_are_adapted():
    net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.Conv2d(8, 8, 3, groups=8))
    account = wrap(net, Scaffold(rank=2))
    assert all(isinstance(layer, LottaConv2d) for layer in net)
    assert [entry.trained for entry in account.entries] == [2 * (27 + 8) + 1, 2 * (9 + 8) + 1]


@pytest.mark.parametrize(
    ("module", "names"),
    [
        (nn.GRU(3, 4), "weight_ih_l0, weight_hh_l0"),
        (nn.Embedding(5, 3), "weight"),
        (nn.Bilinear(2, 3, 4), "weight"),
        (nn.ConvTranspose2d(3, 4, 3), "weight"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(3, 4)), "original"),
        (nn.ParameterList([torch.zeros(2, 3)]), "0"),
    ],
)
def test_what_cannot_be_adapted_is_refused_with_the_way_out(module, names):
    net = nn.ModuleDict({"body": nn.Linear(3, 3), "odd": module})
    before = net.state_dict()
    with pytest.raises(
        ValueError, match=r"would still be trained densely: .*Name each in keep= or compose="
    ) as error:
        wrap(net, Scaffold())
    assert all(name in str(error.value) for name in names.split(", "))
    assert type(net["body"]) is nn.Linear and net.state_dict().keys() == before.keys()
    wrap(net, Scaffold(), keep=["odd"])


def test_linear_subclass_with_a_forward_of_its_own_is_refused():
    class Odd(nn.Linear):
        def forward(self, x):
            return super().forward(x) ** 2

    with pytest.raises(ValueError, match="trained densely: 0.weight"):
        wrap(nn.Sequential(Odd(3, 3)), Scaffold())


def test_rnn_cannot_be_frozen_either():
    with pytest.raises(ValueError, match="trained densely"):
        wrap(nn.GRU(3, 4), Scaffold(), freeze=["*"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"keep": ["haed"]}, "keep='haed' names no weight of this model. Modules: embed, blocks"),
        ({"keep": KEEP, "freeze": ["mlp.*"]}, r"freeze='mlp.\*' names no weight"),
        ({"keep": KEEP, "freeze": ["head"]}, "head.weight is named both in keep= and in freeze="),
        ({"keep": "head"}, "keep takes a list of patterns, got the text 'head'"),
        ({"keep": ["*"]}, "No weight is left to adapt"),
        ({"keep": None}, "keep takes a list of patterns, got None"),
        ({"keep": [nn.Linear(2, 2)]}, "classes of nn.Module, got an object of type Linear"),
    ],
)
def test_pattern_that_makes_no_sense_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        wrap(Network(), Scaffold(), **arguments)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"family": "kaming_normal"}, "Unknown init family 'kaming_normal'. Known: kaiming_normal"),
        ({"parameters": {"sdt": 0.1}}, "'normal' has no parameter 'sdt'. It has: std, fan_in"),
        ({"parameters": None}, "parameters must be a dict, such as {'std': 0.1}, got None"),
        ({"seed": 1.5}, "seed must be a whole number, got 1.5"),
        ({"bias": "none"}, "bias must be 'trained' or 'frozen', got 'none'"),
    ],
)
def test_scaffold_refuses_what_has_no_meaning(options, message):
    with pytest.raises(ValueError, match=message):
        Scaffold(**options)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, Scaffold()), "wrap takes a model, an nn.Module, got None"),
        ((nn.Linear, Scaffold()), "wrap takes a model, an nn.Module, got the class Linear"),
        ((nn.Linear(2, 2), Scaffold), "Scaffold, for example Scaffold.rank=8., got the class Scaffold"),
        ((nn.Linear(2, 2), {"rank": 2}), "Scaffold.rank=8., got an object of type dict"),
        ((nn.ReLU(), Scaffold()), "has no weight matrix, so there is nothing to adapt"),
    ],
)
def test_arguments_of_another_kind_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        wrap(*arguments)


def test_dora_on_nothing_is_refused():
    with pytest.raises(ValueError, match="dora has no direction"):
        network(Scaffold(dora=True, family="zeros"))


def test_wrapping_twice_is_refused():
    net, _ = network()
    with pytest.raises(ValueError, match="on a scaffold already"):
        wrap(net, Scaffold(), keep=KEEP)


def test_lazy_layer_is_refused_until_it_has_a_shape():
    with pytest.raises(ValueError, match="has no shape yet: run one batch"):
        wrap(nn.Sequential(nn.LazyLinear(3)), Scaffold())


def test_rank_over_the_matrix_is_allowed_and_noted():
    _, account = network(Scaffold(rank=7))
    assert account.entries[1].note == "rank over min(out, in) = 6"


def test_residual_skips_layers_that_change_the_shape_and_says_so():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))
    account = wrap(net, Scaffold(rank=1, residual=True))
    assert net[0].adapter.residual and not net[1].adapter.residual
    assert account.entries[1].note == "no residual: the shape changes"


def test_account_of_a_dense_model_trains_everything():
    account = Account.of_dense(Network())
    assert account.trainable == account.full == account.full_plus_adapters
    assert account.internal_trainable == 0


def test_account_counts_what_asks_for_no_gradient_as_frozen():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.LayerNorm(8))
    net[1].requires_grad_(False)
    net[2].requires_grad_(False)
    dense = Account.of_dense(net)
    account = wrap(net, Scaffold(rank=2), keep=["1"])
    assert (dense.trainable, dense.vectors_frozen, dense.full) == (72, 24, 160)
    assert account.trainable == sum(p.numel() for p in net.parameters() if p.requires_grad) == 2 * 16 + 1 + 8
    assert (account.entries[1].trained, account.entries[1].frozen) == (0, 64)
    assert account.vectors_frozen == 8 + 16


@pytest.mark.parametrize("way", ["requires_grad_", "no_grad"])
def test_attention_is_adapted_as_a_linear_is_in_a_model_without_gradients(way):
    net = nn.Sequential(nn.MultiheadAttention(8, 2), nn.Linear(8, 8))
    net.requires_grad_(way == "no_grad")
    with torch.set_grad_enabled(way != "no_grad"):
        account = wrap(net, Scaffold(rank=2))
    assert set(places(account).values()) == {"adapt"} and len(account.entries) == 5
    assert account.trainable == sum(p.numel() for p in net.parameters() if p.requires_grad)
    assert account.full == 4 * 64 + 32 + 64 + 8


def test_table_states_both_denominators():
    table = network()[1].table()
    assert "% of the full model (" in table and "% of full model + adapters (" in table
    assert "blocks.0.fc1.weight  12 × 6" in table


def test_account_is_plain_data():
    account = network()[1]
    again = json.loads(json.dumps(account.as_dict()))
    assert again["trainable"] == account.trainable and again["entries"][0]["name"] == "embed.weight"


@pytest.mark.parametrize("first", ["wrap", "cast"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_model_computes_in_its_dtype_and_adapters_stay_in_float32_or_wider(dtype, first):
    if first == "wrap":
        net, _ = network()
        net.to(dtype)
    else:
        net = Network().to(dtype)
        wrap(net, Scaffold(rank=2, seed=5), keep=KEEP)
    fc1 = net.blocks[0].fc1
    wide = torch.promote_types(dtype, torch.float32)
    assert {p.dtype for p in (fc1.A, fc1.B, fc1.beta)} == {wide}
    assert fc1.W_seed.dtype == fc1.bias.dtype == fc1.weight.dtype == net(INDEX).dtype == dtype


def test_copy_shares_nothing_and_computes_the_same():
    net, _ = network()
    twin = copy.deepcopy(net)
    assert torch.equal(twin(INDEX), net(INDEX))
    twin.blocks[0].fc1.W_seed.zero_()
    assert not torch.equal(twin(INDEX), net(INDEX))


def test_model_survives_the_way_to_another_process():
    net, _ = network()
    context = torch.multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        there = pool.apply(_forward, (net,))
    assert torch.equal(torch.tensor(there), net(INDEX))


def _forward(net):
    return net(INDEX).tolist()


def test_saved_and_loaded_whole_it_is_the_same():
    net, _ = network()
    file = io.BytesIO()
    torch.save(net, file)
    file.seek(0)
    assert torch.equal(torch.load(file, weights_only=False)(INDEX), net(INDEX))


def test_state_moves_to_a_model_of_the_same_seed():
    net, _ = network()
    with torch.no_grad():
        for p in net.parameters():
            p.add_(torch.randn_like(p))
    twin, _ = network()
    twin.load_state_dict(net.state_dict())
    assert torch.equal(twin(INDEX), net(INDEX))


def test_compiled_model_computes_the_same():
    net, _ = network(Scaffold(rank=2, dora=True, dropout=0.1))
    net.eval()
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(INDEX), net(INDEX))


def test_ddp_trains_the_adapters(tmp_path):
    net, _ = network()
    before = net.blocks[0].fc1.W_seed.clone()
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        parallel = nn.parallel.DistributedDataParallel(net)
        parallel(INDEX).square().sum().backward()
    finally:
        torch.distributed.destroy_process_group()
    assert net.blocks[0].fc1.B.grad.abs().sum() > 0
    assert torch.equal(net.blocks[0].fc1.W_seed, before)
