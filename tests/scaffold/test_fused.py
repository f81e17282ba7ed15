"""The fast path against the equation: gradients in float64, what is saved, and when it steps back."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.checkpoint import checkpoint

from lottalora.scaffold import Adapter
from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import Source
from lottalora.scaffold import fused_as
from lottalora.scaffold import paths_taken
from lottalora.scaffold import set_fused
from lottalora.scaffold import wrap
from lottalora.scaffold.fused import linear as fused
from lottalora.scaffold.fused.blocks import blocks_of
from lottalora.scaffold.fused.cost import Form
from lottalora.scaffold.fused.dropout import draw_masks
from lottalora.scaffold.fused.dropout import joined
from lottalora.scaffold.fused.dropout import zero_some_
from lottalora.scaffold.layers import path

DOUBLE = torch.float64
FAST = (Form.ADD, Form.ACCUMULATE, Form.COMPOSE, Form.MERGE)
NAMES = ("x", "W", "beta", "A", "B", "bias")


def parts(beta=1.0, *, rank=2, bias=True, rows=(2, 3), out=3, columns=5, dtype=DOUBLE, wants=NAMES):
    """The tensors of one layer, by name; W needs no gradient, and of the others those in `wants` do."""
    torch.manual_seed(0)
    made = {
        "x": torch.randn(*rows, columns, dtype=dtype),
        "W": torch.randn(out, columns, dtype=dtype),
        "beta": None if beta is None else torch.tensor(beta, dtype=dtype),
        "A": torch.randn(rank, columns, dtype=dtype) if rank else None,
        "B": torch.randn(out, rank, dtype=dtype) if rank else None,
        "bias": torch.randn(out, dtype=dtype) if bias else None,
    }
    for name, value in made.items():
        if value is not None and name in wants and name != "W":
            value.requires_grad_()
    return made


def equation(x, W, beta, A, B, bias, *, scale, mask=1.0):
    """h as `layer.py` writes it."""
    h = F.linear(x, W) * (1 if beta is None else beta)
    if A is not None:
        h = h + scale * F.linear(F.linear(x * mask, A), B)
    return h if bias is None else h + bias


def masked(x, probability, seed, out=3):
    """x with the zeros of adapter dropout."""
    blocks = blocks_of(x, out)
    return zero_some_(x, joined(list(draw_masks(x, blocks, probability, seed)), blocks, x))


def gradients(h, made):
    wanted = [value for value in made.values() if value is not None and value.requires_grad]
    torch.manual_seed(1)
    return torch.autograd.grad(h, wanted, torch.randn_like(h))


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("beta", [1.0, -0.7, 1e-4, 0.0, None])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(("rank", "scale"), [(2, 1.0), (2, 3.5), (2, 0.0), (0, 0.0)])
def test_output_and_gradients_are_those_of_the_equation(form, beta, bias, rank, scale):
    made = parts(beta, rank=rank, bias=bias)
    h = fused.linear(**made, scale=scale, form=form)
    expected = equation(**made, scale=scale)
    torch.testing.assert_close(h, expected)
    torch.testing.assert_close(gradients(h, made), gradients(expected, made))


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("beta", [1.0, -0.7, 1e-4, 0.0])
def test_first_and_second_derivatives_pass_gradcheck(form, beta):
    made = parts(beta)

    def h(x, beta, A, B, bias):
        return fused.linear(x, made["W"], beta, A, B, bias, scale=1.5, form=form)

    given = [made[name] for name in NAMES if name != "W"]
    assert torch.autograd.gradcheck(h, given)
    assert torch.autograd.gradgradcheck(h, given)


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize(
    "wants", [c for k in range(1, 6) for c in itertools.combinations(NAMES[:1] + NAMES[2:], k)]
)
def test_any_part_may_be_frozen(form, wants):
    made = parts(0.3, wants=wants)
    h, expected = fused.linear(**made, scale=2.0, form=form), equation(**made, scale=2.0)
    torch.testing.assert_close(gradients(h, made), gradients(expected, made))


@pytest.mark.parametrize("beta", [1.0, -0.7, 1e-4, 0.0, None])
@pytest.mark.parametrize("probability", [0.1, 0.5])
@pytest.mark.parametrize("rows", [(3,), (40, 8)])  # few values and many: the masks are drawn in other ways
def test_dropout_is_one_mask_forward_and_backward(beta, probability, rows):
    made = parts(beta, rows=rows, columns=16)
    torch.manual_seed(7)
    h = fused.linear(**made, scale=1.5, form=Form.ACCUMULATE, dropout=probability)
    torch.manual_seed(7)
    seed = int(torch.randint(2**62, ()))
    ones = torch.ones_like(made["x"].detach().reshape(-1, 16))
    mask = masked(ones, probability, seed).view(made["x"].shape) / (1 - probability)
    expected = equation(**made, scale=1.5, mask=mask)
    torch.testing.assert_close(h, expected)
    torch.testing.assert_close(gradients(h, made), gradients(expected, made))


@pytest.mark.parametrize("rows", [200, 8000])  # one block and several
def test_dropout_takes_an_input_that_lies_transposed(rows):
    made = parts(rows=(rows,), columns=64)
    results = []
    for x in (made["x"], made["x"].detach().T.contiguous().T.requires_grad_()):
        torch.manual_seed(0)
        h = fused.linear(**made | {"x": x}, scale=1.5, form=Form.ACCUMULATE, dropout=0.3)
        results.append((h, *torch.autograd.grad(h.square().sum(), [x, made["A"], made["B"]])))
    torch.testing.assert_close(*results)


def test_dropout_can_be_differentiated_twice():
    made = parts(0.5, rows=(4,))

    def h(x, beta, A, B):
        torch.manual_seed(7)
        return fused.linear(x, made["W"], beta, A, B, None, scale=1.5, form=Form.ACCUMULATE, dropout=0.3)

    assert torch.autograd.gradgradcheck(h, [made[name] for name in ("x", "beta", "A", "B")])


@pytest.mark.parametrize("probability", [0.1, 0.5])
@pytest.mark.parametrize("count", [1000, 10**6])
def test_the_seeded_mask_has_the_share_of_zeros_asked_for(count, probability):
    zeros = (masked(torch.ones(1, count), probability, 3) == 0).float().mean().item()
    assert zeros == pytest.approx(probability, abs=4 * (probability / count) ** 0.5)
    again, other = (
        masked(torch.ones(1, count), probability, 3),
        masked(torch.ones(1, count), probability, 4),
    )
    assert torch.equal(masked(torch.ones(1, count), probability, 3), again)
    assert not torch.equal(again, other)


@pytest.mark.parametrize("form", FAST)
def test_views_as_input_give_the_same_and_nothing_given_is_changed(form):
    made = parts(0.8, rows=(5,), columns=6)
    wide = torch.randn(6, 5, 2, dtype=DOUBLE)
    x = wide.transpose(0, 2)[1].detach().requires_grad_()  # (5, 6), not contiguous
    made["x"] = x
    before = {name: value.detach().clone() for name, value in made.items()}
    h, expected = fused.linear(**made, scale=2.0, form=form), equation(**made, scale=2.0)
    dh = torch.ones((), dtype=DOUBLE).expand_as(h)  # as sum() gives it: all one number
    ours = torch.autograd.grad(h, [made[n] for n in NAMES if n != "W"], dh)
    theirs = torch.autograd.grad(expected, [made[n] for n in NAMES if n != "W"], dh)
    torch.testing.assert_close(ours, theirs)
    assert all(torch.equal(made[name], before[name]) for name in NAMES)


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("shape", [(5,), (0, 5), (2, 0, 5), (1, 1, 1, 5)])
def test_any_number_of_axes_and_of_rows(form, shape):
    made = parts(0.8) | {"x": torch.randn(shape, dtype=DOUBLE, requires_grad=True)}
    h, expected = fused.linear(**made, scale=2.0, form=form), equation(**made, scale=2.0)
    torch.testing.assert_close(h, expected)
    torch.testing.assert_close(gradients(h, made), gradients(expected, made))


def test_a_changed_input_is_noticed_in_the_backward_pass():
    made = parts()
    x = made["x"] * 1
    h = fused.linear(**made | {"x": x}, scale=1.0, form=Form.ACCUMULATE)
    x.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        h.sum().backward()


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_close_as_its_rounding(form, dtype):
    made = parts(0.7, out=32, columns=64, rows=(16,), dtype=torch.float32)
    lower = {n: v.detach().to(dtype).requires_grad_(v.requires_grad) for n, v in made.items()}
    lower["beta"], lower["A"], lower["B"] = made["beta"], made["A"], made["B"]  # as adapter_dtype keeps them
    h, expected = fused.linear(**lower, scale=2.0, form=form), equation(**made, scale=2.0)
    assert h.dtype is dtype
    assert (h.float() - expected).norm() < 0.01 * expected.norm()
    ours = torch.autograd.grad(h.float().square().mean(), [lower[n] for n in NAMES if n != "W"])
    theirs = torch.autograd.grad(expected.square().mean(), [made[n] for n in NAMES if n != "W"])
    for mine, true in zip(ours, theirs, strict=True):
        assert (mine.float() - true).norm() < 0.03 * true.norm()
    assert ours[1].dtype is torch.float32


def saved_bytes(compute, apart):
    """Bytes that a graph keeps, each memory once, without those of the tensors `apart`."""
    known, kept = {t.untyped_storage().data_ptr() for t in apart if t is not None}, {}

    def pack(tensor):
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        h = compute()
    del h
    return sum(storage.nbytes() for storage in kept.values())


def layer(out=48, columns=32, *, bias=True, dtype=torch.float32, **options):
    torch.manual_seed(0)
    b = nn.Parameter(torch.randn(out, dtype=dtype)) if bias else None
    made = LottaLinear(torch.randn(out, columns, dtype=dtype) / 6, Adapter(**{"rank": 4, **options}), bias=b)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return made


def by_peft(ours):
    """PEFT's layer of the same sizes, its bias frozen as it is there."""
    peft = pytest.importorskip("peft", reason="PEFT is not installed")
    out, columns = ours.W_seed.shape
    dense = nn.Sequential(nn.Linear(columns, out))
    config = peft.LoraConfig(r=ours.adapter.rank, target_modules=["0"], lora_dropout=ours.adapter.dropout)
    return peft.get_peft_model(dense, config).train()


