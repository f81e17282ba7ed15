"""W_seed stays what its source says, and a state of another scaffold is refused."""

import copy
import io
import json
import warnings

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load
from safetensors.torch import save
from torch import nn

from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Adapter
from lottalora.scaffold import LottaLinear
from lottalora.scaffold import Scaffold
from lottalora.scaffold import Source
from lottalora.scaffold import draw
from lottalora.scaffold import materialize
from lottalora.scaffold import resample
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import verify
from lottalora.scaffold import without_scaffold
from lottalora.scaffold import wrap
from lottalora.scaffold.layers.identity import sketch

X = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))


def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))


def wrapped(net=None, **options):
    net = net or build()
    wrap(net, Scaffold(**{"rank": 2, "seed": 1, **options}))
    return net


@torch.no_grad()
def trained(net):
    for parameter in net.parameters():
        parameter.add_(0.3 * torch.randn_like(parameter))
    return net


def drawn(layer):
    return draw(layer.source)


def on_meta(**options):
    with torch.device("meta"):
        return wrapped(build(), **options)


# Ways that lose W_seed


def test_net_from_the_meta_device_computes_what_the_state_was_trained_for():
    net = trained(wrapped())
    other = on_meta().to_empty(device="cpu")
    other.load_state_dict(net.state_dict(), strict=True)
    assert torch.equal(other(X), net(X))


@pytest.mark.parametrize("read", [False, True], ids=["called", "read"])
def test_net_from_the_meta_device_takes_a_state_by_assignment(read):
    net, other = trained(wrapped()), on_meta()
    with pytest.raises(ValueError, match="This layer is on the meta device: call materialize"):
        other(X)
    other.load_state_dict(net.state_dict(), strict=True, assign=True)
    h = F.linear(X, other[0].weight, other[0].bias) if read else other[0](X)
    torch.testing.assert_close(other[2](h.relu()), net(X))
    assert verify(other) == []


def test_net_from_the_meta_device_is_moved_after_a_state_was_put_into_it_by_hand():
    """As accelerate's `load_checkpoint_and_dispatch` does."""
    net, other = wrapped(), on_meta()
    for name, value in net.state_dict().items():
        module, _, own = name.rpartition(".")
        held = other.get_submodule(module)
        setattr(held, own, nn.Parameter(value) if own in held._parameters else value)
    other.to("cpu")
    assert verify(other) == [] and torch.equal(other[0].W_seed, net[0].W_seed)
    assert on_meta().half()[0].W_seed.is_meta


def test_weight_that_was_given_is_missed_on_the_meta_device():
    net = wrapped(family="learned")
    other = on_meta(family="learned")
    other.load_state_dict(net.state_dict(), assign=True)
    with pytest.raises(ValueError, match="was given, not drawn, and has lost its values"):
        other(X)


@pytest.mark.parametrize("down", [torch.float16, torch.bfloat16])
def test_cast_down_and_up_gives_the_drawn_bits(down):
    net = wrapped()
    net.to(down)
    assert torch.equal(net[0].W_seed, drawn(net[0]).to(down))
    net.float()
    assert torch.equal(net[0].W_seed, drawn(net[0]))
    net.half().bfloat16()
    assert torch.equal(net[0].W_seed, drawn(net[0]).bfloat16())


def test_empty_memory_is_drawn_again_though_no_dtype_or_device_changes():
    net = wrapped()
    net.to_empty(device="cpu")
    assert torch.equal(net[2].W_seed, drawn(net[2]))


@pytest.mark.parametrize("attribute", [True, False], ids=["setattr", "_buffers"])
def test_garbage_that_a_framework_puts_in_is_drawn_again_before_it_computes(attribute):
    net = wrapped()
    expected = net(X)
    garbage = torch.full_like(net[0].W_seed, 7.0)
    if attribute:
        net[0].W_seed = garbage
    else:
        net[0]._buffers["W_seed"] = garbage
    assert torch.equal(net(X), expected)


def test_net_wrapped_without_drawing_draws_before_it_computes():
    net = build()
    wrap(net, Scaffold(rank=2, seed=1), drawn=False)
    net[0].W_seed.fill_(7.0)
    net(X)
    assert torch.equal(net[0].W_seed, drawn(net[0]))


