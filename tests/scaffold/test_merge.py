"""Merged models are ordinary models that compute the same, and unmerge gives every bit back."""

import copy
import pickle

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils import prune

from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import load_into
from lottalora.scaffold import merge
from lottalora.scaffold import resample
from lottalora.scaffold import save
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import unmerge
from lottalora.scaffold import verify
from lottalora.scaffold import wrap

SCAFFOLD = Scaffold(rank=3, alpha=6.0, seed=5)
EDGES = torch.tensor([[0, 1, 2, 3], [1, 2, 0, 0]])


class Tied(nn.Module):
    """A look-up and a head with one table, and two square layers with one weight."""

    def __init__(self):
        super().__init__()
        self.embed, self.head = nn.Embedding(9, 6, padding_idx=0), nn.Linear(6, 9)
        self.one, self.two = nn.Linear(6, 6), nn.Linear(6, 6)
        self.head.weight, self.two.weight = self.embed.weight, self.one.weight

    def forward(self, index):
        return self.head(self.two(torch.tanh(self.one(self.embed(index)))))


class Experts(nn.Module):
    """A stack of expert matrices, as transformers' mixtures have it."""

    def __init__(self):
        super().__init__()
        self.up = nn.Parameter(torch.randn(3, 5, 4))
        self.token = nn.Parameter(torch.randn(1, 1, 4))

    def forward(self, x):
        return torch.einsum("ntd,eod->nteo", x + self.token, self.up)


class Graph(nn.Module):
    """A GCN and a GINE layer of PyTorch Geometric."""

    def __init__(self):
        super().__init__()
        from torch_geometric.nn import GCNConv
        from torch_geometric.nn import GINEConv

        self.gcn = GCNConv(4, 6)
        self.gine = GINEConv(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 2)), edge_dim=3)

    def forward(self, x):
        return self.gine(self.gcn(x, EDGES), EDGES, torch.ones(4, 3))


def mlp():
    return nn.Sequential(nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), nn.Tanh(), nn.Linear(7, 1))


def convolutions():
    return nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2, padding=1, padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, stride=2, bias=False),
        nn.Conv2d(8, 6, 1),
    )


def encoder():
    layer = nn.TransformerEncoderLayer(12, 2, 20, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def gpt2():
    from transformers import GPT2Config
    from transformers import GPT2LMHeadModel

    return GPT2LMHeadModel(GPT2Config(vocab_size=31, n_positions=16, n_embd=16, n_layer=2, n_head=2))


def llama():
    from transformers import LlamaConfig
    from transformers import LlamaForCausalLM

    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaForCausalLM(LlamaConfig(vocab_size=31, num_key_value_heads=2, **sizes))


def vit():
    from timm.models.vision_transformer import VisionTransformer

    return VisionTransformer(img_size=16, patch_size=8, embed_dim=12, depth=2, num_heads=3, num_classes=5)


def tokens():
    return torch.tensor([[1, 2, 0, 8], [4, 0, 3, 3]])


def sequence(features):
    return lambda: torch.randn(2, 6, features)


def image(channels, size=8):
    return lambda: torch.randn(2, channels, size, size)


ZOO = {
    "mlp": (mlp, lambda: torch.randn(3, 5)),
    "one layer": (lambda: nn.Linear(4, 4), lambda: torch.randn(3, 4)),
    "convolutions": (convolutions, image(4)),
    "conv1d": (lambda: nn.Conv1d(6, 4, 3, dilation=2), sequence(9)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 2), lambda: torch.randn(2, 2, 4, 4, 4)),
    "encoder": (encoder, sequence(12)),
    "attention": (lambda: nn.MultiheadAttention(8, 2, kdim=8, vdim=6, add_bias_kv=True), None),
    "gpt2": (gpt2, tokens),
    "llama": (llama, tokens),
    "vit": (vit, image(3, 16)),
    "gru": (lambda: nn.GRU(4, 5, 2, bidirectional=True, batch_first=True), sequence(4)),
    "lstm": (lambda: nn.LSTM(4, 5, proj_size=3), sequence(4)),
    "transposed": (lambda: nn.ConvTranspose2d(4, 6, 3, groups=2), image(4)),
    "bilinear": (lambda: nn.Bilinear(3, 3, 5), None),
    "experts": (Experts, sequence(4)),
    "tied": (Tied, tokens),
    "graph": (Graph, lambda: torch.randn(4, 4)),
}
SEVERAL = {"attention": [(3, 2, 8), (5, 2, 8), (5, 2, 6)], "bilinear": [(2, 3), (2, 3)]}
OPTIONS = {
    "lora": SCAFFOLD,
    "dora": Scaffold(rank=3, dora=True, seed=5),
    "rslora": Scaffold(rank=4, alpha=4.0, rslora=True, bias="frozen", dropout=0.5, seed=5),
}