@pytest.mark.parametrize(
    ("mode", "dropout"),
    [("compose", 0.0), ("accumulate", 0.0), ("accumulate", 0.1), ("accumulate", 0.5)],
)
@pytest.mark.parametrize("autocast", [False, True])
def test_no_more_is_saved_than_by_peft(mode, autocast, dropout):
    ours = layer(256, 128, dropout=dropout).train()
    theirs = by_peft(ours)
    x = torch.randn(1000, 128, requires_grad=True)

    def count(module):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast), fused_as(mode):
            return saved_bytes(lambda: module(x), [x, *module.parameters(), *module.buffers()])

    assert count(ours) <= 1.01 * count(theirs)


@pytest.mark.parametrize("bias", [True, False])
def test_a_frozen_layer_saves_nothing_of_its_own(bias):
    frozen = layer(rank=0, train_beta=False, bias=bias)
    x = torch.randn(1000, 32, requires_grad=True)
    with fused_as("force"):
        assert saved_bytes(lambda: frozen(x.relu()), [x, *frozen.parameters(), frozen.W_seed]) == x.nbytes


@pytest.mark.parametrize(
    "options",
    [{}, {"rank": 0}, {"dora": True}, {"residual": True, "layer_norm": True}, {"train_beta": False}],
)
def test_100_steps_are_those_of_the_reference(options):
    torch.manual_seed(3)
    batches = torch.randn(100, 64, 32)
    ends = []
    for mode in ("force", "off"):
        net = nn.Sequential(layer(32, 32, **options), nn.Tanh(), layer(32, 32, **options))
        assert set_fused(net, mode) == 2
        optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
        for x in batches:
            optimizer.zero_grad()
            (net(x) - x).square().mean().backward()
            optimizer.step()
        ends.append([parameter.detach() for parameter in net.parameters()])
        assert ("reference" in paths_taken(net)) == (mode == "off")
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-5)


