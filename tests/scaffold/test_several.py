"""Many adapters on one scaffold: each computes what it computes alone, and W_seed is there once."""

import copy

import pytest
import torch
from torch import nn

from lottalora.models.gpt import GPT
from lottalora.scaffold import Adapters
from lottalora.scaffold import Scaffold
from lottalora.scaffold import fused_as
from lottalora.scaffold import materialize
from lottalora.scaffold import merge
from lottalora.scaffold import resample
from lottalora.scaffold import scaffolds_per_row
from lottalora.scaffold import unmerge
from lottalora.scaffold import wrap
from lottalora.scaffold.whole_model.backbone import scaffold_layers

ROWS = ("c", "a", "a", "b")


def net():
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.Linear(5, 3))


def wrapped(**options):
    torch.manual_seed(0)
    model = net()
    wrap(model, Scaffold(rank=2, alpha=3, **options), keep=["3"])
    return model.eval()


def adapters_of(model, names):
    """The model's adapters, the first of them its present one; each with other values."""
    found = Adapters(model, names[0])
    for name in names:
        state = {key: torch.randn_like(tensor) for key, tensor in found.state(names[0]).items()}
        if name != names[0]:
            found.add_adapter(name, state)
    return found


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"bias": "frozen"}, {"train_beta": False}, {"rank": 0}, {"layer_norm": True}]
)
@pytest.mark.parametrize("axes", [(), (3,), (2, 3)])
def test_each_row_passes_through_its_adapter(options, axes):
    model = wrapped(**options) if "rank" not in options else net()
    if "rank" in options:
        wrap(model, Scaffold(rank=0), keep=["3"])
    adapters, x = adapters_of(model, ("a", "b", "c")), torch.randn(4, *axes, 6)
    with adapters.per_row(ROWS):
        mixed = model(x)
    for i, name in enumerate(ROWS):
        adapters.set_adapter(name)
        torch.testing.assert_close(mixed[i : i + 1], model(x[i : i + 1]))
    adapters.set_adapter("a")
    assert not torch.allclose(mixed, model(x))


def test_switching_copies_and_draws_nothing():
    model = wrapped()
    adapters = adapters_of(model, ("a", "b"))
    W_seeds = {name: layer.W_seed.data_ptr() for name, layer in scaffold_layers(model).items()}
    parameters = [id(p) for p in model.parameters()]
    adapters.set_adapter("b")
    assert adapters.active == "b" and [id(p) for p in model.parameters()] == parameters
    assert {name: layer.W_seed.data_ptr() for name, layer in scaffold_layers(model).items()} == W_seeds
    assert all(model.get_parameter(key).data_ptr() == t.data_ptr() for key, t in adapters.state("b").items())


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_a_backward_pass_of_another_adapter_than_the_one_in_use_is_refused(mode):
    model = wrapped()
    adapters, x = adapters_of(model, ["a", "b"]), torch.randn(4, 6)
    with fused_as(mode):
        loss = model(x).square().sum()
        adapters.set_adapter("a")  # the same as before
        loss.backward(retain_graph=True)
        adapters.set_adapter("b")
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_training_changes_the_adapter_in_use_alone():
    model = wrapped()
    adapters = adapters_of(model, ("a", "b"))
    adapters.set_adapter("b")
    before = {name: {k: t.clone() for k, t in adapters.state(name).items()} for name in "ab"}
    model(torch.randn(4, 6)).square().sum().backward()
    torch.optim.SGD(model.parameters(), 0.1).step()
    assert all(torch.equal(t, before["a"][k]) for k, t in adapters.state("a").items())
    assert not any(torch.equal(t, before["b"][k]) for k, t in adapters.state("b").items() if k[-1] in "AB")


@torch.no_grad()
def cast(net):
    net.double()


def assign(net):
    net.load_state_dict({key: tensor.clone() for key, tensor in net.state_dict().items()}, assign=True)


@pytest.mark.parametrize("replace", [cast, assign])
def test_adapter_whose_tensors_were_replaced_is_the_one_that_comes_back(replace):
    net = nn.Sequential(nn.Linear(8, 8))
    wrap(net, Scaffold(rank=2))
    adapters = Adapters(net)
    adapters.add_adapter("other", {key: value + 1 for key, value in adapters.state("default").items()})
    replace(net)
    with torch.no_grad():
        net[0].B.fill_(5.0)
    adapters.set_adapter("other")
    assert (net[0].B == 1).all() and net[0].B.dtype is net[0].A.dtype is net[0].W_seed.dtype
    adapters.set_adapter("default")
    assert (net[0].B == 5).all()


