"""Learned weights of DINOv2 and BERT under our names compute what transformers' own modules compute."""

import pytest
import torch
from torch import nn

from lottalora.data.batches.batch import Texts
from lottalora.models.distilbert import distilbert
from lottalora.models.vit import vit

VIT = {"width": 48, "layers": 2, "heads": 3, "mlp": 96, "patch": 14}
BERT = {"width": 48, "layers": 2, "heads": 3, "ffn": 96, "dropout": 0.1, "attention_dropout": 0.1}


def scattered(net: nn.Module) -> nn.Module:
    """No weight at 0 and no LayerScale at 1."""
    torch.manual_seed(0)
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.2)
    return net.eval()


@pytest.fixture(scope="module")
def dinov2(tmp_path_factory):
    from transformers import Dinov2Config
    from transformers import Dinov2Model

    config = Dinov2Config(
        hidden_size=48, num_hidden_layers=2, num_attention_heads=3, mlp_ratio=2, image_size=70, patch_size=14
    )
    net = scattered(Dinov2Model(config))
    folder = tmp_path_factory.mktemp("root")
    net.save_pretrained(folder / "dinov2")
    return net, folder


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    from transformers import BertConfig
    from transformers import BertModel

    config = BertConfig(
        vocab_size=50, hidden_size=48, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96
    )
    net = scattered(BertModel(config))
    folder = tmp_path_factory.mktemp("root")
    net.save_pretrained(folder / "bert")
    return net, folder


@pytest.mark.parametrize("side", [70, 42])  # as learned; interpolated
def test_vit_computes_what_dinov2_does(dinov2, side):
    theirs, root = dinov2
    net = vit((3, side, side), 5, **VIT, weights="dinov2", root=str(root)).eval()
    x = torch.randn(2, 3, side, side)
    with torch.no_grad():
        torch.testing.assert_close(
            net.body(x).last_hidden_state, theirs(x).last_hidden_state, atol=1e-4, rtol=1e-4
        )


@pytest.mark.parametrize("longest", [512, 30])
def test_distilbert_computes_what_bert_does(bert, longest):
    theirs, root = bert
    net = distilbert((longest, 50), 2, **BERT, weights="bert", root=str(root)).eval()
    net.head = nn.Identity()
    tokens, lengths = torch.randint(1, 50, (2, 20)), torch.tensor([20, 12])
    mask = torch.arange(20) < lengths[:, None]
    with torch.no_grad():
        expected = theirs(tokens, attention_mask=mask.long()).last_hidden_state[:, 0]
        torch.testing.assert_close(net(Texts(tokens, lengths)), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("size", "said"),
    [
        ({"layers": 1}, "it has more than 1 blocks"),
        ({"layers": 3}, "it has no encoder.layer.2"),
        ({"mlp": 192}, "layers.0.mlp.fc1.weight has another shape"),
    ],
)
def test_weights_of_another_size_are_refused(dinov2, size, said):
    with pytest.raises(ValueError, match=said):
        vit((3, 70, 70), 5, **VIT | size, weights="dinov2", root=str(dinov2[1]))


def test_bert_in_place_of_dinov2_is_refused(bert):
    with pytest.raises(ValueError, match="holds another model: it has no embeddings.cls_token"):
        vit((3, 70, 70), 5, **VIT, weights="bert", root=str(bert[1]))


def test_missing_and_damaged_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="The learned DINOv2 is not at .*nowhere/model.safetensors"):
        vit((3, 70, 70), 5, **VIT, weights="nowhere", root=str(tmp_path))
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"12345678901234")
    with pytest.raises(ValueError, match="is damaged or no safetensors file"):
        vit((3, 70, 70), 5, **VIT, weights="torn", root=str(tmp_path))