def built(name, scaffold=None, **options):
    """A model of the zoo in eval mode, with random adapters if a scaffold is given, and its inputs."""
    torch.manual_seed(0)
    make, inputs = ZOO[name]
    net = make().eval()
    if scaffold is not None:
        wrap(net, scaffold, compose=["*"], **options)
        randomize(net)
    shapes = SEVERAL.get(name)
    return net, [torch.randn(shape) for shape in shapes] if shapes else [inputs()]


@torch.no_grad()
def randomize(net):
    for name, p in net.named_parameters():
        if name.rpartition(".")[2] in ("A", "B"):
            p.normal_(0, 0.3)
        elif name.rpartition(".")[2] in ("beta", "magnitude"):
            p.uniform_(0.5, 1.5)


@torch.no_grad()
def output(net, x):
    y = net(*x)
    y = y.logits if hasattr(y, "logits") else y
    return y[0] if isinstance(y, tuple) else y


def assert_close(got, expected, tolerance=1e-5):
    assert (got - expected).abs().max() <= tolerance * expected.abs().max()


def layout_of(net):
    """Classes, tensor names and shapes, settings and numbers of hooks: what tells two models apart."""
    result = {}
    for name, module in net.named_modules():
        state = vars(module)
        hooks = {key: len(value) for key, value in state.items() if key.endswith("hooks")}
        result[name] = (type(module), sorted(state), hooks)
        result[name] += (getattr(module, "activation_relu_or_gelu", None),)
        result[name] += (getattr(module, "use_nested_tensor", None),)
    kinds = (net.named_parameters(), net.named_buffers())
    return result, [{name: (t.shape, t.dtype) for name, t in kind} for kind in kinds], set(net.state_dict())


def bits_of(net):
    # identity records get their fingerprints in `state_dict`, so that comes first
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    return state | {name: tensor.clone() for name, tensor in net.named_buffers()}


def assert_same_bits(got, expected):
    assert list(got) == list(expected)
    assert [name for name in expected if not torch.equal(got[name], expected[name])] == []


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", ZOO)
def test_merged_model_computes_what_the_wrapped_one_does_and_is_an_ordinary_one(name, options):
    net, x = built(name, OPTIONS[options])
    expected, before, parameters = output(net, x), bits_of(net), list(net.parameters())
    merged = merge(net)
    assert_close(output(net, x), expected)
    assert 0 < merged.deviation < 1e-6

    plain, _ = built(name)
    assert layout_of(net) == layout_of(plain)
    plain.load_state_dict(net.state_dict())
    assert_close(output(plain, x), expected)

    unmerge(net, merged)
    assert_same_bits(bits_of(net), before)
    assert all(one is other for one, other in zip(net.parameters(), parameters, strict=True))
    assert torch.equal(output(net, x), expected)
    assert verify(net) == []


@pytest.mark.parametrize("kind", ["linear", "grouped", "transposed"])
def test_merged_weight_is_the_equation(kind):
    torch.manual_seed(0)
    make = {
        "linear": lambda: nn.Linear(4, 6),
        "grouped": lambda: nn.Conv2d(4, 6, 3, groups=2),
        "transposed": lambda: nn.ConvTranspose2d(4, 6, 3, groups=2),
    }
    net = make[kind]()
    wrap(net, SCAFFOLD, compose=["*"])
    randomize(net)
    holder = net.composed_weight if kind == "transposed" else net
    W = holder.beta.double() * holder.W_seed.double() + 2 * (holder.B.double() @ holder.A.double())
    merge(net)
    if kind == "transposed":  # the matrix is (out of all groups, in / g · k · k)
        kernel = net.weight.unflatten(0, (2, 2)).transpose(1, 2).flatten(0, 1).flatten(1)
    else:
        kernel = net.weight.flatten(1)
    assert torch.equal(kernel, W.float())