def test_adapters_of_a_merged_model_are_refused_until_it_is_unmerged():
    net = nn.Sequential(nn.Linear(8, 8))
    wrap(net, Scaffold(rank=2))
    adapters = Adapters(net)
    adapters.add_adapter("other", {key: value + 1 for key, value in adapters.state("default").items()})
    merged = merge(net)
    with pytest.raises(ValueError, match="'0' was merged, so it has no adapter: call unmerge first"):
        adapters.set_adapter("other")
    unmerge(net, merged)
    adapters.set_adapter("other")
    assert (net[0].B == 1).all()


def test_hundred_adapters_of_a_gpt_cost_their_own_numbers():
    torch.manual_seed(0)
    gpt = GPT([8], 50, width=32, layers=2, heads=2, mlp=48, recompute=False)
    wrap(gpt, Scaffold(rank=2), keep=["lm.model.embed_tokens"], freeze=["*.mlp", "*norm"])
    materialize(gpt, start=gpt.start)
    names = [f"customer {i}" for i in range(100)]
    adapters = adapters_of(gpt.eval(), names)
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
                for name in names for t in adapters.state(name).values()}  # fmt: skip
    trained = 2 * 4 * (2 * 2 * 32 + 1)  # layers × matrices × (A, B and β)
    assert sum(storages.values()) == 100 * 4 * trained
    tokens = torch.randint(50, (100, 8))
    with adapters.per_row(names):
        mixed = gpt(tokens)
    for i in (0, 57, 99):
        adapters.set_adapter(names[i])
        torch.testing.assert_close(mixed[i : i + 1], gpt(tokens[i : i + 1]), rtol=1e-4, atol=1e-5)


def test_what_is_no_adapter_of_the_model_is_refused():
    model = wrapped()
    adapters = Adapters(model, "a")
    state = adapters.state("a")
    with pytest.raises(ValueError, match="an adapter 'a' already"):
        adapters.add_adapter("a", state)
    with pytest.raises(ValueError, match=r"'0\.A' is missing from"):
        adapters.add_adapter("b", {key: t for key, t in state.items() if key != "0.A"})
    with pytest.raises(ValueError, match=r"'3\.weight' does not belong to"):
        adapters.add_adapter("b", state | {"3.weight": torch.zeros(3, 5)})
    with pytest.raises(ValueError, match=r"shape \(1, 6\), not \(2, 6\)"):
        adapters.add_adapter("b", state | {"0.A": torch.zeros(1, 6)})
    with pytest.raises(ValueError, match="no adapter 'b'. There are: a"):
        adapters.set_adapter("b")
    with pytest.raises(ValueError, match="no scaffold"):
        Adapters(net())
    with adapters.per_row(["a"]), pytest.raises(ValueError, match="4 rows, and adapters are named for 1"):
        model(torch.randn(4, 6))
    assert model(torch.randn(4, 6)).shape == (4, 3)  # outside the block as before
    with (
        pytest.raises(ValueError, match="no plain linear one"),
        Adapters(wrapped(dora=True)).per_row(["default"]),
    ):
        pass


