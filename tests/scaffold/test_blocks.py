"""Blocks that change how layers compute for a while: what they put back, and that no two undo each other."""

import itertools

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