@pytest.mark.parametrize("name", ["mlp", "convolutions", "encoder", "gru", "tied", "experts"])
@pytest.mark.parametrize("cast", ["before", "after"])
def test_hundred_rounds_in_bfloat16_change_no_bit(name, cast):
    torch.manual_seed(0)
    net = ZOO[name][0]().eval()
    net = net.bfloat16() if cast == "before" else net
    wrap(net, SCAFFOLD, compose=["*"])
    randomize(net)
    net = net.bfloat16()
    before = bits_of(net)
    first = None
    for _ in range(100 if name == "mlp" else 3):
        merged = merge(net)
        state = net.state_dict()
        first = first or {key: value.clone() for key, value in state.items()}
        assert_same_bits(state, first)
        assert 0 < merged.deviation <= 2**-8
        unmerge(net, merged)
    assert_same_bits(bits_of(net), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tied_weights_stay_tied(dtype):
    net, _ = built("tied", SCAFFOLD)
    net = net.to(dtype)
    merged = merge(net)
    assert net.head.weight is net.embed.weight and net.one.weight is net.two.weight
    assert len(list(net.parameters())) == 5
    unmerge(net, merged)
    assert net.head.B is net.embed.composed_weight.B and net.one.A is net.two.A


def test_tied_layers_draw_the_same_padding_row_again():
    net, _ = built("tied", SCAFFOLD)
    net = net.to_empty(device="cpu")
    assert torch.equal(net.head.W_seed, net.embed.composed_weight.W_seed)
    assert not net.head.W_seed[0].any() and verify(net) == []


def test_another_scaffold_leaves_the_row_of_the_padding_that_a_tied_head_has_trained():
    net, _ = built("tied", SCAFFOLD)
    with torch.no_grad():
        net.head.B[0] = 1
    set_backbone_seed(net, 7)
    assert (net.head.B[0] == 1).all() and not net.head.W_seed[0].any() and verify(net) == []


def test_equal_adapters_that_are_not_tied_stay_apart():
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    wrap(net, Scaffold(rank=0, train_beta=False, family="zeros"))
    merge(net)
    assert net[0].weight is not net[1].weight


def test_frozen_layers_of_models_that_were_wrapped_one_by_one_stay_apart():
    parts = [nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)) for _ in range(2)]
    for part in parts:
        wrap(part, Scaffold(rank=1, seed=1), freeze=["0"])
    net = nn.ModuleList([*parts, copy.deepcopy(parts[0])])
    assert torch.equal(net[0][0].W_seed, net[1][0].W_seed)
    merge(net)
    assert len({id(part[0].weight) for part in net}) == 3


@pytest.mark.parametrize("change", [lambda net: net.double(), lambda net: resample(net, 2)])
def test_frozen_layers_that_are_tied_stay_tied(change):
    net = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    net[1].weight = net[0].weight
    wrap(net, Scaffold(rank=1), freeze=["0"])
    change(net)
    merge(net)
    assert net[0].weight is net[1].weight


def test_learned_weights_are_kept_and_ordinary_lora_is_merged():
    torch.manual_seed(0)
    net = mlp()
    dense = copy.deepcopy(net)
    wrap(net, Scaffold(rank=2, family="learned", train_beta=False))
    before = bits_of(net)
    merged = merge(net)
    assert_same_bits(net.state_dict(), dense.state_dict())  # B = 0
    unmerge(net, merged)
    assert_same_bits(bits_of(net), before)


def test_values_written_into_a_drawn_scaffold_survive():
    net, x = built("mlp", SCAFFOLD)
    with torch.no_grad():
        net[0].W_seed.mul_(2)
    before, expected = bits_of(net), output(net, x)
    merged = merge(net)
    assert_close(output(net, x), expected)
    unmerge(net, merged)
    assert_same_bits(bits_of(net), before)


def test_kept_and_frozen_parts_and_vectors_come_back():
    net, x = built("vit", SCAFFOLD, keep=["head", "blocks.0.mlp.*"], freeze=["blocks.1", "norm"])
    expected, before = output(net, x), bits_of(net)
    trained = {name for name, p in net.named_parameters() if p.requires_grad}
    merged = merge(net)
    plain, _ = built("vit")
    assert layout_of(net) == layout_of(plain)
    assert_close(output(net, x), expected)
    assert not net.norm.weight.requires_grad and not net.blocks[1].attn.qkv.weight.requires_grad
    assert net.blocks[0].attn.qkv.weight.requires_grad and net.head.weight.requires_grad
    unmerge(net, merged)
    assert_same_bits(bits_of(net), before)
    assert {name for name, p in net.named_parameters() if p.requires_grad} == trained


def test_frozen_embedding_becomes_an_embedding():
    net = nn.Sequential(nn.Embedding(7, 4, padding_idx=2), nn.Linear(4, 3))
    wrap(net, SCAFFOLD, freeze=[nn.Embedding])
    W, before = net[0].W_seed.clone(), bits_of(net)
    merged = merge(net)
    assert type(net[0]) is nn.Embedding and net[0].padding_idx == 2 and torch.equal(net[0].weight, W)
    assert merged.modules["0"].W_seed.is_meta, "the draw is not stored"
    unmerge(net, merged)
    assert_same_bits(bits_of(net), before)