def test_layers_that_share_a_weight_do_not_draw_in_turns(monkeypatch):
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    net[1].weight = net[0].weight
    wrapped(net)
    resample(net, 3)
    monkeypatch.setattr(LottaLinear, "redraw", None)  # an error if it is called
    net(X)


def test_a_copy_and_a_moved_net_are_not_drawn_again(monkeypatch):
    net = wrapped()
    monkeypatch.setattr(LottaLinear, "redraw", None)
    copy.deepcopy(net)(X)
    net.to("cpu").double()(X.double())
    net.float()(X)


def test_functional_call_computes_with_the_weight_that_it_passes_in():
    net = wrapped()
    other = torch.zeros(8, 8)
    with_zeros = torch.func.functional_call(net, {"0.W_seed": other}, X)
    assert torch.equal(other, torch.zeros(8, 8))
    assert torch.equal(with_zeros, net[2](net[0].bias.relu().expand(3, 8)))  # B = 0 still
    assert torch.equal(net[0].W_seed, drawn(net[0]))


def test_vmap_computes_each_model_of_a_stack():
    nets = [trained(wrapped(seed=seed)) for seed in (1, 2)]
    names = ("0.W_seed", "2.W_seed")
    assert all(net[0].W_seed.sum() != 0 for net in nets) and names[0] in dict(nets[0].named_buffers())
    state = torch.func.stack_module_state(nets)
    base = copy.deepcopy(nets[0])
    together = torch.func.vmap(lambda p, b: torch.func.functional_call(base, (p, b), X))(*state)
    for net, h in zip(nets, together, strict=True):
        torch.testing.assert_close(h, net(X))


def test_data_parallel_replicas_compute_with_their_copy():
    layer = wrapped()[0]
    replica = layer._replicate_for_data_parallel()
    replica._buffers["W_seed"] = torch.zeros(8, 8)
    for name in ("A", "B", "beta", "bias", "magnitude"):
        setattr(replica, name, getattr(layer, name))
    assert torch.equal(replica(X), layer.bias.expand(3, 8))


def test_values_written_in_place_stay_and_verify_names_them():
    net = wrapped()
    net[2].W_seed[0, 0] += 1
    before = net[2].W_seed.clone()
    net(X)
    assert torch.equal(net[2].W_seed, before)
    assert verify(net) == ["2"]


@torch.no_grad()
def cast_by_the_data_setter(net):
    for dtype in (torch.half, torch.float32):
        for layer in (net[0], net[2]):
            layer.W_seed.data = layer.W_seed.data.to(dtype)


def set_other_memory(net):
    net[0].W_seed.data = torch.ones(8, 8)


@pytest.mark.parametrize("lose", [cast_by_the_data_setter, set_other_memory])
def test_weight_with_other_memory_is_drawn_again(lose):
    net = trained(wrapped())
    expected = net(X)
    lose(net)
    assert torch.equal(net(X), expected)
    assert torch.equal(net[0].W_seed, drawn(net[0]))


def test_shared_memory_keeps_what_was_written_into_it():
    net = wrapped()
    net[2].W_seed[0, 0] += 1
    net.share_memory()
    net(X)
    assert torch.equal(net[0].W_seed, drawn(net[0]))
    assert net[2].W_seed[0, 0] == drawn(net[2])[0, 0] + 1


def test_weight_that_no_source_gives_back_is_refused_when_it_is_lost():
    net = wrapped(family="learned")
    net.to("meta").to_empty(device="cpu")
    with pytest.raises(ValueError, match="was given, not drawn, and has lost its values"):
        net(X)
    for layer in (net[0], net[2]):
        layer.W_seed = torch.zeros_like(layer.W_seed)
    net(X)


def test_compiled_without_a_break_it_computes_the_same():
    net = trained(wrapped())
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(X), net(X))


def lose_memory(net):
    net[0]._buffers["W_seed"] = torch.full((8, 8), 7.0)


def assign_from_meta(net):
    state = net.state_dict()
    net.to("meta")
    net.load_state_dict(state, assign=True)


@pytest.mark.parametrize("lose", [lose_memory, assign_from_meta])
def test_lost_weight_is_drawn_before_it_is_compiled(lose):
    net = trained(wrapped())
    expected, compiled = net(X), torch.compile(net, backend="eager", fullgraph=True)
    for _ in range(2):  # before the first graph, and after it
        lose(net)
        torch.testing.assert_close(compiled(X), expected)


