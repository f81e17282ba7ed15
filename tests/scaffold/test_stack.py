"""Layers that read the same x, computed together: the numbers of each by itself, and when they are not."""

import copy
import itertools
import pickle
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from lottalora.models import decision_transformer
from lottalora.models import distilbert
from lottalora.scaffold import Scaffold
from lottalora.scaffold import fused_as
from lottalora.scaffold import merge
from lottalora.scaffold import paths_taken
from lottalora.scaffold import unmerge
from lottalora.scaffold import wrap
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.fused.cost import cheapest_stack
from lottalora.scaffold.layers import stack
from lottalora.scaffold.layers.scope import scope
from lottalora.scaffold.layers.stack import How
from lottalora.scaffold.layers.stack import Parts
from lottalora.scaffold.layers.stack import Stacked

DOUBLE = torch.float64
FORMS = (Form.ACCUMULATE, Form.MERGE)


class Attention(nn.Module):
    """Reads what it is told to by q, k and v."""

    share_input = (("q", "k", "v"),)

    def __init__(self, width=6, *, bias=True, outs=(6, 4, 4)):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(width, out, bias=bias) for out in outs)

    def forward(self, x, read=lambda attention, x: (attention.q(x), attention.k(x), attention.v(x))):
        return torch.cat(read(self, x), dim=-1)


class Sharing(nn.Module):
    """A class of somebody else with an attribute of that name."""

    def __init__(self):
        super().__init__()
        self.q, self.k = nn.Linear(6, 6), nn.Linear(6, 6)

    def forward(self, x):
        return self.q(x) + self.k(x)


@pytest.mark.parametrize("value", [True, "qk", ["q", "k"], ("q", "k"), (("q", 1),), {"q": "k"}, None, ()])
def test_attribute_of_that_name_with_another_meaning_is_ignored(value):
    net, x = (
        type("Sharing", (Sharing,), {"share_input": value, "forward": Sharing.forward})(),
        torch.randn(3, 6),
    )
    wrap(net, Scaffold(rank=2))
    assert torch.equal(net(x), net.q(x) + net.k(x)) and not net._forward_pre_hooks


def made(beta=0.7, *, dtype=DOUBLE, layers=None, rank=2, **options):
    torch.manual_seed(0)
    net = Attention() if layers is None else layers
    wrap(net, Scaffold(rank=rank, **options))
    for name, p in net.named_parameters():
        if name.endswith(("B", "bias")):
            nn.init.normal_(p, std=0.3)
        if name.endswith("beta"):
            nn.init.constant_(p, beta)
    return net.to(dtype)


def gradients(net, h, *inputs):
    wanted = [*inputs, *(p for p in net.parameters() if p.requires_grad)]
    torch.manual_seed(1)
    found = torch.autograd.grad(h, wanted, torch.randn_like(h), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(wanted, found, strict=True)]


def by(form, monkeypatch):
    """Let the stack take this form."""
    monkeypatch.setattr(stack, "cheapest_stack", lambda *_, **__: form)


def both(net, *args):
    """Output and gradients by the reference, and by what is cheapest."""
    results = []
    for mode in (fused_as("off"), nullcontext()):
        with mode:
            given = [x.detach().requires_grad_() for x in args]
            h = net(*given)
            results.append([h, *gradients(net, h, *given)])
    return results


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("beta", [-0.7, 0.0])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("rows", [1, 30])
def test_output_and_gradients_are_those_of_each_layer(form, beta, bias, rows, monkeypatch):
    by(form, monkeypatch)
    monkeypatch.setattr(stack, "VALUES", 20 * 9)
    monkeypatch.setattr(stack, "FEWEST", 9)  # 30 rows make several blocks
    net = made(beta, layers=Attention(bias=bias), alpha=7.0)
    torch.testing.assert_close(*both(net, torch.randn(2, rows, 6, dtype=DOUBLE)))
    assert paths_taken(net) == {"stack": 3}


def test_gradient_that_can_be_differentiated_counts_a_tied_part_once(monkeypatch):
    by(Form.ACCUMULATE, monkeypatch)
    net = made()
    net.k.beta = net.q.beta
    h = net(torch.randn(5, 6, dtype=DOUBLE)).square().sum()
    (once,) = torch.autograd.grad(h, [net.q.beta], retain_graph=True)
    (again,) = torch.autograd.grad(h, [net.q.beta], create_graph=True)
    torch.testing.assert_close(again, once)