def test_hooks_attributes_and_extra_tensors_stay():
    net = mlp()
    seen = []
    net[0].note = "mine"
    net[0].register_buffer("steps", torch.zeros(2))
    wrap(net, SCAFFOLD)
    handle = net[0].register_forward_hook(lambda *_: seen.append(1))
    merged = merge(net)
    net(torch.randn(2, 5))
    assert seen == [1] and net[0].note == "mine" and "0.steps" in net.state_dict()
    handle.remove()
    unmerge(net, merged)
    net(torch.randn(2, 5))
    assert seen == [1]


def test_training_goes_on_after_a_merge_for_evaluation():
    def train(evaluate):
        torch.manual_seed(0)
        net = mlp()
        wrap(net, SCAFFOLD)
        optimizer = torch.optim.AdamW(net.parameters(), lr=0.01)
        x = torch.randn(8, 5)
        for _ in range(4):
            if evaluate:
                merged = merge(net)
                net(x)
                unmerge(net, merged)
            optimizer.zero_grad()
            net(x).square().sum().backward()
            optimizer.step()
        return net.state_dict()

    assert_same_bits(train(True), train(False))


@pytest.mark.parametrize("copied", ["deepcopy", "pickle"])
def test_a_copy_of_the_merged_model_is_taken_back_by_a_copy_of_the_result(copied):
    net, x = built("encoder", SCAFFOLD)
    expected = output(net, x)
    merged = merge(net)
    again = copy.deepcopy if copied == "deepcopy" else lambda it: pickle.loads(pickle.dumps(it))
    other, held = again(net), again(merged)
    unmerge(other, held)
    assert torch.equal(output(other, x), expected)
    unmerge(net, merged)
    assert torch.equal(output(net, x), expected)
    assert not {id(p) for p in net.parameters()} & {id(p) for p in other.parameters()}


def test_model_merged_under_inference_mode_can_be_trained():
    net = nn.Sequential(nn.Linear(4, 4))
    wrap(net, Scaffold(rank=2))
    with torch.inference_mode():
        merge(net)
    net(torch.ones(1, 4)).sum().backward()
    assert net[0].weight.grad is not None


def test_pruned_adapter_is_neither_merged_nor_saved_until_that_is_undone(tmp_path):
    net, path = nn.Sequential(nn.Linear(4, 4)), tmp_path / "a.safetensors"
    wrap(net, Scaffold(rank=2, B_init="kaiming"))
    prune.l1_unstructured(net[0], "A", 0.5)
    x = torch.ones(1, 4)
    expected = net(x).detach()
    for act in (merge, lambda net: save(net, path)):
        with pytest.raises(ValueError, match=r"its A is pruned. Call torch.nn.utils.prune.remove"):
            act(net)
    prune.remove(net[0], "A")
    save(net, path)
    torch.testing.assert_close(load_into(nn.Sequential(nn.Linear(4, 4)), path)(x), expected)


def test_merged_model_can_be_wrapped_again():
    net, _ = built("encoder", SCAFFOLD)
    merge(net)
    wrap(net, SCAFFOLD)
    assert isinstance(net.layers[0].self_attn.q_proj, LottaLinear)


def test_state_check_is_back_after_unmerge():
    net, _ = built("mlp", SCAFFOLD)
    other = mlp()
    wrap(other, Scaffold(rank=3, alpha=6.0, seed=6))
    unmerge(net, merge(net))
    with pytest.raises(ValueError, match="belongs to another scaffold"):
        net.load_state_dict(other.state_dict())
    assert len(net._load_state_dict_pre_hooks) == 1


class Double(nn.Module):
    """A parametrization of somebody else."""

    def forward(self, x):
        return 2 * x


def parametrized_adapter():
    net = mlp()
    wrap(net, SCAFFOLD)
    parametrize.register_parametrization(net[2], "A", Double())
    return net


def parametrized_owner():
    net = nn.Sequential(nn.Linear(4, 4), nn.GRU(4, 4))
    wrap(net, SCAFFOLD, compose=["*"])
    parametrize.register_parametrization(net[1], "bias_ih_l0", Double())
    return net


def wrapped(**options):
    net = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    wrap(net, Scaffold(rank=2, **options))
    return net


def on_meta():
    with torch.device("meta"):
        return wrapped()


def built_directly():
    from lottalora.scaffold import Adapter

    return nn.Sequential(LottaLinear(torch.randn(3, 4), Adapter(rank=1)))