def test_weights_passed_to_a_compiled_net_are_used_and_left_alone():
    net, given = trained(wrapped()), {"0.W_seed": torch.ones(8, 8)}
    expected = torch.func.functional_call(net, given, (X,))
    compiled = torch.compile(net, backend="eager")
    torch.testing.assert_close(torch.func.functional_call(compiled, given, (X,)), expected)
    assert torch.equal(given["0.W_seed"], torch.ones(8, 8))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_lost_weight_is_drawn_before_it_is_traced():
    net = trained(wrapped())
    expected = net(X)
    lose_memory(net)
    traced = torch.jit.trace(net, X)
    torch.testing.assert_close(traced(X), expected)
    assert "copy_" not in str(traced.inlined_graph)


def test_lost_weight_is_drawn_before_it_is_exported():
    net = trained(wrapped())
    expected = net(X)
    lose_memory(net)
    exported = torch.export.export(net, (X,), strict=False)
    torch.testing.assert_close(exported.module()(X), expected)


# Names of streams


def test_wrappers_of_pytorch_do_not_change_the_weights():
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper
    from torch.optim.swa_utils import AveragedModel

    plain = wrapped()[0].W_seed
    compiled = torch.compile(build(), backend="eager")
    wrap(compiled, Scaffold(rank=2, seed=1))
    assert torch.equal(compiled._orig_mod[0].W_seed, plain)
    averaged = AveragedModel(build())
    wrap(averaged, Scaffold(rank=2, seed=1))
    assert torch.equal(averaged.module[0].W_seed, plain)
    parallel = nn.DataParallel(build())
    wrap(parallel, Scaffold(rank=2, seed=1))
    assert torch.equal(parallel.module[0].W_seed, plain)
    net = build()
    net[0] = checkpoint_wrapper(net[0])
    wrap(net, Scaffold(rank=2, seed=1))
    assert torch.equal(net[0]._checkpoint_wrapped_module.W_seed, plain)


def test_a_part_of_a_model_that_is_called_module_keeps_its_name():
    net = nn.Sequential()
    net.add_module("module", nn.Linear(8, 8))
    assert wrapped(net).module.source.name == "module"


@pytest.mark.parametrize("name", ["2", "2.weight", "_orig_mod.2"])
def test_patterns_may_leave_out_the_wrappers_of_pytorch(name):
    compiled = torch.compile(build(), backend="eager")
    account = wrap(compiled, Scaffold(rank=2, seed=1), keep=[name])
    assert [entry.place for entry in account.entries] == ["adapt", "keep"]
    parallel = nn.DataParallel(build())
    with pytest.raises(ValueError, match="keep='3' names no weight of this model. Modules: 0, 1, 2"):
        wrap(parallel, Scaffold(rank=2, seed=1), keep=["3"])


# The record in the state


@pytest.mark.parametrize(
    "options, words",
    [
        ({"seed": 2}, "it has seed 1; this model has seed 2"),
        (
            {"family": "uniform"},
            "it has family 'normal', fan_in=True, std=1.0; this model has family 'uniform'",
        ),
        ({"parameters": {"std": 0.1}}, "fan_in=True, std=1.0; this model has fan_in=True, std=0.1"),
        ({"alpha": 4.0}, "it has α/r = 1; this model has α/r = 2"),
        ({"family": "learned"}, "this model has seed None, name None, family 'learned'"),
    ],
)
def test_state_of_another_scaffold_is_refused_naming_both_and_nothing_is_loaded(options, words):
    state, net = trained(wrapped()).state_dict(), wrapped(**options)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match="The state of layer '0' belongs to another scaffold: ") as error:
        net.load_state_dict(state)
    assert words in str(error.value) and "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_state_is_refused_before_any_layer_is_loaded():
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    wrap(net, Scaffold(rank=2, seed=1), keep=["0"])
    other = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    wrap(other, Scaffold(rank=2, seed=2), keep=["0"])
    before = other[0].weight.clone()
    with pytest.raises(ValueError, match="another scaffold"):
        other.load_state_dict(net.state_dict())
    assert torch.equal(other[0].weight, before)


def test_options_and_learned_weights_are_compared_too():
    with pytest.raises(ValueError, match="it has options dora; this model has options none"):
        wrapped().load_state_dict(wrapped(dora=True).state_dict(), strict=False)
    learned = wrapped(family="learned")
    wrapped(family="learned").load_state_dict(learned.state_dict())
    other = wrapped(nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)), family="learned")
    with pytest.raises(ValueError, match="it has fingerprint float32:"):
        other.load_state_dict(learned.state_dict())


