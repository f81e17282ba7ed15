"""W_seed shared out among processes: each draws and holds its rows, and the layers compute the same."""

import copy
import os

import pytest
import torch
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.parallel import DistributedDataParallel

from lottalora.scaffold import FrozenEmbedding
from lottalora.scaffold import Scaffold
from lottalora.scaffold import draw
from lottalora.scaffold import resample
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import shard
from lottalora.scaffold import verify
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap
from tests.suite.processes import joined_results

ROWS = 17  # of the first layer: 9 for one process, 8 for the other


def build(scaffold, *, drawn=True):
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Embedding(11, 6, padding_idx=7), nn.Linear(6, ROWS), nn.ReLU(), nn.Linear(ROWS, 4), nn.Linear(4, 3)
    )
    wrap(net, scaffold, freeze=["0"], keep=["4"], drawn=drawn)
    return net


def sharded(scaffold):
    net = build(scaffold, drawn=False)
    shard(net, init_device_mesh("cpu", (2,)))
    return net


def local_rows(layer):
    return layer.W_seed.to_local().clone()


def test_each_process_holds_its_rows_and_they_are_those_of_the_seed():
    held = joined_results(lambda: local_rows(sharded(Scaffold(rank=2, seed=3))[1]))
    source = build(Scaffold(rank=2, seed=3))[1].source
    assert [tuple(rows.shape) for rows in held] == [(9, 6), (8, 6)]
    assert torch.equal(torch.cat(held), draw(source))


@pytest.mark.parametrize("options", [{}, {"dora": True}, {"family": "orthogonal"}], ids=str)
def test_sharded_net_computes_what_the_whole_one_does_and_lets_go_of_the_rows(options):
    scaffold = Scaffold(rank=2, seed=3, B_init="kaiming", **options)
    x = torch.arange(10)

    def work():
        net = sharded(scaffold)
        h = net(x)
        h.square().mean().backward()
        return h.detach(), net[3].A.grad, local_rows(net[1]).numel()

    whole = build(scaffold)
    h = whole(x)
    h.square().mean().backward()
    for ours, gradient, numbers in joined_results(work):
        torch.testing.assert_close(ours, h.detach())
        torch.testing.assert_close(gradient, whole[3].A.grad)
        assert numbers < whole[1].W_seed.numel()


def moved(state, by):
    return {name: value if name.endswith("identity") else value + by for name, value in state.items()}


def test_state_of_a_sharded_net_is_that_of_the_whole_one_and_can_be_loaded():
    whole = build(Scaffold(rank=2, seed=3))

    def work():
        net = sharded(Scaffold(rank=2, seed=3))
        state = copy.deepcopy(whole.state_dict())
        net.load_state_dict(moved(state, 1))
        return moved(net.state_dict(), -1)

    for state in joined_results(work):
        assert state.keys() == whole.state_dict().keys()
        for name, value in state.items():
            torch.testing.assert_close(value, whole.state_dict()[name])


def test_rows_are_redrawn_and_taken_away_where_they_lie():
    def work():
        net = sharded(Scaffold(rank=2, seed=3))
        set_backbone_seed(net, 5)
        with without_scaffold(net):
            without = net(torch.arange(11)).detach()
        return without, net(torch.arange(11)).detach()

    whole = build(Scaffold(rank=2, seed=3))
    set_backbone_seed(whole, 5)
    with without_scaffold(whole):
        expected = whole(torch.arange(11)).detach()
    for without, after in joined_results(work):
        torch.testing.assert_close(without, expected)
        torch.testing.assert_close(after, whole(torch.arange(11)).detach())
    assert isinstance(whole[0], FrozenEmbedding) and not whole[0].W_seed[7].any()


@pytest.mark.parametrize("place", [0, 1], ids=["embedding", "linear"])
def test_weight_of_a_sharded_layer_is_refused_with_what_to_do(place):
    def work():
        with pytest.raises(ValueError, match="rows are shared out among processes.*trainer.strategy=ddp"):
            torch.zeros(1) + sharded(Scaffold(rank=2))[place].weight[:1]

    joined_results(work)


def rank():
    return int(os.environ["RANK"])


def test_processes_with_different_scaffolds_are_refused():
    def work():
        for scaffold in (Scaffold(seed=3 + rank()), Scaffold(parameters={"std": 1.0 + rank()})):
            net = build(scaffold)
            with pytest.raises(ValueError, match="would draw the rows of different scaffolds"):
                shard(net, init_device_mesh("cpu", (2,)))
            assert not isinstance(net[1].W_seed, nn.Parameter)

    joined_results(work)


def test_processes_that_resample_to_different_numbers_are_refused():
    def work():
        net = sharded(Scaffold(rank=2, seed=3))
        before = local_rows(net[1])
        for redraw in (resample, set_backbone_seed):
            with pytest.raises(ValueError, match="would draw the rows of different scaffolds"):
                redraw(net, 1 + rank())
        assert torch.equal(local_rows(net[1]), before) and verify(net) == []
        resample(net, 2)
        return net(torch.arange(11)).detach()

    whole = build(Scaffold(rank=2, seed=3))
    resample(whole, 2)
    for after in joined_results(work):
        torch.testing.assert_close(after, whole(torch.arange(11)).detach())


def test_sharded_net_trains_in_ddp_as_the_whole_one():
    scaffold = Scaffold(rank=2, seed=3, B_init="kaiming")
    x = torch.arange(10)

    def work():
        net = sharded(scaffold)
        whole = DistributedDataParallel(net, init_sync=False, broadcast_buffers=False)
        whole(x.view(2, 5)[rank()]).square().mean().backward()
        return {name: p.grad for name, p in net.named_parameters() if p.requires_grad}, verify(net)

    net = build(scaffold)
    net(x).square().mean().backward()
    for gradients, differ in joined_results(work):
        assert differ == []
        for name, parameter in net.named_parameters():
            if parameter.requires_grad:
                torch.testing.assert_close(gradients[name], parameter.grad)
