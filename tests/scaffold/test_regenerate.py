"""Without W_seed in memory the outputs are the same to the bit, and at the end all is as before."""

import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import regenerated
from lottalora.scaffold import verify
from lottalora.scaffold import wrap
from lottalora.scaffold.whole_model.backbone import scaffold_layers


def wrapped(family="normal", **options):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 6, padding_idx=2), nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5))
    wrap(model, Scaffold(rank=2, family=family, **options), keep=["3"], freeze=["0"])
    nn.init.normal_(model[1].B)
    return model.eval()


def held(model):
    return [name for name, layer in scaffold_layers(model).items() if not layer.W_seed.is_meta]


@pytest.mark.parametrize("family", ["normal", "sparse_normal"])
def test_outputs_are_equal_to_the_bit_and_one_w_seed_at_a_time_is_in_memory(family):
    model, x, seen = wrapped(family), torch.tensor([[1, 2, 3], [0, 8, 2]]), []
    hooks = [layer.register_forward_hook(lambda *_: seen.append(held(model)), prepend=True)
             for layer in scaffold_layers(model).values()]  # fmt: skip
    before = {name: layer.W_seed.clone() for name, layer in scaffold_layers(model).items()}
    expected = model(x)
    seen.clear()
    with regenerated(model):
        assert held(model) == []
        found = [model(x) for _ in range(2)]
        assert held(model) == []
    assert seen == [["0"], ["1"]] * 2
    assert all(torch.equal(each, expected) and not each.requires_grad for each in found)
    assert verify(model) == []
    for name, layer in scaffold_layers(model).items():
        assert torch.equal(layer.W_seed, before[name])
    for hook in hooks:
        hook.remove()
    model(x).sum().backward()
    assert model[1].A.grad is not None


def test_a_net_that_reads_its_weights_computes_the_same():
    torch.manual_seed(0)
    model = nn.MultiheadAttention(8, 2, batch_first=True)
    wrap(model, Scaffold(rank=2))
    x = torch.randn(2, 3, 8)
    with torch.no_grad():
        expected = model.eval()(x, x, x)[0]
    with regenerated(model):
        assert torch.equal(model(x, x, x)[0], expected)
    assert verify(model) == []


class TiedHead(nn.Module):
    """Reads the table of its frozen embedding, and asks a frozen layer where it is."""

    def __init__(self):
        super().__init__()
        self.embed, self.inner = nn.Embedding(7, 5), nn.Linear(5, 5)

    def forward(self, index):
        h = self.inner(self.embed(index))
        return h.to(self.inner.weight.device) @ self.embed.weight.T


def test_weights_that_nothing_is_trained_of_can_be_read():
    torch.manual_seed(0)
    model, index = TiedHead(), torch.tensor([1, 2])
    wrap(model, Scaffold(rank=2), freeze=["embed", "inner"])
    with torch.no_grad():
        before = model(index)
    with regenerated(model):
        assert model.inner.weight.device == model.embed.weight.device == torch.device("cpu")
        assert torch.equal(model(index), before)
    assert torch.equal(model(index), before)


def test_an_error_inside_leaves_the_model_whole():
    model = wrapped()
    with pytest.raises(IndexError), regenerated(model):
        model(torch.tensor([99]))
    assert held(model) == ["0", "1"] and verify(model) == []


@torch.no_grad()
def test_a_w_seed_that_no_call_can_draw_is_refused_with_the_reason():
    def refused(model, reason):
        before = held(model)
        with pytest.raises(ValueError, match=f"cannot be drawn at each call: {reason}"), regenerated(model):
            pass
        assert held(model) == before

    refused(wrapped("orthogonal"), "family orthogonal factorises the whole matrix")
    written = wrapped()
    written[1].W_seed[0, 0] = 5
    refused(written, "it was written to")
    thawed = wrapped()
    W_seed = thawed[1].W_seed
    del thawed[1].W_seed
    thawed[1].W_seed = nn.Parameter(W_seed.clone())
    refused(thawed, "it is trained, sharded or on the meta device")
    given = wrapped()
    given[1].source = None
    refused(given, "it was given, and no seed gives it back")


def test_model_can_be_trained_after_inference_mode():
    model, x = wrapped(), torch.tensor([[1, 2, 3]])
    with torch.inference_mode(), regenerated(model):
        model(x)
    model(x).sum().backward()


@pytest.fixture
def frequent_switches():
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_calls_in_several_threads_compute_the_same(frequent_switches):
    model, x = wrapped(), torch.tensor([[1, 2, 3], [0, 8, 2]])
    expected = model(x)
    with regenerated(model), ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: model(x), range(400)))
        assert held(model) == []
    assert all(torch.equal(each, expected) for each in found)
    assert verify(model) == []


def test_a_call_that_fails_drops_its_w_seed_too():
    model = wrapped()
    with regenerated(model):
        with pytest.raises(RuntimeError):
            model[1](torch.zeros(1, 7))
        assert held(model) == []


def test_functional_call_computes_the_same():
    model, x = wrapped(), torch.tensor([[1, 2, 3], [0, 8, 2]])
    expected = model(x)
    with regenerated(model):
        found = torch.func.functional_call(model, dict(model.named_parameters()), (x,))
    assert torch.equal(found, expected) and verify(model) == []


@pytest.mark.parametrize("fullgraph", [False, True])
def test_a_compiled_model_is_refused_by_name_and_works_again_afterwards(fullgraph):
    model, x = wrapped(), torch.tensor([[1, 2, 3], [0, 8, 2]])
    compiled = torch.compile(model, backend="eager", fullgraph=fullgraph)
    expected = compiled(x)
    with regenerated(model):
        with pytest.raises(RuntimeError, match="Inside regenerated each call draws its W_seed"):
            compiled(x)
        torch.testing.assert_close(model(x), expected)
        assert held(model) == []
    assert torch.equal(compiled(x), expected) and verify(model) == []


@pytest.mark.parametrize("strict", [False, True])
def test_export_is_refused_by_name(strict):
    model, x = wrapped(), torch.tensor([[1, 2, 3]])
    with regenerated(model), pytest.raises(Exception, match="Inside regenerated each call draws its W_seed"):
        torch.export.export(model, (x,), strict=strict)
    assert verify(model) == []