def test_defaults_written_out_are_the_same_scaffold():
    wrapped(parameters={"std": 1}).load_state_dict(wrapped().state_dict())


def load_by_hand(net, state):
    for name, tensor in net.state_dict().items():
        tensor.copy_(state[name])


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_state_that_is_copied_by_hand_is_compared_before_anything_computes():
    state = wrapped(seed=2).state_dict()
    for use in (lambda net: net(X), lambda net: net.state_dict(), lambda net: torch.jit.trace(net, X)):
        net = wrapped()
        load_by_hand(net, state)
        assert verify(net) == ["0", "2"]
        with pytest.raises(ValueError, match="'0' belongs to another scaffold: it has seed 2; this"):
            use(net)


def test_record_that_an_average_over_all_buffers_has_spoilt_is_written_again():
    from torch.optim.swa_utils import AveragedModel
    from torch.optim.swa_utils import get_ema_multi_avg_fn

    net = trained(wrapped())
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    for _ in range(2):
        average.update_parameters(net)
    torch.testing.assert_close(average(X), net(X))
    wrapped().load_state_dict(average.module.state_dict())


def give(net, W_seed):
    net[0].W_seed = W_seed


def put(net, W_seed):
    net[0]._buffers["W_seed"] = W_seed


@pytest.mark.parametrize("share", [give, put])
def test_weight_of_another_net_is_not_written_to(share):
    net, other = wrapped(seed=1), wrapped(seed=2)
    share(other, net[0].W_seed)
    assert torch.equal(other(X), wrapped(seed=2)(X))
    assert torch.equal(net[0].W_seed, drawn(net[0]))


def test_state_that_is_copied_by_hand_takes_its_scaffold_along():
    other = trained(wrapped())
    resample(other, 3)
    net = wrapped()
    load_by_hand(net, other.state_dict())
    assert torch.equal(net(X), other(X))


def test_record_is_read_again_only_after_it_was_written(monkeypatch):
    net = wrapped()
    net.state_dict()["0.identity"].copy_(net.state_dict()["0.identity"].clone())
    net(X)
    monkeypatch.setattr(json, "loads", None)  # an error if it is called
    net(X)


def test_state_says_the_bits_of_a_weight_that_was_written_to():
    net, edited = wrapped(), wrapped()
    for each in (edited, again := wrapped()):
        each[2].W_seed[0, 0] += 1
    with pytest.warns(UserWarning, match="wrote into W_seed of layer '2', so its seed does not give it back"):
        state = edited.state_dict()
    with pytest.raises(ValueError, match="'2' belongs to another scaffold: it has fingerprint"):
        net.load_state_dict(state)
    with pytest.raises(ValueError, match="'2' belongs to another scaffold: it has fingerprint"):
        edited.load_state_dict(net.state_dict())
    again.load_state_dict(state)
    set_backbone_seed(edited, 1)
    net.load_state_dict(edited.state_dict())


@pytest.mark.filterwarnings("error")
def test_values_that_are_written_and_taken_back_are_the_drawn_ones():
    net = wrapped()
    before = net[0].W_seed.clone()
    net[0].W_seed.zero_()
    net[0].W_seed.copy_(before)
    copied = copy.deepcopy(net)
    wrapped().load_state_dict(net.state_dict())
    wrapped().load_state_dict(copied.state_dict())


def test_state_takes_the_number_of_the_resampled_scaffold_along():
    net, other = trained(wrapped()), wrapped()
    resample(net, 3)
    other.load_state_dict(net.state_dict())
    assert other[0].source.redraw == 3
    assert torch.equal(other(X), net(X))


def test_record_passes_through_files_of_tensors():
    net = trained(wrapped())
    file = io.BytesIO()
    torch.save(net.state_dict(), file)
    file.seek(0)
    for state in (torch.load(file, weights_only=True), load(save(net.state_dict()))):
        other = wrapped()
        other.load_state_dict(state, strict=True)
        assert torch.equal(other(X), net(X))


def test_checkpoint_of_before_is_read_with_one_warning():
    net, other = trained(wrapped()), wrapped()
    state = {key: value for key, value in net.state_dict().items() if "identity" not in key}
    with pytest.warns(UserWarning, match="does not say which scaffold it belongs to") as said:
        other.load_state_dict(state, strict=True)
    assert len(said) == 1
    assert torch.equal(other(X), net(X))


