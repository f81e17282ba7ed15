"""Forty models of four libraries, wrapped whole: they train, copy, load, merge and unmerge."""

import copy
import pickle

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import merge
from lottalora.scaffold import unmerge
from lottalora.scaffold import wrap

SCAFFOLD = Scaffold(rank=2, seed=11, family="kaiming_uniform")


def sequence():
    return [torch.randn(2, 5, 8)]


def two_sequences():
    return [torch.randn(2, 5, 8), torch.randn(2, 6, 8)]


LAYERS = {
    "conv": (lambda: nn.Conv2d(4, 6, 3, groups=2), lambda: [torch.randn(2, 4, 8, 8)]),
    "transposed": (lambda: nn.ConvTranspose1d(5, 6, 3), sequence),
    "rnn": (lambda: nn.RNN(8, 6, 2, batch_first=True), sequence),
    "gru": (lambda: nn.GRU(8, 6, bidirectional=True), sequence),
    "lstm": (lambda: nn.LSTM(8, 6, 2), sequence),
    "lstm cell": (lambda: nn.LSTMCell(8, 6), lambda: [torch.randn(2, 8)]),
    "bilinear": (lambda: nn.Bilinear(8, 8, 3), lambda: [torch.randn(2, 8), torch.randn(2, 8)]),
    "bag": (lambda: nn.EmbeddingBag(9, 4), lambda: [torch.arange(6).view(2, 3)]),
    "encoder": (lambda: nn.TransformerEncoderLayer(8, 2, 12, dropout=0), sequence),
    "decoder": (lambda: nn.TransformerDecoderLayer(8, 2, 12, dropout=0, batch_first=True), two_sequences),
    "transformer": (lambda: nn.Transformer(8, 2, 1, 1, 12, dropout=0, batch_first=True), two_sequences),
}
TORCHVISION = ["mnasnet0_5", "mobilenet_v3_small", "regnet_y_400mf", "shufflenet_v2_x0_5", "squeezenet1_1"]
TIMM = [
    "test_byobnet",
    "test_convnext",
    "test_convnext3",
    "test_efficientnet",
    "test_mambaout",
    "test_nfnet",
    "test_resnet",
    "test_vit",
    "test_vit2",
    "test_vit4",
]
SIZES = {"vocab_size": 19, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "pad_token_id": 0}
KEYS = {"num_key_value_heads": 1, "head_dim": 8}
ENCODER_DECODER = {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}
TRANSFORMERS = {
    "albert": SIZES | HEADS | {"embedding_size": 8},
    "bart": ENCODER_DECODER | {"vocab_size": 19, "d_model": 16, "pad_token_id": 0},
    "bert": SIZES | HEADS,
    "bloom": {"vocab_size": 19, "hidden_size": 16, "n_layer": 2, "n_head": 2},
    "electra": SIZES | HEADS | {"embedding_size": 8},
    "gemma": SIZES | HEADS | KEYS,
    "gpt2": {"vocab_size": 19, "n_embd": 16, "n_layer": 2, "n_head": 2},
    "gpt_neox": SIZES | HEADS,
    "llama": SIZES | HEADS | KEYS,
    "mistral": SIZES | HEADS | KEYS,
    "mixtral": SIZES | HEADS | KEYS | {"num_local_experts": 3},
    "opt": {"vocab_size": 19, "hidden_size": 16, "ffn_dim": 24, "num_hidden_layers": 2} | HEADS,
    "qwen2": SIZES | HEADS | KEYS,
    "t5": {"vocab_size": 19, "d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2},
}
MODELS = [("torch.nn", name) for name in LAYERS]
MODELS += [("transformers", name) for name in TRANSFORMERS]
MODELS += [("torchvision", name) for name in TORCHVISION]
MODELS += [("timm", name) for name in TIMM]
SLOW = {*TORCHVISION[:4], "test_byobnet", "test_convnext", "test_nfnet", "test_vit2", "test_vit4"}


def build(library, name):
    torch.manual_seed(0)
    if library == "torch.nn":
        return LAYERS[name][0]()
    if library == "torchvision":
        return pytest.importorskip("torchvision").models.get_model(name, num_classes=5)
    if library == "timm":
        return pytest.importorskip("timm").create_model(name, num_classes=5)
    transformers = pytest.importorskip("transformers")
    config = transformers.AutoConfig.for_model(name, **TRANSFORMERS[name])
    return transformers.AutoModel.from_config(config)


def inputs(library, name):
    torch.manual_seed(1)
    if library == "torch.nn":
        return LAYERS[name][1](), {}
    if library == "transformers":
        tokens = torch.randint(3, 19, (2, 7))
        return [], {"input_ids": tokens} | ({"decoder_input_ids": tokens} if name == "t5" else {})
    size = 160 if library == "timm" else 64
    return [torch.randn(2, 3, size, size)], {}


def wrapped(library, name):
    net = build(library, name)
    wrap(net, SCAFFOLD, compose=["*"])
    return net


@torch.no_grad()
def randomize(net):
    for name, p in net.named_parameters():
        if name.endswith(".B") or name == "B":
            p.normal_(0, 0.1)
        elif name.endswith("beta"):
            p.uniform_(0.8, 1.2)


def output(net, given):
    torch.manual_seed(2)
    y = net(*given[0], **given[1])
    y = getattr(y, "last_hidden_state", y)
    return y[0] if isinstance(y, tuple) else y


def assert_close(got, expected):
    assert (got - expected).abs().max() <= 1e-5 * expected.abs().max()


def test_there_are_forty_of_them():
    assert len(set(MODELS)) == 40


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("library", "name"),
    [pytest.param(*model, marks=[pytest.mark.slow] if model[1] in SLOW else []) for model in MODELS],
)
def test_model_trains_copies_loads_and_merges(library, name):
    net, given = wrapped(library, name), inputs(library, name)
    randomize(net)
    y = output(net.train(), given)
    (y * torch.randn_like(y)).sum().backward()
    adapters = [p.grad for name, p in net.named_parameters() if name.rpartition(".")[2] in ("A", "B")]
    adapters = [gradient for gradient in adapters if gradient is not None]
    assert adapters and all(gradient.isfinite().all() for gradient in adapters)
    net.zero_grad()

    net.eval()
    with torch.no_grad():
        expected = output(net, given)
        state = copy.deepcopy(net.state_dict())  # with its metadata, which MNASNet reads
        fresh = wrapped(library, name).eval()
        fresh.load_state_dict(state)
        for other in (fresh, copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert torch.equal(output(other, given), expected)
        merged = merge(net)
        assert_close(output(net, given), expected)
        plain = build(library, name).eval()
        plain.load_state_dict(net.state_dict())
        assert [type(m) for m in plain.modules()] == [type(m) for m in net.modules()]
        assert_close(output(plain, given), expected)
        unmerge(net, merged)
        assert torch.equal(output(net, given), expected)
        after = net.state_dict()
    assert list(after) == list(state) and all(torch.equal(after[key], state[key]) for key in state)
