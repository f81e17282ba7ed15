"""Layers of other libraries, and attention, compared with what they were."""

import pytest
import torch
from torch import nn

from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import SplitAttention
from lottalora.scaffold import merge
from lottalora.scaffold import wrap


def test_hugging_face_conv1d_is_adapted_as_the_transposed_linear_it_is():
    from transformers.pytorch_utils import Conv1D

    net = nn.Sequential(Conv1D(5, 3))  # 3 → 5, weight (3, 5)
    account = wrap(net, Scaffold(rank=1))
    assert isinstance(net[0], LottaLinear) and net[0].W_seed.shape == (5, 3)
    assert account.entries[0].shape == (3, 5)
    assert net(torch.randn(2, 3)).shape == (2, 5)


@pytest.mark.parametrize("dora", [False, True])
def test_weight_of_a_transposed_layer_can_be_read_as_the_layer_itself_reads_it(dora):
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    net, x = nn.Sequential(Conv1D(4, 4), Conv1D(5, 4)), torch.randn(3, 4)
    wrap(net, Scaffold(rank=2, B_init="kaiming", dora=dora))
    for layer, shape in zip(net, ((4, 4), (4, 5)), strict=True):
        assert layer.weight.shape == shape
        torch.testing.assert_close(x @ layer.weight + layer.bias, layer(x))
    before = [layer.weight.detach().clone() for layer in net]
    merge(net)
    torch.testing.assert_close([layer.weight.detach() for layer in net], before)


def test_pyg_layers_are_adapted():
    from torch_geometric.nn import GCNConv

    net = GCNConv(4, 6)
    account = wrap(net, Scaffold(rank=2))
    assert [entry.name for entry in account.entries] == ["lin.weight"]
    edges = torch.tensor([[0, 1, 2], [1, 2, 0]])
    net(torch.randn(3, 4), edges).sum().backward()
    assert net.lin.B.grad is not None


def test_cfc_reads_the_weight_of_its_inner_layers():
    from ncps.torch import CfC

    net = CfC(3, 8, backbone_units=4, backbone_layers=1, mode="default", batch_first=True)
    wrap(net, Scaffold(rank=2))
    net(torch.randn(2, 5, 3))[0].sum().backward()
    assert {name for name, p in net.named_parameters() if p.grad is None} == set()


def attention(**options):
    torch.manual_seed(0)
    return nn.MultiheadAttention(12, 3, dtype=torch.float64, **options).eval()


def inputs(batch_first, features=(12, 12, 12)):
    torch.manual_seed(1)
    lengths = (5, 7, 7)
    shapes = [(2, t, f) if batch_first else (t, 2, f) for t, f in zip(lengths, features, strict=True)]
    return [torch.randn(shape, dtype=torch.float64) for shape in shapes]


CAUSAL = torch.ones(5, 7).triu(1).bool()
PADDING = torch.tensor([[False] * 7, [False] * 4 + [True] * 3])
MASKS = [
    {},
    {"attn_mask": CAUSAL},
    {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False},
    {"key_padding_mask": PADDING},
    {"attn_mask": CAUSAL, "key_padding_mask": PADDING, "need_weights": False},
    {"attn_mask": CAUSAL.double() * -2.0},
    {"attn_mask": CAUSAL.expand(6, 5, 7), "average_attn_weights": False},
]


@pytest.mark.filterwarnings("ignore:.*mismatched.*:UserWarning")
@pytest.mark.parametrize("masks", MASKS, ids=lambda masks: "+".join(masks) or "none")
@pytest.mark.parametrize("batch_first", [True, False])
def test_split_attention_is_the_attention_it_was_made_from(batch_first, masks):
    original = attention(batch_first=batch_first)
    x = inputs(batch_first)
    expected, got = original(*x, **masks), SplitAttention(original).eval()(*x, **masks)
    torch.testing.assert_close(got, expected)


def test_split_attention_takes_other_widths_for_keys_and_values():
    original = attention(kdim=8, vdim=4, bias=False, batch_first=True)
    x = inputs(True, (12, 8, 4))
    torch.testing.assert_close(SplitAttention(original).eval()(*x), original(*x))


def test_split_attention_takes_one_sequence_without_a_batch():
    original = attention()
    x = [tensor[:, 0] for tensor in inputs(False)]
    torch.testing.assert_close(SplitAttention(original).eval()(*x), original(*x))


def test_causal_hint_without_a_mask_is_refused():
    with pytest.raises(ValueError, match="attn_mask must be given too"):
        SplitAttention(attention())(*inputs(False), is_causal=True)


def test_split_attention_returns_the_weights_after_dropout():
    original = nn.MultiheadAttention(12, 3, dropout=0.5, dtype=torch.float64)
    x, results = inputs(False), []
    for module in (original, SplitAttention(original)):
        torch.manual_seed(2)
        results.append(module(*x))
    torch.testing.assert_close(*results)


ODD_MASKS = {  # for 2 examples, 3 heads, 5 queries and 7 keys
    "uint8 padding": ({"key_padding_mask": PADDING.to(torch.uint8)}, "of booleans or floating-point"),
    "uint8": ({"attn_mask": CAUSAL.to(torch.uint8)}, "of booleans or floating-point"),
    "padding (S,)": ({"key_padding_mask": PADDING[0]}, r"must have the shape \(2, 7\), got \(7,\)"),
    "padding (1, S)": ({"key_padding_mask": PADDING[:1]}, r"must have the shape \(2, 7\), got \(1, 7\)"),
    "(1, S)": ({"attn_mask": CAUSAL[:1]}, r"shape \(5, 7\) or \(6, 5, 7\), got \(1, 7\)"),
    "(T, 1)": ({"attn_mask": CAUSAL[:, :1]}, r"shape \(5, 7\) or \(6, 5, 7\), got \(5, 1\)"),
    "(heads, T, S)": ({"attn_mask": CAUSAL.expand(3, 5, 7)}, r"or \(6, 5, 7\), got \(3, 5, 7\)"),
}