def test_part_of_a_state_is_read_without_a_warning():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        wrapped().load_state_dict({}, strict=False)


def record(net):
    return json.loads(bytes(net.state_dict()["0.identity"].numpy()))


def with_record(state, content):
    content = content if isinstance(content, bytes) else json.dumps(content).encode()
    return {**state, "0.identity": torch.tensor(list(content), dtype=torch.uint8)}


def test_record_says_what_identifies_the_scaffold():
    said = record(wrapped(alpha=4.0, dora=True))
    assert len(said.pop("fingerprint")) == 64
    assert said == {
        "format": 1, "generator": 1, "seed": 1, "redraw": 0, "name": "0", "family": "normal",
        "parameters": {"std": 1.0, "fan_in": True}, "shape": [8, 8], "scale": 2.0, "options": ["dora"],
    }  # fmt: skip


@pytest.mark.parametrize(
    "change, message",
    [
        (lambda said: json.dumps(said).encode()[:90], "record of layer '0' is damaged"),
        (lambda said: b"", "record of layer '0' is damaged"),
        (lambda said: {**said, "fingerprint": said["fingerprint"][:20]}, "record of layer '0' is damaged"),
        (lambda said: {**said, "format": 2}, "has format 2, and this version of lottalora reads 1"),
        (lambda said: {**said, "generator": 2}, "it has generator 2; this model has generator 1"),
        (lambda said: {**said, "fingerprint": 64 * "0"}, "it has fingerprint 000000000000…; this model has"),
    ],
)
def test_record_that_cannot_be_of_this_model_is_refused_in_one_line(change, message):
    net = wrapped()
    with pytest.raises(ValueError, match=message) as error:
        net.load_state_dict(with_record(net.state_dict(), change(record(net))))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "saved, message",
    [
        (nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)), "they differ in '1'. Wrap"),
        (nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)), "it has shape 5 × 8; this model has"),
        (nn.ModuleDict({"fc": nn.Linear(8, 8)}), "they differ in '0', '2', 'fc'. Wrap"),
    ],
    ids=["a layer more", "another shape", "other names"],
)
def test_state_of_another_model_is_refused_in_one_line_and_nothing_is_loaded(saved, message):
    net = wrapped()
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(ValueError, match=message) as error:
        net.load_state_dict(trained(wrapped(copy.deepcopy(saved))).state_dict())
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (lambda: wrapped(rank=3), r"'0' has other adapters: it has A of shape \(3, 8\); this model has A of"),
        (lambda: wrapped(train_beta=False), "'0' has other adapters: it has no beta; this model has beta"),
        (build, "is that of the model before wrap, as it has '0.weight': load it before wrap"),
    ],
    ids=["another rank", "without β", "before wrap"],
)
def test_state_with_other_adapters_is_refused_in_one_line_and_nothing_is_loaded(saved, message):
    net = wrapped()
    before, state = copy.deepcopy(net.state_dict()), trained(saved()).state_dict()
    with pytest.raises(ValueError, match=message) as error:
        net.load_state_dict(state)
    assert "\n" not in str(error.value)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_vectors_of_a_plain_state_are_loaded_without_a_warning_if_that_is_asked_for():
    net, plain = wrapped(), trained(build())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert "0.weight" in net.load_state_dict(plain.state_dict(), strict=False).unexpected_keys
    assert torch.equal(net[0].bias, plain[0].bias)


def test_record_of_lists_without_end_is_refused_as_damaged():
    model = nn.Sequential(nn.Linear(4, 4))
    wrap(model, Scaffold(rank=1))
    state = model.state_dict()
    state["0.identity"] = torch.frombuffer(bytearray(b"[" * 100_000), dtype=torch.uint8)
    with pytest.raises(ValueError, match="record of layer '0' is damaged"):
        model.load_state_dict(state)


def test_average_of_records_is_refused_with_the_way_to_average_states():
    states = [wrapped().state_dict() for _ in range(3)]
    average = {key: sum(state[key] for state in states) / 3 for key in states[0]}
    with pytest.raises(
        ValueError, match=r"average floating-point tensors alone, and copy each '\*.identity'"
    ):
        wrapped().load_state_dict(average)
    kept = {key: states[0][key] for key in average if key.endswith("identity")}
    wrapped().load_state_dict(average | kept)


