"""Ordinary LoRA, on learned weights and without β, computes what PEFT's does on the same A and B."""

import copy

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import wrap


@pytest.fixture(scope="module")
def peft():
    return pytest.importorskip("peft")  # takes seconds to import


class Net(nn.Module):
    def __init__(self, layer, x):
        super().__init__()
        self.layer, self.x = layer, x

    def forward(self, x):
        return self.layer(x)


def gpt2_layer():
    from transformers.pytorch_utils import Conv1D

    return Conv1D(12, 8)


LAYERS = {
    "linear": lambda: Net(nn.Linear(8, 12), torch.randn(2, 3, 8)),
    "gpt2": lambda: Net(gpt2_layer(), torch.randn(2, 3, 8)),
    "conv1d": lambda: Net(nn.Conv1d(4, 6, 3, padding=1), torch.randn(2, 4, 9)),
    "conv2d": lambda: Net(nn.Conv2d(4, 6, 3, stride=2), torch.randn(2, 4, 9, 9)),
    "conv3d": lambda: Net(nn.Conv3d(4, 6, 3), torch.randn(2, 4, 5, 5, 5)),
}


@pytest.mark.parametrize("options", [{}, {"rslora": True}, {"dora": True}], ids=str)
@pytest.mark.parametrize("name", LAYERS)
def test_learned_scaffold_equals_peft(peft, name, options):
    torch.manual_seed(0)
    net = LAYERS[name]()
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["layer"],
        init_lora_weights=False,
        fan_in_fan_out=name == "gpt2",
        use_rslora=options.get("rslora", False),
        use_dora=options.get("dora", False),
    )
    theirs = peft.get_peft_model(copy.deepcopy(net), config)
    layer = theirs.base_model.model.layer
    wrap(net, Scaffold(rank=4, alpha=8.0, family="learned", train_beta=False, **options))
    with torch.no_grad():
        net.layer.A.copy_(layer.lora_A["default"].weight.flatten(1))
        net.layer.B.copy_(layer.lora_B["default"].weight.flatten(1))
        if "dora" in options:
            net.layer.magnitude.copy_(layer.lora_magnitude_vector["default"].weight.flatten())
    ours, expected = net(net.x), theirs(net.x)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    ours.square().sum().backward()
    expected.square().sum().backward()
    for mine, other in ((net.layer.A, layer.lora_A), (net.layer.B, layer.lora_B)):
        torch.testing.assert_close(mine.grad, other["default"].weight.grad.flatten(1), atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("options", [{}, {"rslora": True}], ids=str)
@pytest.mark.parametrize("padding", [None, 2])
def test_learned_embedding_equals_peft(peft, padding, options):
    torch.manual_seed(0)
    net, index = Net(nn.Embedding(11, 6, padding_idx=padding), None), torch.randint(0, 11, (4, 5))
    with torch.no_grad():
        net.layer.weight.normal_()  # the padding row too, as in a pretrained table
    config = peft.LoraConfig(
        r=4,
        lora_alpha=8,
        target_modules=["layer"],
        init_lora_weights=False,
        use_rslora=options.get("rslora", False),
    )
    theirs = peft.get_peft_model(copy.deepcopy(net), config)
    layer = theirs.base_model.model.layer
    A, B = layer.lora_embedding_A["default"], layer.lora_embedding_B["default"]  # (r, rows), (features, r)
    if padding is not None:
        A.data[:, padding] = 0  # ours stays 0 there
    scaffold = Scaffold(rank=4, alpha=8.0, family="learned", train_beta=False, **options)
    dense = net.layer(index).detach()
    wrap(net, scaffold, compose=[nn.Embedding])
    torch.testing.assert_close(net(index), dense, atol=0, rtol=0)
    table = net.layer.composed_weight
    with torch.no_grad():
        table.A.copy_(B.T)
        table.B.copy_(A.T)
    ours, expected = net(index), theirs(index)
    torch.testing.assert_close(ours, expected, atol=1e-6, rtol=1e-6)
    ours.square().sum().backward()
    expected.square().sum().backward()
    torch.testing.assert_close(table.A.grad.T, B.grad, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(table.B.grad.T, A.grad, atol=1e-4, rtol=1e-5)