def test_the_fast_path_runs_by_itself_and_shows_it():
    ours, x = layer(512, 1024), torch.randn(256, 1024, requires_grad=True)  # 2²⁷ multiply-adds
    assert paths_taken(ours) == {"none": 1}
    assert ours(x).grad_fn.name() == "FusedBackward"
    assert paths_taken(ours) == {"accumulate": 1}
    assert "by accumulate" in repr(ours)
    set_fused(ours, "off")
    assert ours(x).grad_fn.name() != "FusedBackward"
    assert paths_taken(ours) == {"reference": 1}


def test_each_size_takes_the_form_that_is_cheapest_for_it():
    tiny, small = layer(64, 128, rank=8), layer(128, 256, rank=8)
    for made, rows, form in ((tiny, 128, Form.MERGE), (small, 128, Form.ACCUMULATE), (small, 16, Form.ADD)):
        made(torch.randn(rows, made.in_features, requires_grad=True))
        assert made.taken is form
    dropping = layer(dropout=0.5).train()
    dropping(torch.randn(5, 32, requires_grad=True))
    assert dropping.taken is Form.ACCUMULATE


@pytest.mark.parametrize("form", FAST)
@pytest.mark.parametrize("probability", [0.0, 0.1])
@pytest.mark.parametrize("bias", [True, False])
def test_rows_in_blocks_give_what_all_of_them_give(form, probability, bias, monkeypatch):
    if probability and form is not Form.ACCUMULATE:
        pytest.skip("only accumulating has dropout")
    monkeypatch.setattr("lottalora.scaffold.fused.blocks.FEWEST", 600)
    monkeypatch.setattr("lottalora.scaffold.fused.blocks.VALUES", 1)
    made = parts(0.7, rows=(13, 100), columns=16, bias=bias)  # 1,300 rows: two blocks and a bit
    assert len(blocks_of(made["x"].flatten(0, 1), 3)) == 3
    torch.manual_seed(7)
    h = fused.linear(**made, scale=1.5, form=form, dropout=probability)
    torch.manual_seed(7)
    seed = int(torch.randint(2**62, ()))
    ones = torch.ones(1300, 16, dtype=DOUBLE)
    mask = masked(ones, probability, seed).view(13, 100, 16) / (1 - probability) if probability else 1.0
    expected = equation(**made, scale=1.5, mask=mask)
    torch.testing.assert_close(h, expected)
    torch.testing.assert_close(gradients(h, made), gradients(expected, made))
    if probability:
        assert 0 < (mask == 0).double().mean() < 0.2

        def of_x(x):
            torch.manual_seed(7)
            given = made | {"x": x}
            return fused.linear(**given, scale=1.5, form=form, dropout=probability).square().sum()

        first = torch.autograd.grad(of_x(made["x"]), made["x"], create_graph=True)[0]
        second = torch.autograd.grad(first.sum(), made["x"])[0]
        assert second.isfinite().all() and second.any()