@pytest.mark.parametrize("dropout", [0.0, 0.4])
def test_first_and_second_derivatives_pass_gradcheck(dropout):
    net = made()
    layers = [net.q, net.k]
    how = How(1.5, dropout, 3)

    def h(x, q_bias, k_bias, *trained):
        parts = [Parts(layer.W_seed, *trained[3 * i : 3 * i + 3]) for i, layer in enumerate(layers)]
        return Stacked.apply(x, how, *itertools.chain(*parts), q_bias, k_bias)

    trained = [p for layer in layers for p in (layer.beta, layer.A, layer.B)]
    x = torch.randn(3, 6, dtype=DOUBLE, requires_grad=True)
    given = [x, net.q.bias, net.k.bias, *trained]
    assert torch.autograd.gradcheck(h, given, fast_mode=True)
    assert torch.autograd.gradgradcheck(h, given, fast_mode=True)


@pytest.mark.parametrize("form", FORMS)
def test_an_output_that_is_not_used_has_no_gradient(form, monkeypatch):
    by(form, monkeypatch)
    net = made()
    x = torch.randn(5, 6, dtype=DOUBLE)
    for used in (slice(0, 6), slice(6, 10)):
        of = {mode: [] for mode in ("off", "auto")}
        for mode, found in of.items():
            with fused_as(mode):
                found += gradients(net, net(x)[:, used])
        torch.testing.assert_close(*of.values())


def test_stacked_layers_share_the_mask_of_their_dropout(monkeypatch):
    by(Form.ACCUMULATE, monkeypatch)
    net = made(0.0, layers=Attention(40, bias=False, outs=(40, 40, 40)), rank=40, dropout=0.3)
    for layer in (net.q, net.k, net.v):
        nn.init.eye_(layer.A)
        nn.init.eye_(layer.B)
    x = torch.ones(4, 40, dtype=DOUBLE, requires_grad=True)
    q, k, v = net(x).chunk(3, dim=1)
    assert torch.equal(q, k) and torch.equal(q, v) and 0 < (q == 0).sum() < q.numel()
    torch.testing.assert_close(q[q != 0], torch.full_like(q[q != 0], 1 / 0.7))
    (dx,) = torch.autograd.grad(q.sum(), x)
    torch.testing.assert_close(dx, q.detach())  # the same mask
    assert torch.equal(net.eval()(x), x.repeat(1, 3))


def saved_bytes(net, x):
    storages = {}

    def keep(tensor):
        storages[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        h = net(x * 1)
    return sum(storages.values()), h


@pytest.mark.parametrize(("width", "rows", "dropout"), [(32, 200, 0.0), (64, 1000, 0.0), (32, 200, 0.1)])
def test_no_more_is_saved_than_by_each_layer(width, rows, dropout, monkeypatch):
    net = made(layers=Attention(width, outs=(width,) * 3), dtype=torch.float32, dropout=dropout)
    x = torch.randn(rows, width, requires_grad=True)
    for form in FORMS[: 1 if dropout else 2]:
        by(form, monkeypatch)
        together, _ = saved_bytes(net, x)
        assert paths_taken(net) == {"stack": 3}
        with fused_as("merge" if form is Form.MERGE else "accumulate"):
            alone, _ = saved_bytes(net, x)
        assert together <= alone


def our_decision_transformer():
    net = nn.ModuleList(decision_transformer.Block(16, 2, 0.0, depth=2) for _ in range(2))
    wrap(net, Scaffold(rank=2))
    seen = torch.ones(2, 1, 6, 6, dtype=torch.bool)
    return net, lambda: net[1](net[0](torch.ones(2, 6, 16, dtype=DOUBLE), seen), seen, slice(1, None, 3)), 5


def our_distilbert():
    net = nn.ModuleList(distilbert.Block(16, 2, 24, 0.0, 0.0) for _ in range(2))
    wrap(net, Scaffold(rank=2))
    mask = torch.ones(2, 1, 1, 6, dtype=torch.bool)
    return net, lambda: net[1](net[0](torch.ones(2, 6, 16, dtype=DOUBLE), mask), mask, slice(0, 1)), 5


def torch_encoder():
    net = nn.TransformerEncoderLayer(16, 2, 24, dropout=0.0)
    wrap(net, Scaffold(rank=2))
    return net, lambda: net(torch.ones(5, 2, 16, dtype=DOUBLE)), 3


@pytest.mark.parametrize("build", [our_decision_transformer, our_distilbert, torch_encoder])
def test_known_models_stack_and_train_as_the_reference_does(build):
    """20 steps; k and v alone are stacked where q reads other rows, in the last block."""
    ends, states = [], []
    for mode in ("off", "auto"):
        torch.manual_seed(0)
        net, run, stacked = build()
        net.double()
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2)
        with fused_as(mode):
            for _ in range(20):
                optimizer.zero_grad()
                h = run()
                (h - torch.linspace(-1, 1, h.numel(), dtype=DOUBLE).view(h.shape)).square().mean().backward()
                optimizer.step()
        assert paths_taken(net).get("stack", 0) == (stacked if mode == "auto" else 0)
        ends.append(run())
        states.append(list(net.state_dict()))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)
    assert states[0] == states[1]


