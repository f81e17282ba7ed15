"""Known answers: the parameter counts of the paper's Table 14."""

import json

import pytest
import torch
from hydra.utils import instantiate

from lottalora.build import account_of
from lottalora.build import build
from lottalora.build import capped
from lottalora.build import net_of
from lottalora.data.mnist import MNIST

FULL = {"tiny": 109_386, "small": 242_762, "medium": 575_050, "large": 1_501_770}
TRAINABLE = {
    ("tiny", 1): 1_756,
    ("tiny", 2): 2_860,
    ("tiny", 4): 5_068,
    ("tiny", 8): 9_484,
    ("small", 1): 2_269,
    ("small", 8): 13_581,
    ("medium", 1): 3_294,
    ("medium", 2): 5_934,
    ("medium", 4): 11_214,
    ("medium", 8): 21_774,
    ("medium", 16): 42_894,
    ("medium", 32): 85_134,
    ("large", 1): 5_343,
}


@pytest.mark.parametrize(("size", "rank"), TRAINABLE)
def test_a_scaffold_trains_as_many_parameters_as_table_14_says(composed, size, rank):
    with torch.device("meta"):
        net, account = build(composed("data=mnist", f"model.size={size}", f"rank={rank}"), MNIST.spec)
    assert account.trainable == TRAINABLE[size, rank] == sum(p.numel() for p in net.parameters())
    assert account.full == FULL[size]


def test_a_head_on_a_scaffold_trains_its_adapter_in_place_of_its_weights(composed):
    """Table 16: 650 of the dense head become r (64 + 10) + 1, and its bias is frozen or trained."""
    for place, trainable in (
        ("body_and_head", 3_294 - 650 + 75),
        ("body_and_head_with_bias", 3_294 - 650 + 85),
    ):
        with torch.device("meta"):
            net, account = build(composed("data=mnist", "rank=1", f"model.place={place}"), MNIST.spec)
        assert account.trainable == trainable == sum(p.numel() for p in net.parameters())
        assert ("head.bias" in dict(net.named_parameters())) == (place == "body_and_head_with_bias")
        assert "body.1.bias" not in dict(net.named_parameters())


@pytest.mark.parametrize(
    ("by", "ranks"), [("first", [5, 4, 2, 1]), ("last", [2, 4, 7, 10]), ("spectral", [5, 4, 2, 1])]
)
def test_ranks_by_layer_train_no_more_than_one_rank_for_all(composed, by, ranks):
    """Spectral: σ(√out + √in) of a normal matrix, so here the first layers lead as well."""
    with torch.device("meta"):
        _, account = build(composed("data=mnist", "rank=4", f"adapter.ranks={by}"), MNIST.spec)
    assert [entry.rank for entry in account.entries if entry.place == "adapt"] == ranks
    assert TRAINABLE["medium", 4] - 784 - 512 < account.trainable <= TRAINABLE["medium", 4]


def test_a_thawed_scaffold_trains_what_it_drew(composed):
    cfg = composed("model=mlp", "data=digits", "model.size=tiny", "rank=2", "mode=thawed")
    frozen = composed("model=mlp", "data=digits", "model.size=tiny", "rank=2")
    spec = instantiate(cfg.data).spec
    (net, account), (scaffold, _) = build(cfg, spec), build(frozen, spec)
    start = net.body[1].W_seed.detach().clone()
    assert torch.equal(start, scaffold.body[1].W_seed)
    assert account.trainable == sum(p.numel() for p in net.parameters())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    net(torch.randn(4, 1, 8, 8)).square().sum().backward()
    optimizer.step()
    assert not torch.equal(net.body[1].W_seed, start)
    again, _ = build(cfg, spec)
    again.load_state_dict(net.state_dict())
    assert torch.equal(again.body[1].W_seed, net.body[1].W_seed)


def test_full_training_from_a_scaffold_is_the_dense_net_started_from_it(composed):
    cfg = composed("model=mlp", "data=digits", "model.size=tiny", "mode=full_from_scaffold", "init=binary")
    net, account = build(cfg, instantiate(cfg.data).spec)
    assert account.trainable == sum(p.numel() for p in net.parameters())
    assert account.trainable == account.full
    assert {name.rpartition(".")[2] for name, _ in net.body.named_parameters()} == {"W_seed", "bias"}
    assert net.body[1].W_seed.unique().tolist() == pytest.approx([-1 / 8, 1 / 8])


@pytest.mark.parametrize("rank", [1, 8])
@pytest.mark.parametrize("pair", [("model=mlp", "data=mnist"), ("model=cfc", "data=physionet2012")])
def test_narrow_net_is_the_widest_within_the_budget(composed, pair, rank):
    budget = account_of(composed(*pair, f"rank={rank}")).trainable
    cfg = composed(*pair, f"rank={rank}", "mode=small")
    account = account_of(cfg)
    assert account.trainable <= budget
    assert account.full == account_of(composed(*pair, "mode=baseline")).full
    widest = max(size for entry in account.entries[:-1] for size in entry.shape[:1])
    sizes = capped(cfg.model.sizes[cfg.model.size], cfg.model.widths, widest + 1)
    with torch.device("meta"):
        wider = net_of(cfg.model, instantiate(cfg.data).spec, sizes)
    assert sum(p.numel() for p in wider.parameters()) > budget


def test_narrow_net_of_a_model_that_names_no_widths_is_refused(composed):
    with pytest.raises(ValueError, match="mode=small needs to know which sizes of a model are widths"):
        account_of(composed("model=gcn", "data=arxiv", "mode=small"))


@pytest.mark.parametrize("size", FULL)
def test_a_baseline_trains_every_parameter(composed, size):
    with torch.device("meta"):
        _, account = build(composed("data=mnist", "mode=baseline", f"model.size={size}"), MNIST.spec)
    assert account.trainable == account.full == FULL[size]


def test_the_dry_run_as_json_is_one_line_with_the_four_counts(command):
    finished = command("model.size=medium", "rank=32", "dry_run=json")
    (line,) = finished.stdout.splitlines()
    assert json.loads(line) == {
        "trainable": 85_134,
        "internal_trainable": 84_484,  # without the head's 650
        "full": 575_050,
        "full_plus_adapters": 659_534,
    }
    assert finished.stderr == ""