def test_the_account_names_the_form_of_the_last_training_step():
    net = nn.Sequential(nn.Linear(128, 64), nn.Linear(64, 128), nn.Linear(128, 5))
    account = wrap(net, Scaffold(rank=4), keep=["2"])
    assert "form" not in account.table()
    forms = [line.split()[-1] for line in account.table(net).splitlines()[:4]]
    assert forms[0] == "form" and not set(forms[1:]) & set(path.MODES)
    net[1].fused = "accumulate"
    net(torch.randn(128, 128)).sum().backward()
    lines = account.table(net).splitlines()
    assert lines[1].endswith("merge") and lines[2].endswith("accumulate")
    assert lines[1].index("merge") == lines[2].index("accumulate") == lines[0].index("form")
    with torch.no_grad(), fused_as("off"):
        net(torch.randn(128, 128))
    assert paths_taken(net) == {"merge": 1, "accumulate": 1}  # scoring by another form changes nothing
    _ = net[1].weight.sum()
    assert paths_taken(net) == {"merge": 2}


@pytest.mark.parametrize("beta", [-0.7, 0.0])
def test_a_read_weight_is_added_up_in_fewer_calls_and_is_as_written_where_fused_is_off(beta):
    model = nn.Sequential(nn.Linear(5, 3))
    wrap(model, Scaffold(rank=2, alpha=5, B_init="kaiming"))
    layer = model.double()[0]
    nn.init.constant_(layer.beta, beta)
    given = [layer.beta, layer.A, layer.B]
    found, gradients = [], []
    for mode, function in (("auto", "AddmmBackward0"), ("off", "AddBackward0")):
        with fused_as(mode):
            W = layer._matrix()
        assert type(W.grad_fn).__name__ == function
        found.append(W)
        gradients.append(torch.autograd.grad(W, given, torch.arange(15, dtype=DOUBLE).view(3, 5)))
    torch.testing.assert_close(*found)
    torch.testing.assert_close(*gradients)
    with torch.autocast("cpu", torch.bfloat16):
        assert layer.float()._matrix().dtype is torch.float32


