"""Blocks that change how layers compute for a while: what they put back, and that no two undo each other."""

import copy
import io
import itertools
import pickle
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from lottalora.scaffold import Adapters
from lottalora.scaffold import Scaffold
from lottalora.scaffold import merge
from lottalora.scaffold import regenerated
from lottalora.scaffold import resample
from lottalora.scaffold import scaffolds_per_row
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import verify
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap


def wrapped(seed=42):
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    wrap(model, Scaffold(rank=2, seed=seed))
    return model


def resampled(number):
    model = wrapped()
    resample(model, number)
    return model


def seeded(model):
    set_backbone_seed(model, 7)


def loaded(model):
    model.load_state_dict(resampled(5).state_dict())


def cast(model):
    model.double()


CHANGES = ((seeded, wrapped(7)), (loaded, resampled(5)), (cast, wrapped().double()))


@pytest.mark.parametrize("change, expected", CHANGES, ids=["seed", "state", "dtype"])
def test_what_changes_without_a_scaffold_is_drawn_at_the_end(change, expected):
    model = wrapped()
    with without_scaffold(model):
        change(model)
        model(torch.zeros(1, 8, dtype=model[0].W_seed.dtype))
        assert not model[0].W_seed.any()
    assert verify(model) == []
    assert model[0].source == expected[0].source
    assert torch.equal(model[0].W_seed, expected[0].W_seed)


def test_without_scaffold_inside_itself_ends_with_the_outer_block():
    model, expected = wrapped(), wrapped()
    with without_scaffold(model):
        with without_scaffold(model):
            pass
        assert model[0].removed and not model[0].W_seed.any()
    assert verify(model) == [] and torch.equal(model[0].W_seed, expected[0].W_seed)


@pytest.mark.parametrize("change", [seeded, cast])
def test_held_scaffolds_of_another_seed_or_dtype_are_drawn(change):
    model, held = wrapped(), {}
    resample(model, 1, held=held)
    change(model)
    resample(model, 1, held=held)
    assert verify(model) == []
    again = held[1]
    resample(model, 2, held=held)
    resample(model, 1, held=held)
    assert held[1] is again and verify(model) == []


@pytest.mark.parametrize("block", [without_scaffold, regenerated])
def test_scaffolds_are_held_only_where_they_are_drawn(block):
    model, held, x = resampled(3), {}, torch.randn(3, 8)
    expected = model(x)
    resample(model, 0)
    with block(model):
        resample(model, 3, held=held)
    assert held == {} and torch.equal(model(x), expected)
    resample(model, 0, held=held)
    resample(model, 3, held=held)
    again = held[3]
    with block(model):
        resample(model, 0, held=held)
        resample(model, 3, held=held)
    resample(model, 3, held=held)
    assert held[3] is again and verify(model) == [] and torch.equal(model(x), expected)


def rows_of_adapters(model):
    return Adapters(model, "a").per_row(["a"] * 3)


def rows_of_scaffolds(model):
    return scaffolds_per_row(model, [3, 0, 3])


BLOCKS = (without_scaffold, regenerated, rows_of_scaffolds)
ROWS = (rows_of_adapters, rows_of_scaffolds)
CLASHES = [*itertools.permutations(BLOCKS, 2), *itertools.permutations(ROWS, 2), (rows_of_adapters,) * 2]


@pytest.mark.parametrize("outer, inner", CLASHES, ids=lambda block: block.__name__)
def test_blocks_that_would_undo_each_other_are_refused_and_the_outer_one_goes_on(outer, inner):
    model, x = wrapped(), torch.randn(3, 8)
    before = model(x)
    with outer(model):
        inside = model(x)
        with pytest.raises(ValueError, match="block|without_scaffold has set it to 0"), inner(model):
            pass
        assert torch.equal(model(x), inside)
    assert torch.equal(model(x), before) and verify(model) == []


@pytest.mark.parametrize("block", [*BLOCKS, rows_of_adapters])
def test_no_merge_within_a_block(block):
    model = wrapped()
    with block(model), pytest.raises(ValueError, match="Leave that block first"):
        merge(model)
    assert verify(model) == []
    merge(model)


