"""Layers of other libraries, and attention, compared with what they were."""

import pytest
import torch
from torch import nn

from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import SplitAttention
from lottalora.scaffold import wrap


def test_hugging_face_conv1d_is_adapted_as_the_transposed_linear_it_is():
    from transformers.pytorch_utils import Conv1D

    net = nn.Sequential(Conv1D(5, 3))  # 3 → 5, weight (3, 5)
    account = wrap(net, Scaffold(rank=1))
    assert isinstance(net[0], LottaLinear) and net[0].W_seed.shape == (5, 3)
    assert account.entries[0].shape == (3, 5)
    assert net(torch.randn(2, 3)).shape == (2, 5)


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