def test_half_precision_never_rounds_the_composed_matrix():
    rows = torch.randn(2048, 256)
    ours = layer(256, 256)
    ours(rows.requires_grad_())
    assert ours.taken is Form.COMPOSE
    with torch.autocast("cpu", torch.bfloat16):
        assert ours(rows).dtype is torch.bfloat16
    assert ours.taken is Form.ACCUMULATE


def test_backward_inside_autocast_computes_in_the_dtype_of_the_forward_pass():
    net = nn.Sequential(nn.Linear(300, 200))
    wrap(net, Scaffold(rank=4))
    nn.init.normal_(net[0].B, std=0.1)
    x, dh, found = torch.randn(64, 300, requires_grad=True), torch.randn(64, 200), []
    for inside in (False, True):
        with fused_as("accumulate"):
            h = net(x)
        with torch.autocast("cpu", torch.bfloat16, enabled=inside):
            found.append(torch.autograd.grad(h, [x, net[0].A, net[0].B, net[0].beta], dh))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_autocast_gives_the_gradients_of_the_reference():
    ours = layer(bias=False)
    x = torch.randn(40, 32, requires_grad=True)
    found = []
    for mode in ("accumulate", "off"):
        with torch.autocast("cpu", torch.bfloat16), fused_as(mode):
            h = ours(x)
        found.append(torch.autograd.grad(h.float().square().mean(), [x, *ours.parameters()]))
    for mine, theirs in zip(*found, strict=True):
        assert mine.dtype is theirs.dtype
        assert (mine - theirs).norm() < 0.02 * theirs.norm()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_checkpointing_recomputes_the_same(dropout):
    ours = layer(dropout=dropout).train()
    x = torch.randn(400, 32, requires_grad=True)
    found = []
    for call in (ours, lambda x: checkpoint(ours, x, use_reentrant=False)):
        torch.manual_seed(5)
        found.append(torch.autograd.grad(call(x).square().mean(), [x, *ours.parameters()]))
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_compiling_in_one_graph_takes_the_reference():
    ours = layer()
    x = torch.randn(5, 32)
    compiled = torch.compile(ours, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x), ours(x))


def test_transforms_take_the_reference_and_the_log_says_so(caplog):
    ours = layer()
    x = torch.randn(5, 32)
    path._say.cache_clear()
    with caplog.at_level("INFO", logger="lottalora"):
        each = torch.func.vmap(torch.func.jacrev(ours))(x)
        torch.func.jvp(ours, (x,), (x,))
    torch.testing.assert_close(each, ours.weight.expand(5, -1, -1))
    assert [record.message for record in caplog.records] == [
        "Scaffold layers run as written, not fused: torch.func and forward-mode derivatives transform the "
        "reference."
    ]