REFUSED = {
    "no scaffold": (mlp, "no scaffold"),
    "residual": (lambda: wrapped(residual=True), "Layer '0' cannot be merged: residual=True"),
    "layer_norm": (lambda: wrapped(layer_norm=True), "Layer '0' cannot be merged: layer_norm=True"),
    "dropout": (lambda: wrapped(dropout=0.1), r"Layer '0' .* dropout of 0.1 is active. Call model.eval\(\)"),
    "parametrized adapter": (parametrized_adapter, "Layer '2' cannot be merged: it is parametrized"),
    "parametrized owner": (parametrized_owner, "Module '1' cannot be merged: .* ParametrizedComposedGRU"),
    "meta": (on_meta, "Layer '0' cannot be merged: W_seed is on the meta device"),
    "not by wrap": (built_directly, "Layer '0' cannot be merged: it was built as it is"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_matrix_is_refused_in_one_line_and_left_as_it_was(case):
    make, message = REFUSED[case]
    net = make()
    before = layout_of(net)
    with pytest.raises(ValueError, match=message) as error:
        merge(net)
    assert "\n" not in str(error.value)
    assert layout_of(net) == before


def test_sharded_layer_is_refused():
    net = wrapped()
    W = net[1].W_seed
    del net[1].W_seed
    net[1].W_seed = nn.Parameter(W, requires_grad=False)  # as `shard` leaves it
    with pytest.raises(ValueError, match="Layer '1' cannot be merged: its rows are shared out"):
        merge(net)


@torch.no_grad()
def write(net):
    net[0].weight[0, 0] += 1e-6


CHANGED = {
    "a weight": (write, "'0.weight' has another value"),
    "a bias": (lambda net: net[2].bias.data.add_(1), "'2.bias' has another value"),
    "the dtype": (lambda net: net.double(), "'0.weight' has another value, dtype"),
    "a class": (lambda net: net.__setitem__(0, nn.Identity()), "'0' was Linear, now it is Identity"),
    "a layer less": (lambda net: net.__delitem__(4), "'4' was Linear, now it is gone"),
    "wrapped": (lambda net: wrap(net, SCAFFOLD), "'0' was Linear, now it is LottaLinear"),
}


@pytest.mark.parametrize("case", CHANGED)
def test_unmerge_of_a_changed_model_is_refused_in_one_line(case):
    change, message = CHANGED[case]
    net, _ = built("mlp", SCAFFOLD)
    merged = merge(net)
    change(net)
    before = layout_of(net)
    with pytest.raises(ValueError, match=message) as error:
        unmerge(net, merged)
    assert "\n" not in str(error.value)
    assert layout_of(net) == before


def test_a_result_is_used_once():
    net, _ = built("mlp", SCAFFOLD)
    merged = merge(net)
    unmerge(net, merged)
    with pytest.raises(ValueError, match="was unmerged already"):
        unmerge(net, merged)


def test_merged_encoder_takes_the_fused_path_again():
    net, x = built("encoder", SCAFFOLD)
    expected = output(net, x)
    merge(net)
    called = []
    net.layers[0].linear1.register_forward_hook(lambda *_: called.append(1))
    padding = torch.zeros(2, 6, dtype=torch.bool)
    with torch.no_grad():
        assert_close(net(x[0], src_key_padding_mask=padding), expected)


def test_frozen_vectors_of_layers_and_attention_are_parameters_while_merged():
    net = nn.Sequential(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), nn.Linear(8, 8)).eval()
    net[1].gain = nn.Parameter(torch.ones(8))
    before = dict(net.named_parameters()).keys()
    wrap(net, SCAFFOLD, freeze=["*.in_proj_bias", "1.gain", "*.norm1"])
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    merged = merge(net)
    plain = dict(net.named_parameters())
    assert plain.keys() == before and not dict(net.named_buffers())
    frozen = ("0.self_attn.in_proj_bias", "1.gain", "0.norm1.weight", "0.norm1.bias")
    assert [name for name, p in plain.items() if not p.requires_grad] == sorted(frozen, key=list(plain).index)
    unmerge(net, merged)
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())
    assert not any(name in dict(net.named_parameters()) for name in frozen)


@pytest.mark.parametrize("name", ["frozen_vectors", "set_aside"])
@pytest.mark.parametrize("value", [["0"], {"weight": 1}, []])
def test_attributes_of_foreign_modules_survive_merge(name, value):
    net = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    for module in (net, net[1]):
        setattr(module, name, value)
    wrap(net, SCAFFOLD, freeze=["1"])
    merged = merge(net)
    assert type(net[0]) is nn.Linear and getattr(net, name) is getattr(net[1], name) is value
    unmerge(net, merged)
    assert getattr(net[1], name) is value and not isinstance(net[1].weight, nn.Parameter)