def test_cross_attention_stacks_what_reads_one_tensor():
    net = made(layers=nn.MultiheadAttention(8, 2, batch_first=True))
    x, other = torch.randn(2, 1, 3, 8, dtype=DOUBLE)
    net(x, other, other)
    assert paths_taken(net) == {"stack": 2, "merge": 2}
    net(x, other, other.clone())
    assert paths_taken(net) == {"merge": 4}


@pytest.mark.parametrize(
    "read",
    [
        lambda a, x: (a.q(x), a.k(x), a.v(x + 1)),
        lambda a, x: (a.q(x), a.k(x[:]), a.v(x)),
        lambda a, x: (a.q(x[:1]), a.k(x[:1]), a.v(x[1:2])),
        lambda a, x: (a.v(x), a.v(x), a.q(x), a.q(2 * x), a.k(x)),
        lambda a, x: (a.k(x),),
    ],
)
def test_each_layer_computes_what_it_is_called_with(read):
    net, x = made(), torch.randn(4, 6, dtype=DOUBLE)
    torch.testing.assert_close(*both(lambda_module(net, read), x))


def lambda_module(net, read):
    """The net with another forward pass."""
    bound = copy.copy(net)
    bound.forward = lambda x: torch.cat(read(net, x), dim=-1)
    return bound


def test_a_write_to_x_is_noticed():
    net, x = made(), torch.randn(4, 6, dtype=DOUBLE)

    def read(attention, x):
        return attention.q(x), attention.k(x.mul_(2)), attention.v(x)

    with fused_as("off"):
        expected = net(x.clone(), read)
    torch.testing.assert_close(net(x, read), expected)


def test_nothing_is_kept_when_the_forward_pass_ends_or_fails():
    net, x, seen = made(), torch.randn(4, 6, dtype=DOUBLE), []

    def read(attention, x):
        h = (attention.q(x),)
        seen.append(len(scope.get().waiting))
        if len(seen) == 2:
            raise RuntimeError("on purpose")
        return h

    net(x, read)
    assert scope.get() is None
    with pytest.raises(RuntimeError, match="on purpose"):
        net(x, read)
    assert scope.get() is None and seen == [2, 2]


def hook(net):
    net.k.register_forward_hook(lambda *_: None)


def mode(net):
    net.v.fused = "accumulate"


def other_scale(net):
    net.v.adapter = copy.copy(net.v.adapter)
    object.__setattr__(net.v.adapter, "alpha", 5.0)


def replaced(net):
    net.k = nn.Linear(6, 4, dtype=DOUBLE)


def half_trained(net):
    net.k.eval()


@pytest.mark.parametrize(
    ("change", "stacked"), [(hook, 0), (mode, 0), (other_scale, 0), (half_trained, 0), (replaced, 2)]
)
def test_layers_that_differ_compute_by_themselves(change, stacked):
    net = made()
    change(net)
    torch.testing.assert_close(*both(net, torch.randn(4, 6, dtype=DOUBLE)))
    assert paths_taken(net).get("stack", 0) == stacked


@pytest.mark.parametrize("options", [{"dora": True}, {"layer_norm": True}, {"train_beta": False}])
def test_layers_with_other_parts_compute_by_themselves(options):
    net = made(**options)
    torch.testing.assert_close(*both(net, torch.randn(4, 6, dtype=DOUBLE)))
    assert "stack" not in paths_taken(net)


def test_transforms_and_autocast_take_each_layer():
    net, x = made(dtype=torch.float32), torch.randn(4, 6)
    with torch.autocast("cpu", torch.bfloat16):
        net(x)
    assert "stack" not in paths_taken(net)
    parameters = dict(net.named_parameters())
    per_row = torch.func.vmap(lambda row: torch.func.functional_call(net, parameters, (row[None],))[0])(x)
    torch.testing.assert_close(per_row, net(x), rtol=1e-4, atol=1e-5)


def test_compiling_in_one_graph_computes_the_same():
    net, x = made(), torch.randn(4, 6, dtype=DOUBLE)
    torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(x), net(x))