@pytest.mark.parametrize(
    ("mode", "make", "message"),
    [
        ("force", lambda: layer().to(torch.complex64), "was not tested for x of torch.complex64"),
        ("merge", lambda: layer(dropout=0.1), "there is no single matrix to merge"),
        ("compose", lambda: layer(dropout=0.1), "there is no single matrix to compose"),
        ("add", lambda: layer(dropout=0.1), "one input of both paths is needed to add"),
    ],
)
def test_a_form_that_does_not_fit_is_refused_by_the_layers_name(mode, make, message):
    ours = make().train()
    ours.source = Source(0, "blocks.3.fc", (48, 32), "normal")
    with fused_as(mode), pytest.raises(ValueError, match=f"layer 'blocks.3.fc': .*{message}"):
        ours(torch.randn(5, 32, dtype=ours.W_seed.dtype))


def test_a_large_convolution_refuses_to_be_forced():
    conv = nn.Conv2d(256, 256, 3)
    scaffold = nn.Sequential(conv)
    wrap(scaffold, Scaffold(rank=4))
    x = torch.randn(1, 256, 3, 3)
    scaffold(x)
    assert paths_taken(scaffold) == {"reference": 1}
    with fused_as("force"), pytest.raises(ValueError, match="layer '0': convolutions merge small kernels"):
        scaffold(x)
    with fused_as("merge"):
        scaffold(x)
    assert paths_taken(scaffold) == {"merge": 1}


def test_unknown_modes_and_dense_models_are_refused():
    with pytest.raises(
        ValueError, match="Unknown mode fused='fast'. Known: auto, force, off, add, accumulate"
    ):
        set_fused(layer(), "fast")
    with pytest.raises(ValueError, match="no scaffold layer to speed up: call wrap"):
        set_fused(nn.Linear(2, 2), "auto")


@pytest.mark.parametrize("rank", [0, 2])
@pytest.mark.parametrize("rows", [(), (3,), (2, 3), (3, 600)], ids=str)
@pytest.mark.parametrize("form", FAST)
def test_output_can_be_written_into_as_that_of_a_plain_layer_can(form, rows, rank):
    made = parts(beta=0.7, rank=rank, rows=rows)
    apart = F.relu(fused.linear(**made, scale=0.5, form=form) + 1)
    written = F.relu(fused.linear(**made, scale=0.5, form=form).add_(1), inplace=True)
    torch.testing.assert_close(written, apart, rtol=0, atol=0)
    torch.testing.assert_close(gradients(written, made), gradients(apart, made), rtol=0, atol=0)


def test_an_activation_in_place_follows_a_wrapped_layer():
    results = []
    for inplace in (False, True):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(256, 256), nn.ReLU(inplace), nn.Linear(256, 4))
        wrap(net, Scaffold(rank=8), keep=["2"])
        h = net(torch.randn(64, 256))
        h.square().sum().backward()
        results.append([h, *(p.grad for p in net.parameters())])
    torch.testing.assert_close(*results, rtol=0, atol=0)


def test_attributes_of_foreign_modules_are_no_forms():
    net = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.GRUCell(8, 8), nn.Embedding(8, 8))
    for module in (net, *net[1:]):
        module.taken = module.fused = ["0"]
    account = wrap(net, Scaffold(rank=2), compose=["2"], freeze=["3"])
    assert set_fused(net, "off") == 3
    assert paths_taken(net) == {"none": 3}
    assert net.fused == net[1].fused == net[2].fused == ["0"]
    assert "[" not in account.table(net)


@pytest.mark.parametrize("layers", [1, 2])
def test_the_seed_of_a_mask_is_drawn_on_the_cpu_whatever_the_default_device(layers):
    net = nn.MultiheadAttention(64, 2, batch_first=True) if layers == 2 else nn.Linear(64, 64)
    wrap(net, Scaffold(rank=2, dropout=0.5))
    x = torch.randn(2, 300, 64)
    given = (x,) if layers == 1 else (x, x, x)
    torch.manual_seed(3)
    expected = net(*given)
    torch.manual_seed(3)
    with torch.device("meta"):
        found = net(*given)
    torch.testing.assert_close(found, expected)
