"""Ranks by matrix: as patterns name them, and shared out at one budget."""

import copy

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import load_into
from lottalora.scaffold import save
from lottalora.scaffold import share_ranks
from lottalora.scaffold import wrap
from lottalora.scaffold.whole_model.backbone import scaffold_layers
from lottalora.scaffold.whole_model.ranks import fitted
from lottalora.scaffold.whole_model.ranks import spectral_norm

SHAPES = [(512, 784), (256, 512), (128, 256), (64, 128)]  # of the MNIST MLP, medium
COSTS, LARGEST = [sum(shape) for shape in SHAPES], [min(shape) for shape in SHAPES]


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 16))


def ranks_of(model):
    return {name: layer.A.shape[0] for name, layer in scaffold_layers(model).items()}


def cost(ranks):
    return sum(rank * each for rank, each in zip(ranks, COSTS, strict=True))


@pytest.mark.parametrize(
    ("ranks", "expected"),
    [
        ({"2.weight": 3}, [4, 3, 4]),
        ({"[24].weight": 2}, [4, 2, 2]),
        ({"*": 1, "0.weight": 5}, [5, 1, 1]),  # a name wins
        ({"*": 1, "2*": 5}, [1, 1, 1]),  # the first pattern counts
    ],
)
def test_a_name_or_the_first_pattern_gives_a_matrix_its_rank_and_its_scale(ranks, expected):
    model = net()
    account = wrap(model, Scaffold(rank=4, alpha=8, ranks=ranks))
    layers = scaffold_layers(model)
    assert [entry.rank for entry in account.entries] == list(ranks_of(model).values()) == expected
    assert [layer.adapter.scale for layer in layers.values()] == [8 / rank for rank in expected]
    assert all(layer.B.shape[1] == rank for layer, rank in zip(layers.values(), expected, strict=True))


@pytest.mark.parametrize("by", ["first", "last", "spectral"])
@pytest.mark.parametrize("rank", [1, 2, 4, 8])
def test_ranks_follow_their_weights_and_use_up_the_budget_without_exceeding_it(by, rank):
    wanted = {"first": [4, 3, 2, 1], "last": [1, 2, 3, 4], "spectral": [3.0, 3.1, 3.2, 40.0]}[by]
    ranks = fitted(wanted, COSTS, LARGEST, rank)
    budget = cost([rank] * 4)
    assert cost(ranks) <= budget
    assert budget - cost(ranks) < max(COSTS)
    assert all(1 <= each <= most for each, most in zip(ranks, LARGEST, strict=True))
    rising = [each for _, each in sorted(zip(wanted, ranks, strict=True))]
    assert rank == 1 or all(before <= after + 1 for before, after in zip(rising, rising[1:], strict=False))


def test_equal_wishes_give_the_rank_itself_and_a_small_matrix_no_more_than_it_can_use():
    assert fitted([1.0] * 4, COSTS, LARGEST, 8) == [8, 8, 8, 8]
    assert fitted([1.0, 1e6], [200, 8], [100, 4], 8)[1] == 4


def test_spectral_ranks_are_those_of_the_w_seed_that_wrap_draws():
    model = net()
    scaffold = Scaffold(rank=4, family="normal", parameters={"std": 0.1}, seed=3)
    ranks = share_ranks(model, scaffold, "spectral")
    wrap(model, scaffold)
    with torch.device("meta"):
        assert share_ranks(net(), scaffold, "spectral") == ranks
    norms = [float(torch.linalg.svdvals(layer.W_seed)[0]) for layer in scaffold_layers(model).values()]
    assert list(ranks.values()) == fitted(norms, [80, 56, 40], [32, 24, 16], 4)