@pytest.mark.parametrize("reentrant", [True, False])
def test_checkpointing_recomputes_the_same(reentrant, monkeypatch):
    by(Form.ACCUMULATE, monkeypatch)
    net = made(dropout=0.3)
    x = torch.randn(4, 6, dtype=DOUBLE, requires_grad=True)
    results = []
    for run in (net, lambda x: checkpoint(net, x * 1, use_reentrant=reentrant)):
        net.zero_grad()
        torch.manual_seed(5)
        run(x).square().sum().backward()
        results.append([p.grad.clone() for p in net.parameters()])
    torch.testing.assert_close(*results)
    assert paths_taken(net) == {"stack": 3}


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
def test_a_copy_stacks_its_own_layers(copied):
    net, x = made(), torch.randn(4, 6, dtype=DOUBLE)
    other = copied(net)
    nn.init.zeros_(other.k.B)
    assert not torch.equal(other(x), net(x))
    torch.testing.assert_close(*both(other, x))
    assert paths_taken(other) == {"stack": 3}


def test_threads_do_not_see_each_others_outputs():
    net = made()
    inputs = torch.randn(40, 4, 6, dtype=DOUBLE)
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(net, inputs))
    torch.testing.assert_close(found, [net(x) for x in inputs])


def test_merging_leaves_no_hook_and_unmerging_brings_it_back():
    net, x = made(), torch.randn(4, 6, dtype=DOUBLE)
    before = net(x)
    merged = merge(net)
    assert not net._forward_hooks and not net._forward_pre_hooks
    torch.testing.assert_close(F.linear(x, net.q.weight, net.q.bias), before[:, :6])
    unmerge(net, merged)
    torch.testing.assert_close(net(x), before)
    assert paths_taken(net) == {"stack": 3} and len(net._forward_hooks) == 1


def test_the_cheaper_way_is_counted():
    shapes = {  # width, rows → the form without and with dropout
        (128, 3840): (Form.MERGE, Form.ACCUMULATE),
        (384, 1576): (Form.ACCUMULATE, Form.ACCUMULATE),
        (256, 88): (None, None),
    }
    for (width, rows), forms in shapes.items():
        found = [cheapest_stack((width,) * 3, width, 8, rows, dropout=drops) for drops in (False, True)]
        assert tuple(found) == forms


@pytest.mark.parametrize("dropout", [0.0, 0.2])
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("shape", [(5, 6), (2, 3, 6)], ids=str)
def test_output_can_be_written_into_as_that_of_a_plain_layer_can(shape, form, dropout, monkeypatch):
    by(form, monkeypatch)
    net, x = made(dropout=dropout), torch.randn(shape, dtype=DOUBLE)

    def result(*, inplace):
        torch.manual_seed(2)
        given = x.clone().requires_grad_()
        h = net(given, lambda net, x: [F.relu(layer(x), inplace) for layer in (net.q, net.k, net.v)])
        return [h, *gradients(net, h, given)]

    torch.testing.assert_close(result(inplace=True), result(inplace=False), rtol=0, atol=0)


def without_gradients(net, h):
    with torch.no_grad():
        return net.k(h)


def in_half_precision(net, h):
    with torch.autocast("cpu", torch.bfloat16):
        return net.k(h)


def with_other_weights(net, h):
    return torch.func.functional_call(net.k, {"B": net.k.B + 1}, h)


def after(change):
    def read(net, h):
        with torch.no_grad():
            change(net.k)
        return net.k(h)

    return read


BETWEEN = {
    "no_grad": without_gradients,
    "autocast": in_half_precision,
    "functional_call": with_other_weights,
    "eval": after(lambda layer: layer.eval()),
    "B": after(lambda layer: layer.B.add_(1)),
    "A": after(lambda layer: layer.A.add_(1)),
    "beta": after(lambda layer: layer.beta.add_(1)),
    "bias": after(lambda layer: layer.bias.add_(1)),
    "W_seed": after(lambda layer: layer.W_seed.add_(1)),
    "another B": after(lambda layer: setattr(layer, "B", nn.Parameter(layer.B + 1))),
}


@pytest.mark.parametrize("name", BETWEEN)
def test_what_happens_between_two_layers_counts_for_the_second(name, monkeypatch):
    by(Form.ACCUMULATE, monkeypatch)
    found = []
    for mode in (fused_as("off"), nullcontext()):
        net = made(dtype=torch.float32, dropout=0.5 if name == "eval" else 0.0)
        with mode:
            net(torch.ones(5, 6), lambda net, x: (net.q(x), found.append(BETWEEN[name](net, x)))[:1])  # noqa: B023
    assert found[0].dtype is found[1].dtype and found[0].requires_grad is found[1].requires_grad
    tolerance = {"rtol": 0.02, "atol": 0.001} if name == "autocast" else {}
    torch.testing.assert_close(found[0], found[1], **tolerance)
