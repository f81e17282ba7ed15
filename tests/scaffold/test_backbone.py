"""Redrawing, removing and materialising the scaffold of a whole model."""

import pytest
import torch
from torch import nn

from lottalora.scaffold import Adapter
from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import beta_values
from lottalora.scaffold import materialize
from lottalora.scaffold import resample
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap


def build():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def wrapped(seed=1):
    net = build()
    wrap(net, Scaffold(rank=2, seed=seed), keep=["2"])
    return net


def test_set_backbone_seed_gives_what_wrap_gives_under_that_seed():
    net = wrapped(seed=1)
    pointer = net[0].W_seed.data_ptr()
    set_backbone_seed(net, 2)
    assert torch.equal(net[0].W_seed, wrapped(seed=2)[0].W_seed)
    assert net[0].W_seed.data_ptr() == pointer  # in place


def test_set_backbone_seed_leaves_the_adapters():
    net = wrapped()
    before = {name: p.clone() for name, p in net.named_parameters()}
    set_backbone_seed(net, 2)
    assert all(torch.equal(p, before[name]) for name, p in net.named_parameters())


def test_redrawn_scaffold_keeps_its_precision():
    net = wrapped().half()
    set_backbone_seed(net, 2)
    assert torch.equal(net[0].W_seed, wrapped(seed=2)[0].W_seed.half())


def test_resample_is_a_sequence_of_its_own_for_each_backbone_seed():
    net, seen = wrapped(), []
    for seed in (0, 1, 2, 1):
        resample(net, seed)
        seen.append(net[0].W_seed.clone())
    assert torch.equal(seen[0], wrapped()[0].W_seed)
    assert torch.equal(seen[1], seen[3])
    other = wrapped(seed=2)
    resample(other, 1)
    different = [*seen[:3], other[0].W_seed, wrapped(seed=2)[0].W_seed]
    assert len({tuple(W.flatten().tolist()) for W in different}) == 5


def test_resample_refuses_negative_numbers():
    with pytest.raises(ValueError, match="seed must be 0 …"):
        resample(wrapped(), -1)


def test_scaffold_is_away_inside_the_block_and_back_after_it():
    net = wrapped()
    W, x = net[0].W_seed.clone(), torch.randn(2, 6)
    with without_scaffold(net):
        torch.testing.assert_close(net[0](x), net[0].bias.expand(2, 8))  # B = 0 still
    assert torch.equal(net[0].W_seed, W)


def test_scaffold_comes_back_after_an_error():
    net = wrapped()
    with pytest.raises(KeyError), without_scaffold(net):
        raise KeyError
    assert net[0].W_seed.abs().sum() > 0


def test_beta_values_are_named_by_layer():
    net = wrapped()
    net[0].beta.data.fill_(0.5)
    assert beta_values(net) == {"0": 0.5}
    assert beta_values(build()) == {}


@pytest.mark.parametrize("function", [lambda m: set_backbone_seed(m, 1), lambda m: resample(m, 1)])
def test_model_without_a_scaffold_is_refused(function):
    with pytest.raises(ValueError, match="no scaffold: call lottalora.scaffold.wrap"):
        function(build())


def test_layer_with_a_weight_of_its_own_cannot_be_redrawn():
    net = nn.Sequential(LottaLinear(torch.randn(3, 3), Adapter(rank=1)))
    with pytest.raises(ValueError, match="Layer '0' was given its W_seed"):
        set_backbone_seed(net, 1)


def on_meta(build, **arguments):
    with torch.device("meta"):
        net = build()
    return net, wrap(net, Scaffold(rank=2, seed=1), **arguments)


def test_model_on_the_meta_device_is_accounted_for_and_materialised_from_the_seed():
    net, account = on_meta(build, keep=["2"])
    assert all(t.is_meta for t in [*net.parameters(), *net.buffers()])
    materialize(net)
    assert torch.equal(net[0].W_seed, wrapped()[0].W_seed)
    assert account.trainable == sum(p.numel() for p in wrapped().parameters())
    x = torch.randn(2, 6)
    torch.testing.assert_close(net[0](x), x @ net[0].W_seed.T + net[0].bias)  # B = 0, β = 1
    assert net[0].bias.abs().max() <= 6**-0.5 and net[2].weight.abs().max() <= 8**-0.5


def test_seed_changed_on_the_meta_device_counts_at_materialisation():
    net, _ = on_meta(build, keep=["2"])
    set_backbone_seed(net, 2)
    materialize(net)
    assert torch.equal(net[0].W_seed, wrapped(seed=2)[0].W_seed)


def test_tied_weights_stay_tied_through_materialisation():
    def build():
        net = nn.ModuleDict({"a": nn.Embedding(5, 4), "b": nn.Linear(4, 5), "fc": nn.Linear(4, 4)})
        net["b"].weight = net["a"].weight
        return net

    net, _ = on_meta(build, keep=["a"])
    materialize(net)
    assert net["a"].weight is net["b"].weight and not net["a"].weight.is_meta


def test_module_that_cannot_start_itself_is_refused_on_the_meta_device():
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))

    net, _ = on_meta(lambda: nn.Sequential(nn.Linear(3, 3), Odd()))
    with pytest.raises(ValueError, match="No start values for: '1'"):
        materialize(net)
    assert net[0].W_seed.is_meta