def test_sharing_out_leaves_the_model_alone_and_takes_kept_and_composed_matrices_into_account():
    model = nn.ModuleDict({"rnn": nn.GRU(6, 8), "out": nn.Linear(8, 8), "head": nn.Linear(8, 3)})
    before = copy.deepcopy(model.state_dict())
    for by in ("first", "spectral"):
        ranks = share_ranks(model, Scaffold(rank=2), by, keep=["head"], compose=["*"])
        assert set(ranks) == {"rnn.weight_ih_l0", "rnn.weight_hh_l0", "out.weight"}
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    account = wrap(model, Scaffold(rank=2, ranks=ranks), keep=["head"], compose=["*"])
    assert {entry.name: entry.rank for entry in account.entries if entry.place == "adapt"} == ranks


@pytest.mark.parametrize("family", ["normal", "learned"])
def test_each_matrix_of_a_stack_counts_by_itself(family):
    model = nn.Sequential(nn.Linear(32, 32), nn.Linear(32, 32))
    model.experts = nn.Parameter(torch.randn(8, 4, 32))
    scaffold = Scaffold(rank=6, family=family)
    for by in ("first", "last", "spectral"):
        assert share_ranks(model, scaffold, by, compose=["*"])["experts"] <= 4
    wrap(model, scaffold, compose=["*"])
    stack = model.composed_experts
    norms = torch.linalg.matrix_norm(stack.W_seed.unflatten(0, (8, 4)), 2)
    assert spectral_norm(stack) == pytest.approx(float(norms.max()))


def test_file_keeps_the_ranks(tmp_path):
    model = net()
    wrap(model, Scaffold(rank=4, seed=1, ranks={"0.weight": 7, "4.weight": 2}))
    with torch.no_grad():
        for layer in scaffold_layers(model).values():
            layer.B.normal_()
    save(model, tmp_path / "net.safetensors")
    loaded = load_into(net(), tmp_path / "net.safetensors")
    assert list(ranks_of(loaded).values()) == [7, 4, 2]
    x = torch.randn(3, 48)
    assert torch.equal(loaded(x), model(x))


def test_a_key_that_is_a_name_is_no_pattern():
    model = nn.ModuleDict({"w[0]": nn.Linear(4, 4), "w0": nn.Linear(4, 4)})
    account = wrap(model, Scaffold(rank=1, ranks={"w[0].weight": 3}))
    assert {entry.name: entry.rank for entry in account.entries} == {"w[0].weight": 3, "w0.weight": 1}
    model = nn.ModuleDict({"w[0]": nn.Linear(4, 4), "w0": nn.Linear(4, 4)})
    with pytest.raises(ValueError, match=r"'w\[0\].weight' matches no adapted matrix"):
        wrap(model, Scaffold(rank=1, ranks={"w[0].weight": 3}), keep=["w[0]"])


def test_the_packed_name_of_an_attention_gives_its_projections_their_rank():
    model = nn.Sequential(nn.MultiheadAttention(8, 2))
    wrap(model, Scaffold(rank=1, ranks={"0.in_proj_weight": 3}))
    assert list(ranks_of(model).values()) == [3, 3, 3, 1]


@pytest.mark.parametrize(
    ("ranks", "said"),
    [
        ({"nope": 2}, "ranks: 'nope' matches no adapted matrix"),
        ({"0.weigth": 2}, "Did you mean '0.weight'"),
        ({"head.*": 2}, "matches no adapted matrix"),
    ],
)
def test_key_that_matches_nothing_is_refused_before_anything_is_changed(ranks, said):
    model = net()
    with pytest.raises(ValueError, match=said):
        wrap(model, Scaffold(rank=4, ranks=ranks))
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, "4"])
def test_rank_that_is_no_positive_whole_number_is_refused(rank):
    with pytest.raises(ValueError, match="ranks must be whole numbers, 1 or more"):
        Scaffold(ranks={"*": rank})


def test_ranks_of_another_kind_and_unknown_ways_to_share_are_refused():
    with pytest.raises(ValueError, match="ranks must be a dict"):
        Scaffold(ranks=[1, 2])
    with pytest.raises(ValueError, match="by must be one of first, last, spectral, got 'middle'"):
        share_ranks(net(), Scaffold(rank=4), "middle")
    with pytest.raises(ValueError, match="rank of 0 has no weights to share out"):
        share_ranks(net(), Scaffold(rank=0), "first")