class Reading(nn.Module):
    """A net that reads the weight of its layer."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)

    def forward(self, x):
        return x @ self.layer.weight.T


def test_net_that_reads_a_weight_is_refused_in_a_mixed_batch():
    model = Reading()
    wrap(model, Scaffold(rank=1))
    adapters = Adapters(model, "a")
    with adapters.per_row(["a"]), pytest.raises(ValueError, match="reads the weight of a layer"):
        model(torch.randn(1, 6))
    assert model(torch.randn(1, 6)).shape == (1, 3)


@torch.no_grad()
@pytest.mark.parametrize(
    "options", [{}, {"bias": "frozen"}, {"train_beta": False}, {"layer_norm": True}, {"family": "orthogonal"}]
)
@pytest.mark.parametrize("axes", [(), (3,)])
def test_each_row_passes_through_its_scaffold_with_one_adapter(options, axes):
    model, x, numbers = wrapped(**options), torch.randn(4, *axes, 6), (2, 0, 2, 7)
    for name, parameter in model.named_parameters():
        if name.endswith((".B", ".beta")):
            nn.init.normal_(parameter)
    with scaffolds_per_row(model, numbers):
        mixed = model(x)
    for i, number in enumerate(numbers):
        resample(model, number)
        torch.testing.assert_close(mixed[i : i + 1], model(x[i : i + 1]))
    resample(model, 0)
    assert not torch.allclose(mixed[0], model(x)[0])


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"layer_norm": True, "residual": True}])
def test_under_autocast_rows_with_their_own_have_the_dtype_of_a_batch_without(options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 6))
    wrap(model, Scaffold(rank=2, **options))
    adapters, x = adapters_of(model, ("a",)), torch.randn(2, 3, 6)
    with torch.autocast("cpu", torch.bfloat16):
        expected = model(x)
        with adapters.per_row(["a", "a"]):
            torch.testing.assert_close(model(x), expected, rtol=0.02, atol=0.05)
        with scaffolds_per_row(model, [0, 0]):
            torch.testing.assert_close(model(x), expected, rtol=0.02, atol=0.05)


def test_gradients_of_rows_on_several_scaffolds_reach_the_one_adapter():
    model, x, numbers = wrapped(), torch.randn(4, 6), (1, 2, 1, 3)
    nn.init.normal_(model[0].B)
    with scaffolds_per_row(model, numbers):
        model(x).sum().backward()
    found = model[0].A.grad.clone()
    model.zero_grad()
    for i, number in enumerate(numbers):
        resample(model, number)
        model(x[i : i + 1]).sum().backward()
    torch.testing.assert_close(found, model[0].A.grad)


def test_scaffolds_that_rows_cannot_have_are_refused():
    dora = wrapped(dora=True)
    refused = pytest.raises(ValueError, match="Layer '0' cannot take another scaffold")
    with refused, scaffolds_per_row(dora, [1]):
        pass
    model = wrapped()
    with scaffolds_per_row(model, [1, 2]):
        with pytest.raises(ValueError, match="The batch has 3 rows, and scaffolds are named for 2"):
            model(torch.randn(3, 6))
        with pytest.raises(ValueError, match="reads the weight of a layer"):
            model[0].weight.sum()
    with pytest.raises(ValueError, match="redraw must be"), scaffolds_per_row(model, [-1]):
        pass
    assert model(torch.randn(3, 6)).shape == (3, 3)


def test_training_changes_gain_and_shift_of_the_adapter_in_use_alone():
    model, x = wrapped(layer_norm=True), torch.randn(4, 6)
    adapters = Adapters(model, "a")
    adapters.add_adapter("b", adapters.state("a"))
    before = model(x)
    adapters.set_adapter("b")
    optimizer = torch.optim.SGD([p for name, p in model.named_parameters() if name[0] != "3"], 0.1)
    (model(x) - 1).square().sum().backward()
    optimizer.step()
    assert not torch.allclose(model(x), before)
    adapters.set_adapter("a")
    assert torch.equal(model(x), before)


def test_rows_with_their_own_adapters_have_its_dropout_in_training():
    model = wrapped(dropout=0.5).train()
    adapters, x = adapters_of(model, ("a", "b")), torch.randn(1, 6).expand(1000, 6)
    with torch.no_grad(), adapters.per_row(["b"] * 1000):
        h = model[0](x)
        expected = model.eval()[0](x)
    assert not torch.allclose(h[0], h[1])
    torch.testing.assert_close(h.mean(0), expected[0], rtol=0.1, atol=0.5)


@pytest.mark.parametrize(
    "time_first",
    [nn.MultiheadAttention(6, 2), nn.TransformerEncoderLayer(6, 2, 8), nn.Transformer(6, 2, 1, 1)],
)
@pytest.mark.parametrize("keep", [[], [nn.MultiheadAttention]])
def test_rows_of_a_model_whose_first_axis_counts_time_are_refused(time_first, keep):
    model = nn.Sequential(nn.Linear(6, 6), copy.deepcopy(time_first))
    wrap(model, Scaffold(rank=2), keep=keep)
    adapters, x = Adapters(model, "a"), torch.randn(3, 6)
    for block in (lambda: adapters.per_row(["a"] * 3), lambda: scaffolds_per_row(model, [0, 1, 2])):
        if keep and isinstance(time_first, nn.MultiheadAttention):  # no layer of ours reads what it does
            with block():
                model[0](x)
            continue
        with pytest.raises(ValueError, match="has batch_first=False, so the first axis counts time"), block():
            pass
