"""Ordinary LoRA: the frozen weights are those that the model has learned."""

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import beta_values
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import wrap

LORA = Scaffold(rank=2, family="learned", train_beta=False)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 2)
    )


def test_a_wrapped_model_begins_as_the_learned_one():
    x, net = torch.randn(5, 3, 4, 4), network()
    before = net(x)
    wrap(net, LORA, keep=["5"])
    torch.testing.assert_close(net(x), before)


def test_attention_keeps_its_learned_projections():
    torch.manual_seed(0)
    attention, x = nn.MultiheadAttention(8, 2, batch_first=True).eval(), torch.randn(2, 5, 8)
    before, _ = attention(x, x, x)
    wrap(attention, LORA)
    torch.testing.assert_close(attention(x, x, x)[0], before)


def test_only_adapters_biases_and_head_are_trained():
    net = network()
    account = wrap(net, LORA, keep=["5"])
    assert beta_values(net) == {}
    assert account.trainable == 2 * (4 + 27) + 4 + 2 * (8 + 64) + 8 + 18
    learned = net[3].W_seed.clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.randn(5, 3, 4, 4)).square().mean().backward()
    optimizer.step()
    assert torch.equal(net[3].W_seed, learned)


def test_the_model_that_gave_the_weights_is_not_changed_by_a_copy():
    net = network()
    weight = net[3].weight
    wrap(net, LORA, keep=["5"])
    weight.data.zero_()
    assert net[3].W_seed.abs().sum() > 0


def test_learned_weights_have_no_seed():
    net = network()
    wrap(net, LORA, keep=["5"])
    with pytest.raises(ValueError, match="was given its W_seed, so there is no source"):
        set_backbone_seed(net, 1)


def test_learned_weights_have_no_parameters():
    with pytest.raises(ValueError, match="Learned weights have no parameter 'std'"):
        Scaffold(family="learned", parameters={"std": 0.1})