@pytest.mark.parametrize("case", ODD_MASKS)
def test_split_attention_refuses_the_masks_that_torch_refuses(case):
    masks, message = ODD_MASKS[case]
    original, x = attention(), inputs(False)
    with pytest.raises((AssertionError, RuntimeError)):
        original(*x, **masks)
    with pytest.raises(ValueError, match=message):
        SplitAttention(original)(*x, **masks)


def test_split_attention_takes_the_masks_of_one_sequence():
    original = attention()
    x = [tensor[:, 0] for tensor in inputs(False)]
    masks = {"key_padding_mask": PADDING[1], "attn_mask": CAUSAL.expand(3, 5, 7)}
    torch.testing.assert_close(SplitAttention(original).eval()(*x, **masks), original(*x, **masks))
    with pytest.raises(ValueError, match="key_padding_mask must have the shape"):
        SplitAttention(original)(*x, key_padding_mask=PADDING[:1])


def test_biases_of_an_attention_stay_untrained_or_tied():
    net = nn.ModuleList([nn.MultiheadAttention(12, 3), nn.MultiheadAttention(12, 3), nn.Linear(12, 12)])
    net[0].in_proj_bias.requires_grad_(False)
    net[0].in_proj_weight.requires_grad_(False)
    net[1].out_proj.bias.requires_grad_(False)
    net[2].bias = net[0].out_proj.bias
    wrap(net, Scaffold(rank=2), keep=["0.q_proj"])
    assert not any(p.requires_grad for p in (net[0].q_proj.weight, net[0].q_proj.bias, net[0].k_proj.bias))
    assert net[1].q_proj.bias.requires_grad and not net[1].out_proj.bias.requires_grad
    assert net[2].bias is net[0].out_proj.bias
    merge(net)
    assert not (net[0].in_proj_bias.requires_grad or net[1].out_proj.bias.requires_grad)
    assert net[2].bias is net[0].out_proj.bias


@pytest.mark.filterwarnings("ignore:.*mismatched.*:UserWarning")
@pytest.mark.parametrize(
    "masks",
    [masks for masks in MASKS if "is_causal" not in masks],  # torch then hides the added keys
    ids=lambda masks: "+".join(masks) or "none",
)
@pytest.mark.parametrize("options", [{"add_bias_kv": True}, {"add_zero_attn": True, "add_bias_kv": True}])
def test_split_attention_adds_the_keys_that_do_not_come_from_the_input(options, masks):
    original = attention(**options)
    x = inputs(False)
    expected = original(*x, **masks)
    account = wrap(original, Scaffold(family="learned"))
    assert {entry.place for entry in account.entries} == {"adapt"}
    torch.testing.assert_close(original(*x, **masks), expected)


def test_split_attention_shows_the_packed_weights():
    original = attention()
    split = SplitAttention(original)
    assert torch.equal(split.in_proj_weight, original.in_proj_weight)
    assert torch.equal(split.in_proj_bias, original.in_proj_bias)
    assert (split.kdim, split.vdim, split.head_dim) == (12, 12, 4)


def encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 24, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 2)


def test_transformer_encoder_is_adapted_in_every_projection():
    net = encoder()
    account = wrap(net, Scaffold(rank=2))
    assert [e.name for e in account.entries[:4]] == [
        f"layers.0.self_attn.{name}.weight" for name in ("q_proj", "k_proj", "v_proj", "out_proj")
    ]
    assert {entry.place for entry in account.entries} == {"adapt"} and len(account.entries) == 12


def test_transformer_encoder_computes_the_same_in_training_and_evaluation():
    """torch's fused inference path would bypass the adapters."""
    net = encoder()
    wrap(net, Scaffold(rank=2, B_init="kaiming"))
    x = torch.randn(2, 5, 12)
    trained = net(x)
    with torch.no_grad():
        torch.testing.assert_close(net.eval()(x), trained)


@pytest.mark.filterwarnings("ignore:.*nested tensor:UserWarning")
@pytest.mark.parametrize("options", [{}, {"layer_norm": True}])
@pytest.mark.parametrize("keep", [[], ["*.self_attn"]])
def test_transformer_encoder_takes_padding_without_gradients(options, keep):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 2, 24, dropout=0.0, batch_first=True)
    net = nn.TransformerEncoder(layer, 2)
    wrap(net, Scaffold(rank=2, B_init="kaiming", **options), keep=keep)
    x, padding = torch.randn(2, 7, 12), PADDING
    expected = net.eval()(x, src_key_padding_mask=padding)
    with torch.no_grad():
        torch.testing.assert_close(net(x, src_key_padding_mask=padding), expected)


def test_attention_that_is_kept_stays_whole():
    net = encoder()
    wrap(net, Scaffold(rank=2), keep=["*.self_attn"])
    assert type(net.layers[0].self_attn) is nn.MultiheadAttention


def test_attention_can_be_kept_in_part():
    net = encoder()
    account = wrap(net, Scaffold(rank=2), keep=["*.q_proj"])
    assert type(net.layers[0].self_attn.q_proj) is nn.Linear
    assert account.trainable == sum(p.numel() for p in net.parameters())
