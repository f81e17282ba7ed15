"""FSDP of PyTorch shards what a wrapped model trains, once each β has an axis."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.state_dict import StateDictOptions
from torch.distributed.checkpoint.state_dict import get_model_state_dict
from torch.distributed.checkpoint.state_dict import set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.fsdp import fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy

from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import beta_values
from lottalora.scaffold import fused_as
from lottalora.scaffold import load_into
from lottalora.scaffold import merge
from lottalora.scaffold import prepare_for_fsdp
from lottalora.scaffold import save
from lottalora.scaffold import unmerge
from lottalora.scaffold import verify
from lottalora.scaffold import wrap
from lottalora.scaffold.layers.path import MODES
from tests.suite.processes import joined_results

X = torch.randn(8, 8, generator=torch.Generator().manual_seed(0))


def build():
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 6), nn.GRU(6, 4))


def wrapped(seed=1, *, prepared=False, dtype=None, **options):
    torch.manual_seed(0)
    net = build()
    wrap(net, Scaffold(rank=2, seed=seed, B_init="kaiming", **options), compose=["*"])
    if prepared:
        prepare_for_fsdp(net, dtype=dtype)
    return net


def fsdp1(net, *, use_orig_params, each=None):
    policy = None if each is None else ModuleWrapPolicy({each})
    options = {"device_id": torch.device("cpu"), "auto_wrap_policy": policy}
    return FullyShardedDataParallel(net, use_orig_params=use_orig_params, **options)


def fsdp2(net):
    mesh = init_device_mesh("cpu", (2,))
    fully_shard(net[0], mesh=mesh)
    return fully_shard(net, mesh=mesh)


WAYS = {
    "views": lambda net: fsdp1(net, use_orig_params=True),
    "flat": lambda net: fsdp1(net, use_orig_params=False),
    "views of each layer": lambda net: fsdp1(net, use_orig_params=True, each=LottaLinear),
    "flat by layer": lambda net: fsdp1(net, use_orig_params=False, each=LottaLinear),
    "fully_shard": fsdp2,
}


def state_of(net):
    if isinstance(net, FullyShardedDataParallel):
        return copy.deepcopy(net.state_dict())
    return get_model_state_dict(net, options=StateDictOptions(full_state_dict=True))


def load(net, state):
    if isinstance(net, FullyShardedDataParallel):
        net.load_state_dict(state)
    else:
        set_model_state_dict(net, state, options=StateDictOptions(full_state_dict=True))


def train(net, parts):
    """Two steps on the mean loss of several parts of X; FSDP takes the mean over processes itself."""
    optimizer = torch.optim.SGD(net.parameters(), lr=0.5)
    for _ in range(2):
        (sum(net(part)[0].square().mean() for part in parts) / len(parts)).backward()
        optimizer.step()
        optimizer.zero_grad()
    return net


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_sharded_model_trains_as_the_whole_one_and_its_state_goes_both_ways():
    """Each process reads its half of the data, so a β that is not averaged would be another one."""

    def work():
        states = {}
        for way, shard in WAYS.items():
            part = X.chunk(2)[int(os.environ["RANK"])]
            net = train(shard(wrapped(prepared=True)), [part])
            states[way] = state_of(net)
            other = shard(wrapped(prepared=True))
            load(other, train(wrapped(), X.chunk(2)).state_dict())
            torch.testing.assert_close(other(X)[0], net(X)[0])
            assert verify(net) == verify(other) == []
            with pytest.raises(ValueError, match="layer '0' .* it has seed 1; this model has seed 2"):
                load(shard(wrapped(seed=2, prepared=True)), wrapped().state_dict())
        return states

    whole = train(wrapped(), X.chunk(2))
    for states in joined_results(work):
        for state in filter(None, states.values()):
            other = wrapped()
            other.load_state_dict(state)
            torch.testing.assert_close(other(X)[0], whole(X)[0])
            torch.testing.assert_close(beta_values(other), beta_values(whole))
            assert list(state) == list(whole.state_dict())


def test_fully_shard_computes_in_half_precision_and_beta_is_read():
    def work():
        policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, output_dtype=torch.float32)
        net = wrapped(prepared=True, dtype=torch.bfloat16)
        fully_shard(net, mesh=init_device_mesh("cpu", (2,)), mp_policy=policy)
        return net(X)[0].detach(), beta_values(net)

    for h, beta in joined_results(work):
        torch.testing.assert_close(h, wrapped()(X)[0].detach(), rtol=0.05, atol=0.05)
        assert beta == beta_values(wrapped())


@pytest.mark.parametrize("options", [{}, {"dropout": 0.2}, {"dora": True}])
@pytest.mark.parametrize("mode", MODES)
def test_outputs_and_gradients_do_not_change(mode, options):
    if options.get("dropout") and mode in ("add", "compose", "merge"):
        pytest.skip("these forms have no dropout")
    nets = [wrapped(prepared=prepared, **options) for prepared in (False, True)]
    results = []
    for net in nets:
        torch.manual_seed(1)
        x = X.clone().requires_grad_()
        with fused_as(mode):
            h = net(x)[0]
            found = torch.autograd.grad(h.square().sum(), [x, *net.parameters()])
        results.append([h, *(each.squeeze() for each in found)])
        assert all(g.shape == p.shape for g, p in zip(found[1:], net.parameters(), strict=True))
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_state_file_and_merge_are_those_of_the_model_before(tmp_path):
    before, net = wrapped(), wrapped(prepared=True)
    state = copy.deepcopy(net.state_dict())
    net.load_state_dict(before.state_dict())
    before.load_state_dict(state)
    assert net[0].beta.shape == (1,) and before[0].beta.shape == ()
    for name, each in (("before", before), ("after", net)):
        save(each, tmp_path / name)
    assert (tmp_path / "before").read_bytes() == (tmp_path / "after").read_bytes()
    assert torch.equal(load_into(build(), tmp_path / "after")(X)[0], before(X)[0])
    h = net(X)[0]
    merged = merge(net.eval())
    torch.testing.assert_close(net(X)[0], h)
    unmerge(net, merged)
    assert torch.equal(net(X)[0], h) and net[0].beta.shape == (1,)


def test_tied_layers_keep_one_beta():
    net = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    net[1].weight = net[0].weight
    wrap(net, Scaffold(rank=2))
    prepare_for_fsdp(net)
    assert net[0].beta is net[1].beta and net[0].beta.shape == (1,)