def saved_and_loaded(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
    "torch.save": saved_and_loaded,
}


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("block", [*BLOCKS, rows_of_adapters])
def test_a_copy_made_within_a_block_has_left_it(block, copied):
    model, x = wrapped(), torch.randn(3, 8)
    nn.init.normal_(model[0].B)
    model[2].register_forward_hook(negated)
    before = model(x)
    with block(model):
        inside = model(x)
        twin = copied(model)
        assert torch.equal(model(x), inside)
    assert torch.equal(model(x), before) and verify(model) == []

    assert torch.equal(twin(x), before) and verify(twin) == []
    assert not twin[0].W_seed.is_meta and len(twin[2]._forward_hooks) == 1
    resample(twin, 1)
    resample(model, 1)
    assert torch.equal(twin(x), model(x))
    twin(x).sum().backward()
    assert twin[0].A.grad is not None and model[0].A.grad is None
    merge(twin)
    torch.testing.assert_close(twin(x), model(x))
    assert [len(layer._forward_hooks) for layer in twin] == [0, 0, 1]
    assert not twin[0]._forward_pre_hooks
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.zero_()
    assert not twin(x).any()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
@pytest.mark.parametrize("block", [nullcontext, without_scaffold])
def test_a_copy_of_a_compiled_layer_computes_with_its_own_tensors(block, copied):
    model, x = wrapped(), torch.randn(3, 8)
    model[0].compile(backend="eager")
    before = model(x)
    with block(model):
        twin = copied(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(twin(x), before) and not model(x).any()


@pytest.mark.parametrize("copied", COPIES.values(), ids=COPIES)
def test_a_layer_that_was_compiled_before_wrap_is_copied(copied):
    layer, x = nn.Linear(8, 8), torch.randn(3, 8)
    layer.compile(backend="eager")
    wrap(layer, Scaffold(rank=2))
    assert torch.equal(copied(layer)(x), layer(x))


def negated(module, args, h):
    return -h


@pytest.mark.parametrize("change, expected", CHANGES, ids=["seed", "state", "dtype"])
def test_a_copy_made_without_a_scaffold_has_the_one_that_was_set_inside(change, expected):
    model = wrapped()
    with without_scaffold(model), without_scaffold(model):
        change(model)
        twin = copy.deepcopy(model)
        assert not model[0].W_seed.any()
    assert verify(twin) == [] and torch.equal(twin[0].W_seed, expected[0].W_seed)


@torch.no_grad()
def test_a_copy_made_without_a_scaffold_has_what_was_given_or_written_to_w_seed():
    model, given, x = wrapped(), nn.Sequential(nn.Linear(8, 8)), torch.randn(3, 8)
    wrap(given, Scaffold(rank=2, family="learned"))
    model[0] = given[0]
    model[2].W_seed[0, 0] = 5
    before, differing = model(x), verify(model)
    with without_scaffold(model):
        twin, shallow = copy.deepcopy(model), copy.copy(model[2])
    assert torch.equal(twin(x), before) and verify(twin) == differing == ["2"]
    assert shallow.W_seed[0, 0] == 5 and torch.equal(model(x), before)
    assert torch.equal(copy.deepcopy(twin)(x), before)


def test_a_copy_made_in_two_blocks_has_left_both():
    model, x = wrapped(), torch.randn(3, 8)
    before = model(x)
    with regenerated(model), rows_of_adapters(model):
        inner = copy.deepcopy(model)
    with rows_of_adapters(model), without_scaffold(model):
        outer = copy.deepcopy(model)
    for twin in (inner, outer):
        assert torch.equal(twin(x), before) and verify(twin) == [] and twin[0].blocks == ()


def test_a_forward_that_somebody_set_is_refused_as_such_and_is_in_a_copy():
    model, x = wrapped(), torch.randn(3, 8)
    before = model(x)
    hooks = pytest.importorskip("accelerate.hooks")
    hooks.add_hook_to_module(model[0], hooks.ModelHook())
    for refused in (
        merge,
        lambda model: entered(rows_of_adapters(model)),
        lambda model: entered(rows_of_scaffolds(model)),
    ):
        with pytest.raises(ValueError, match="a forward was set on the layer itself"):
            refused(model)
    for block in (without_scaffold, regenerated):
        with block(model):
            twin = copy.deepcopy(model)
        assert torch.equal(twin(x), before)
        assert twin[0].forward.args == (twin[0],)
    hooks.remove_hook_from_module(model, recurse=True)  # leaves the layer's own method on the layer
    with rows_of_adapters(model):
        assert torch.allclose(model(x), before)
    hooks.add_hook_to_module(model[0], hooks.ModelHook())
    hooks.remove_hook_from_module(model, recurse=True)
    merge(model)
    assert torch.allclose(model(x), before, atol=1e-6)


def entered(block):
    with block:
        pass