def test_record_survives_a_cast_of_the_whole_state():
    state = {name: value.bfloat16() for name, value in wrapped().state_dict().items()}
    wrapped().load_state_dict(state)
    with pytest.raises(ValueError, match="another scaffold"):
        wrapped(seed=2).load_state_dict(state)


def test_parts_of_a_state_are_loaded_if_that_is_asked_for():
    net, part = trained(wrapped()), wrapped()
    state = {name: value for name, value in net.state_dict().items() if name.startswith("0.")}
    assert part.load_state_dict(state, strict=False).missing_keys
    assert torch.equal(part[0].B, net[0].B) and not part[2].B.any()


def test_state_is_the_same_from_every_dtype_and_inside_without_scaffold():
    one = wrapped().state_dict()["0.identity"]
    assert torch.equal(wrapped().half().state_dict()["0.identity"], one)
    net = wrapped()
    with without_scaffold(net):
        assert torch.equal(copy.deepcopy(net).state_dict()["0.identity"], one)
        assert torch.equal(net.to("cpu").double().state_dict()["0.identity"], one)


def test_wrap_makes_no_fingerprint_and_the_state_makes_each_once(monkeypatch):
    from lottalora.scaffold.layers import w_seed

    made = []
    original = w_seed.fingerprint_of
    monkeypatch.setattr(w_seed, "fingerprint_of", lambda *args, **kw: made.append(1) or original(*args, **kw))
    net = wrapped()
    assert not made
    net.state_dict()
    net.state_dict()
    assert len(made) == 2
    set_backbone_seed(net, 2)
    net.state_dict()
    assert len(made) == 4


def test_hand_made_layer_is_checked_as_well():
    def layer(seed):
        source = Source(seed, "fc", (4, 4))
        return LottaLinear(draw(source), Adapter(rank=1), source=source)

    layer(1).load_state_dict(layer(1).state_dict())
    with pytest.raises(ValueError, match="it has seed 1; this model has seed 2"):
        layer(2).load_state_dict(layer(1).state_dict())


# verify


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_family_is_verified_and_an_exchanged_entry_is_found(family):
    net = wrapped(family=family)
    net.state_dict()
    assert verify(net) == []
    net[2].W_seed[0, 0] += 0.5
    assert verify(net) == ["2"]


def test_verify_finds_a_fingerprint_of_other_bits_and_changed_learned_weights():
    net = wrapped(family="learned")
    assert verify(net) == []
    net.state_dict()
    net[0].W_seed[0, 0] += 1
    assert verify(net) == ["0"]


def test_verify_knows_padding_rows_and_other_precisions():
    net = nn.Sequential(nn.Embedding(9, 8, padding_idx=3), nn.Linear(8, 8))
    wrap(net, Scaffold(rank=2, seed=1), freeze=["0"])
    net.state_dict()
    assert verify(net) == [] and verify(net.half()) == [] and verify(net.float()) == []
    assert not net[0].W_seed[3].any()


def test_sketch_tells_matrices_apart_and_not_roundings():
    W = torch.randn(30, 20)
    near, far = sketch(W + 1e-5 * torch.randn(30, 20) * W.norm() / 24), sketch(torch.randn(30, 20))
    assert torch.allclose(torch.tensor(sketch(W)), torch.tensor(near), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(torch.tensor(sketch(W)), torch.tensor(far), atol=1e-3, rtol=1e-3)


# Seeds


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_seed_outside_the_range_is_refused_everywhere(seed):
    net = wrapped()
    for use in (
        lambda: Scaffold(seed=seed),
        lambda: Source(seed, "fc", (2, 2)),
        lambda: set_backbone_seed(net, seed),
        lambda: resample(net, seed),
    ):
        with pytest.raises(ValueError, match=rf"seed must be 0 … 2\*\*64 - 1, got {seed}"):
            use()
    assert verify(net) == []


def test_largest_seed_is_taken():
    net = wrapped(seed=2**64 - 1)
    wrapped(seed=2**64 - 1).load_state_dict(net.state_dict())


def test_materialised_net_is_drawn_once(monkeypatch):
    net, times = on_meta(), []
    original = LottaLinear.redraw
    monkeypatch.setattr(LottaLinear, "redraw", lambda self, source: times.append(1) or original(self, source))
    materialize(net)
    assert len(times) == 2 and verify(net) == []
