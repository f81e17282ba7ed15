"""Models as one file: what was saved is loaded to the bit, and anything else is refused in one line."""

import json
import math
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from lottalora import scaffold
from lottalora.scaffold import FAMILIES
from lottalora.scaffold import Scaffold
from lottalora.scaffold import deviation
from lottalora.scaffold import load
from lottalora.scaffold import load_into
from lottalora.scaffold import merge
from lottalora.scaffold import read
from lottalora.scaffold import register_architecture
from lottalora.scaffold import resample
from lottalora.scaffold import save
from lottalora.scaffold import set_backbone_seed
from lottalora.scaffold import unmerge
from lottalora.scaffold import verify
from lottalora.scaffold import wrap
from lottalora.scaffold.artifact import architectures
from lottalora.scaffold.artifact.container import from_bytes
from lottalora.scaffold.artifact.container import read as read_sealed
from lottalora.scaffold.artifact.container import tensors_in
from lottalora.scaffold.artifact.container import to_bytes
from lottalora.scaffold.artifact.container import write
from lottalora.scaffold.layers import drawn
from lottalora.scaffold.whole_model.backbone import scaffold_layers


class Net(nn.Module):
    """Convolution, attention, a GRU, batch normalisation, a tied embedding and a frozen layer."""

    def __init__(self, width=8, extra=False):
        super().__init__()
        self.embed = nn.Embedding(11, width)
        self.conv = nn.Conv1d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm1d(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.gru = nn.GRU(width, width, batch_first=True)
        self.mlp = nn.Linear(width, width)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embed.weight
        self.gain = nn.Parameter(torch.ones(width))
        if extra:
            self.further = nn.Linear(width, 2)

    def forward(self, tokens):
        h = self.embed(tokens)
        h = self.norm(self.conv(h.transpose(1, 2))).transpose(1, 2)
        h = h + self.attention(h, h, h, need_weights=False)[0]
        return self.head(self.mlp(self.gru(h)[0]) * self.gain)


TOKENS = torch.arange(12).view(2, 6) % 11
HOW = {"keep": ["embed"], "freeze": ["mlp", "gain"], "compose": ["gru"]}


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    monkeypatch.setattr(architectures, "ARCHITECTURES", {})
    register_architecture("net", Net)


def trained(net=None, how=HOW, **options):
    torch.manual_seed(3)
    net = Net() if net is None else net
    wrap(net, Scaffold(**{"rank": 2, "alpha": 3, "seed": 2**64 - 1, **options}), **how)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    net(TOKENS)  # statistics of batch normalisation
    return net.eval()


@pytest.fixture
def saved(tmp_path):
    net, path = trained(), tmp_path / "net.safetensors"
    save(net, path, architecture=("net", {"width": 8}), probe=[TOKENS], metrics={"loss": 0.5})
    return net, path


def assert_same(net, other):
    ours, theirs = net.state_dict(), other.state_dict()
    assert list(ours) == list(theirs)
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    layers, others = scaffold_layers(net), scaffold_layers(other)
    assert all(torch.equal(layers[name].W_seed, others[name].W_seed) for name in layers)
    assert all(layers[name].source == others[name].source for name in layers)
    assert torch.equal(net(TOKENS), other(TOKENS))


def changed(path, **fields):
    """The file with other fields in its header, and a new seal."""
    sealed = from_bytes(bytearray(path.read_bytes()))
    header = json.loads(sealed.header) | fields
    path.write_bytes(to_bytes(sealed.tensors, json.dumps(header)))
    return header


# Round trip


def test_loaded_model_equals_the_saved_one_to_the_bit(saved):
    net, path = saved
    other = load(path)
    assert_same(net, other)
    assert not other.training and verify(other) == []
    assert deviation(other, read(path)) == 0


def test_plain_model_of_the_right_class_is_wrapped_and_loaded(saved):
    net, path = saved
    plain = Net()
    assert load_into(plain, path) is plain
    assert_same(net, plain.eval())
    names = {name for name, p in net.named_parameters()}
    assert {name for name, p in plain.named_parameters()} == names  # the same weights are trained


@pytest.mark.parametrize(
    "options",
    [
        {"dora": True},
        {"layer_norm": True, "residual": True},
        {"rank": 0},
        {"train_beta": False, "rslora": True},
        {"bias": "frozen", "family": "cauchy"},
        {"family": "sparse_normal", "parameters": {"zeros": 0.5}},
        {"adapter_dtype": "bfloat16"},
    ],
    ids=lambda options: "-".join(options),
)
def test_options_come_back(tmp_path, options):
    net = trained(**options)
    save(net, tmp_path / "a.safetensors", architecture=("net", {}))
    assert_same(net, load(tmp_path / "a.safetensors"))


class Tables(nn.Module):
    """Two layers, and tables that the state leaves out: one in the model's dtype, one beside a weight."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
        self.register_buffer("angles", torch.linspace(0, 1, 8), persistent=False)
        self.one.register_buffer("table", torch.linspace(1, 2, 8), persistent=False)

    def forward(self, x):
        return self.two(self.one(x)) * self.angles * self.one.table


def saved_tables(path, cast):
    net = Tables()
    wrap(net, Scaffold(rank=2))
    cast(net)
    save(net.eval(), path)
    return net, load_into(Tables(), path).eval()


def half_with_exact_tables(net):
    angles, table = net.angles, net.one.table
    net.bfloat16()
    net.angles, net.one.table = angles, table


@pytest.mark.parametrize(
    "cast", [nn.Module.bfloat16, nn.Module.half, nn.Module.double, nn.Module.float, half_with_exact_tables]
)
def test_buffers_that_no_state_has_get_the_dtype_of_the_saved_model(tmp_path, cast):
    net, other = saved_tables(tmp_path / "a.safetensors", cast)
    x = torch.randn(3, 8, dtype=net.one.W_seed.dtype)
    assert net(x).dtype is other(x).dtype and torch.equal(net(x), other(x))
    for buffer, loaded in ((net.angles, other.angles), (net.one.table, other.one.table)):
        assert buffer.dtype is loaded.dtype and torch.equal(buffer, loaded)


def test_header_names_dtypes_of_buffers_only_where_they_differ_and_nothing_else_is_cast(tmp_path):
    path = tmp_path / "a.safetensors"
    saved_tables(path, nn.Module.float)
    assert "buffers" not in changed(path)
    changed(
        path,
        buffers={"angles": "float64", "one.W_seed": "float16", "one.identity": "float16", "no": "float16"},
    )
    other = load_into(Tables(), path)
    dtypes = {
        name: buffer.dtype for name, buffer in other.named_buffers() if buffer.dtype is not torch.float32
    }
    assert dtypes == {"angles": torch.float64} | dict.fromkeys(["one.identity", "two.identity"], torch.uint8)
    for buffers in ({"angles": "int8"}, {"angles": 1}, ["angles"]):
        changed(path, buffers=buffers)
        with pytest.raises(ValueError, match="The artifact is damaged.*buffers"):
            read(path)


@pytest.mark.parametrize("options", [{}, {"layer_norm": True}], ids=["plain", "layer_norm"])
def test_frozen_vectors_come_back(tmp_path, options):
    net = trained(how={"compose": ["gru"], "keep": ["embed"], "freeze": ["*.bias", "gain"]}, **options)
    save(net, tmp_path / "a.safetensors", architecture=("net", {}))
    other = load(tmp_path / "a.safetensors")
    assert_same(net, other)
    names = {name for name, _ in net.named_parameters()}
    assert {name for name, _ in other.named_parameters()} == names


def test_file_that_names_the_normalisation_of_layer_norm_as_frozen_is_read(tmp_path):
    net, path = trained(layer_norm=True), tmp_path / "a.safetensors"
    save(net, path, architecture=("net", {}))
    header = changed(path)
    changed(path, freeze=[*header["freeze"], "mlp.norm.bias", "conv.norm.weight", "conv.norm.bias"])
    with pytest.raises(ValueError, match="lacks .* 'mlp.norm.bias' of the artifact"):
        load(path)  # mlp is frozen, and has no option
    changed(path, freeze=[*header["freeze"], "conv.norm.weight", "conv.norm.bias"])
    assert_same(net, load(path))


def test_frozen_vector_that_the_model_lacks_is_called_a_vector(tmp_path):
    net, path = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), tmp_path / "a.safetensors"
    wrap(net, Scaffold(rank=2), freeze=["1.bias"])
    save(net, path)
    with pytest.raises(ValueError, match="This model lacks vector '1.bias' of the artifact"):
        load_into(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8, bias=False)), path)


def test_half_precision_model_comes_back(tmp_path):
    net = trained().bfloat16()
    save(net, tmp_path / "a.safetensors", architecture=("net", {}))
    other = load(tmp_path / "a.safetensors")
    assert_same(net, other)
    assert other.mlp.W_seed.dtype is torch.bfloat16 and other.conv.A.dtype is torch.float32


def test_other_seed_and_resampled_scaffold_come_back(tmp_path):
    net = trained()
    set_backbone_seed(net, 7)
    resample(net, 2**60)
    save(net, tmp_path / "a.safetensors", architecture=("net", {}))
    assert_same(net, load(tmp_path / "a.safetensors"))


def test_model_that_was_merged_and_unmerged_is_saved(tmp_path):
    net = trained()
    unmerge(net, merge(net))
    save(net, tmp_path / "a.safetensors", architecture=("net", {}))
    assert_same(net, load(tmp_path / "a.safetensors"))


def test_module_that_asks_a_state_for_its_version_comes_back(tmp_path):
    def plain():
        return nn.Sequential(nn.utils.spectral_norm(nn.Linear(6, 5)), nn.Linear(5, 3))

    net, x = plain(), torch.randn(4, 6)
    wrap(net, Scaffold(rank=2, seed=4), compose=["0.weight_orig"], keep=["1"])
    net(x)  # a step of the power iteration
    save(net, tmp_path / "a.safetensors")
    other = load_into(plain(), tmp_path / "a.safetensors")
    assert torch.equal(other.eval()(x), net.eval()(x))


def test_inexact_family_is_drawn_or_stored(tmp_path):
    net = trained(family="orthogonal")
    save(net, tmp_path / "drawn.safetensors", architecture=("net", {}))
    save(net, tmp_path / "stored.safetensors", architecture=("net", {}), store=True)
    assert not read(tmp_path / "drawn.safetensors").stored
    assert len(read(tmp_path / "stored.safetensors").stored) == len(scaffold_layers(net))
    for name in ("drawn", "stored"):
        assert_same(net, load(tmp_path / f"{name}.safetensors"))


def test_learned_weights_are_stored_on_request_only(tmp_path):
    net = trained(family="learned", train_beta=False, seed=0)
    with pytest.raises(ValueError, match="was given, so no seed gives it back: pass store=True"):
        save(net, tmp_path / "a.safetensors")
    save(net, tmp_path / "a.safetensors", architecture=("net", {}), store=True)
    assert_same(net, load(tmp_path / "a.safetensors"))


def test_file_is_the_same_each_time_and_opens_as_safetensors(saved, tmp_path):
    net, path = saved
    save(
        net,
        tmp_path / "b.safetensors",
        architecture=("net", {"width": 8}),
        probe=[TOKENS],
        metrics={"loss": 0.5},
    )
    assert path.read_bytes() == (tmp_path / "b.safetensors").read_bytes()
    tensors = safetensors.torch.load_file(path)
    assert "head.weight" not in tensors or "embed.weight" not in tensors  # tied: once
    assert not any("W_seed" in name or "identity" in name for name in tensors)


def test_probe_is_computed_without_autocast(saved):
    net, path = saved
    with torch.autocast("cpu", torch.bfloat16):
        save(net, path, architecture=("net", {}), probe=[TOKENS], overwrite=True)
        assert deviation(load(path), read(path)) == 0
    assert read(path).output.dtype is torch.float32
    assert deviation(load(path), read(path)) == 0


def test_saving_leaves_the_model_in_training(tmp_path):
    net = trained().train()
    save(net, tmp_path / "a.safetensors", architecture=("net", {}), probe=[TOKENS])
    assert all(module.training for module in net.modules())


# Families of users


def test_registered_family_is_named_and_needed(tmp_path, monkeypatch):
    def sevens(shape):
        return scaffold.Distribution(np.full(65536, 7, np.float32))

    monkeypatch.setitem(FAMILIES, "sevens", scaffold.Family("sevens", sevens, True))
    net = trained(family="sevens")
    save(net, tmp_path / "a.safetensors", architecture=("net", {}))
    assert_same(net, load(tmp_path / "a.safetensors"))
    monkeypatch.setitem(FAMILIES, "sevens", scaffold.Family("sevens", FAMILIES["normal"].distribution, True))
    with pytest.raises(ValueError, match="parameters"):
        load(tmp_path / "a.safetensors")
    monkeypatch.setitem(
        FAMILIES,
        "sevens",
        scaffold.Family("sevens", lambda shape: scaffold.Distribution(sevens(shape).table + 1), True),
    )
    with pytest.raises(ValueError, match="its fingerprint differs"):
        load(tmp_path / "a.safetensors")
    monkeypatch.delitem(FAMILIES, "sevens")
    with pytest.raises(ValueError, match="'sevens' .* was registered by the one who saved"):
        load(tmp_path / "a.safetensors")


class Rotary(nn.Module):
    """A layer behind a table of angles that the state leaves out, as rotary positions."""

    def __init__(self):
        super().__init__()
        self.register_buffer("angles", 10_000 ** -(torch.arange(8) / 8), persistent=False)
        self.body, self.head = nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x):
        return self.head(self.body(torch.cos(100 * x * self.angles)))


@pytest.fixture
def rotary(tmp_path):
    """A net with a table of angles, and its file."""
    register_architecture("rotary", Rotary)
    net, path = Rotary(), tmp_path / "rotary.safetensors"
    wrap(net, Scaffold(rank=2, seed=4), keep=["head"])
    save(net.eval(), path, architecture=("rotary", {}))
    return net, path


@pytest.fixture
def default_dtype():
    yield torch.set_default_dtype
    torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_model_is_built_in_float32_under_any_default_dtype(rotary, default_dtype, dtype):
    net, path = rotary
    default_dtype(dtype)
    other = load(path)
    assert torch.get_default_dtype() is dtype
    x = torch.linspace(0, 1, 24, dtype=torch.float32).view(3, 8)
    assert other.angles.dtype is torch.float32 and torch.equal(other(x), net(x))
    with pytest.raises(ValueError, match="has more than 3 numbers"):
        load(path, limit=3)
    assert torch.get_default_dtype() is dtype


def test_plain_model_whose_left_out_buffers_have_another_dtype_is_refused(rotary, default_dtype):
    _, path = rotary
    default_dtype(torch.bfloat16)
    plain = Rotary()
    with pytest.raises(ValueError, match=r"'angles' is torch.bfloat16 .*set_default_dtype\(torch.float32\)"):
        load_into(plain, path)
    assert type(plain.body) is nn.Linear


def test_model_is_on_the_cpu_under_any_default_device(rotary, saved):
    for net, path, x in ((*rotary, torch.randn(3, 8)), (*saved, TOKENS)):
        with torch.device("meta"):
            other = load(path)
        assert {tensor.device.type for tensor in (*other.parameters(), *other.buffers())} == {"cpu"}
        assert torch.equal(other(x), net(x))


# Refusals: saving


def test_save_overwrites_only_when_asked(saved):
    net, path = saved
    before = path.read_bytes()
    with pytest.raises(FileExistsError, match="exists. Choose another name, or pass overwrite=True"):
        save(net, path)
    assert path.read_bytes() == before
    save(net, path, overwrite=True)
    assert path.read_bytes() != before and os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
@pytest.mark.parametrize("overwrite", [True, False])
def test_what_is_no_file_is_not_replaced(saved, tmp_path, make, overwrite):
    path = tmp_path / "other"
    make(path)
    before = os.stat(path)
    with pytest.raises(FileExistsError, match="other is a folder or a device, which no file replaces"):
        save(saved[0], path, overwrite=overwrite)
    assert os.stat(path) == before and sorted(os.listdir(tmp_path)) == ["net.safetensors", "other"]


def test_reader_finds_a_whole_file_while_it_is_replaced_by_a_longer_one(saved, tmp_path):
    path, stop = saved[1], threading.Event()
    short = path.read_bytes()
    save(saved[0], tmp_path / "long", probe=[TOKENS.repeat(99, 9)])
    long = (tmp_path / "long").read_bytes()

    def replace():
        while not stop.is_set():
            for content in (long, short):
                (tmp_path / "begun").write_bytes(content)
                os.replace(tmp_path / "begun", path)

    writer, before = threading.Thread(target=replace), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    writer.start()
    try:
        for _ in range(2000):
            read_sealed(path)
    finally:
        stop.set()
        writer.join()
        sys.setswitchinterval(before)


def test_one_of_many_processes_that_save_at_once_has_the_name(saved, tmp_path):
    def attempt(_):
        try:
            barrier.wait()
            write(tmp_path / "one", {"x": torch.ones(2**18)}, "{}", overwrite=False)
        except FileExistsError:
            return 0
        return 1

    barrier = threading.Barrier(8)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(20):
            assert sum(pool.map(attempt, range(8))) == 1
            (tmp_path / "one").unlink()
    assert not list(tmp_path.glob(".*.tmp"))


class Pair(Net):
    def forward(self, tokens):
        return super().forward(tokens), tokens


@pytest.mark.parametrize(
    ("net", "options", "words"),
    [
        (
            Net,
            {"probe": TOKENS},
            r"probe takes a list of tensors, such as \[x\], got an object of type Tensor",
        ),
        (Net, {"probe": [TOKENS.numpy()]}, "probe takes a list of tensors"),
        (Pair, {"probe": [TOKENS]}, "output for the probe is an object of type tuple, and a file holds one"),
        (
            Net,
            {"architecture": "net"},
            r"architecture is \(NAME, \{ARGUMENT: VALUE\}\), got an object of type str",
        ),
        (Net, {"architecture": ("net", {}, 1)}, r"architecture is \(NAME, .*got \('net', \{\}, 1\)"),
        (Net, {"architecture": ("net", [8])}, r"architecture is \(NAME, .*got \('net', \[8\]\)"),
    ],
)
def test_probe_and_architecture_of_another_kind_are_refused(tmp_path, net, options, words):
    model = net()
    wrap(model, Scaffold(rank=2), **HOW)
    with pytest.raises(ValueError, match=words):
        save(model, tmp_path / "net.safetensors", **options)
    assert not list(tmp_path.iterdir())


def test_symbolic_link_is_followed(saved, tmp_path):
    net, path = saved
    link = tmp_path / "link.safetensors"
    (tmp_path / "folder").mkdir()
    link.symlink_to("folder/new.safetensors")
    save(net, link)
    with pytest.raises(FileExistsError, match=r"link.safetensors exists"):
        save(net, link)
    save(net, link, overwrite=True, licence="mit")
    assert link.is_symlink() and os.listdir(tmp_path / "folder") == ["new.safetensors"]
    assert read(tmp_path / "folder" / "new.safetensors").header.licence == "mit"


def test_name_of_a_file_may_be_as_long_as_any(saved, tmp_path):
    path = tmp_path / f"{'a' * 231}.safetensors"
    save(saved[0], path)
    assert read(path).header.licence == ""


def test_model_of_which_a_part_was_wrapped_is_not_saved(tmp_path):
    net = nn.Sequential(nn.Linear(8, 8), nn.GRU(8, 8))
    for part in net:
        wrap(part, Scaffold(rank=2), compose=["*"])
        with pytest.raises(ValueError, match="Only a part of this model was wrapped, in which a weight is"):
            save(nn.Sequential(part), tmp_path / "net.safetensors")
        save(part, tmp_path / "net.safetensors", overwrite=True)


def test_what_cannot_be_rebuilt_is_not_saved(tmp_path):
    path = tmp_path / "a.safetensors"
    with pytest.raises(ValueError, match="has no scaffold"):
        save(Net(), path)
    net = trained()
    with pytest.raises(ValueError, match="no plain value"):
        save(net, path, architecture=("net", {"width": torch.ones(2)}))
    with pytest.raises(ValueError, match="'nett' is not registered. Registered: net"):
        save(net, path, architecture=("nett", {}))
    with pytest.raises(ValueError, match="finite"):
        save(net, path, metrics={"loss": float("nan")})
    net.mlp.W_seed.mul_(2)
    with pytest.raises(ValueError, match="W_seed of layer 'mlp' is not what its seed gives"):
        save(net, path)
    with torch.device("meta"):
        on_meta = Net()
        wrap(on_meta, Scaffold(rank=1), **HOW)
    with pytest.raises(ValueError, match="is on the meta device"):
        save(on_meta, path)
    by_hand = nn.Sequential(scaffold.LottaLinear(torch.ones(2, 2), scaffold.Adapter(rank=1)))
    with pytest.raises(ValueError, match="not made by one call of wrap"):
        save(by_hand, path, store=True)
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"width": 2**25}, "width=33554432 of architecture 'net' is above 16,777,216, .*: call it seed"),
        ({"sizes": {"seeds": [1, 2**30]}}, "seeds=1073741824 of architecture"),
        ({"seed": 2**60}, "no plain value, .* below 2⁵³"),
        ({"sizes": {0: 4}}, "no plain value, .* dicts with text as keys"),
        ({"sizes": [{"a": {(): 4}}]}, "no plain value"),
        ({0: 4}, "0=4 of architecture 'net' is no plain value"),
    ],
)
def test_argument_that_no_loader_takes_is_not_saved(tmp_path, arguments, words):
    with pytest.raises(ValueError, match=words):
        save(trained(), tmp_path / "a.safetensors", architecture=("net", arguments))
    assert not (tmp_path / "a.safetensors").exists()


def test_seed_of_a_builder_may_be_large(tmp_path):
    given = []

    def build(seed, data):
        given.append((seed, data["split_seed"]))
        return Net()

    register_architecture("seeded", build)
    net, arguments = trained(), {"seed": 20240601, "data": {"split_seed": 2**53 - 1}}
    save(net, tmp_path / "a.safetensors", architecture=("seeded", arguments))
    assert_same(net, load(tmp_path / "a.safetensors"))
    assert set(given) == {(20240601, 2**53 - 1)}


@pytest.mark.parametrize(
    ("saving", "options", "words"),
    [
        (
            {"metrics": {"n": 2**60}},
            {},
            "^metrics cannot be saved with n = 1152921504606846976: .* below 2⁵³",
        ),
        ({"metrics": {"n": float("inf")}}, {}, "^metrics cannot be saved with n = inf: .* finite"),
        ({"metrics": {1: 0.5}}, {}, "^metrics cannot be saved under the name 1: a name is text"),
        ({"provenance": {1: "x"}}, {}, "^provenance cannot be saved under the name 1"),
        ({"provenance": {"commit": 1}}, {}, "^This model cannot be saved, .*: provenance of its header"),
        ({}, {"alpha": 1e300}, "^settings of the scaffold cannot be saved with alpha = 1e.300"),
        ({}, {"parameters": {"std": 1e20}}, "^parameters of the family cannot be saved with std = 1e.20"),
    ],
)
def test_number_that_no_reader_takes_is_not_saved_and_nothing_is_called_damaged(
    tmp_path, saving, options, words
):
    net = nn.Sequential(nn.Linear(4, 4))
    wrap(net, Scaffold(rank=1, **options))
    with pytest.raises(ValueError, match=words) as error:
        save(net, tmp_path / "a.safetensors", **saving)
    assert "damaged" not in str(error.value) and not (tmp_path / "a.safetensors").exists()


@pytest.mark.parametrize("zstandard", [False, True])
def test_tensor_of_the_name_of_the_metadata_is_not_saved(tmp_path, zstandard):
    net = nn.Sequential(nn.Linear(4, 4))
    net.register_buffer("__metadata__", torch.zeros(2))
    wrap(net, Scaffold(rank=1))
    with pytest.raises(ValueError, match="The model's state holds '__metadata__'"):
        save(net, tmp_path / "a.safetensors", zstandard=zstandard)


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_model_with_a_normed_weight_is_loaded_into(tmp_path):
    def normed():
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(4, 4)), nn.Linear(4, 4))

    net, other, x = normed(), normed(), torch.randn(3, 4)
    wrap(net, Scaffold(rank=1), compose=["*"])
    save(net, tmp_path / "a.safetensors")
    load_into(other, tmp_path / "a.safetensors")
    assert torch.equal(other(x), net(x))


def test_model_that_cannot_be_copied_is_refused_in_one_line(tmp_path):
    net, other = nn.Sequential(nn.Linear(4, 4)), nn.Sequential(nn.Linear(4, 4))
    wrap(net, Scaffold(rank=1))
    save(net, tmp_path / "a.safetensors")
    other.lock = threading.Lock()
    with pytest.raises(ValueError, match=r"cannot be copied \(.*lock.*\). Take that attribute out"):
        load_into(other, tmp_path / "a.safetensors")
    assert type(other[0]) is nn.Linear


# Refusals: loading


@pytest.mark.parametrize(
    ("plain", "words"),
    [
        (lambda: Net(width=4), "has the shape .* it is another architecture|has shape .* in the artifact"),
        (lambda: Net(extra=True), "This model has matrix 'further.weight', the artifact has not"),
        (lambda: nn.Sequential(nn.Linear(8, 8)), "This model lacks matrix .* another architecture"),
    ],
)
def test_other_architecture_is_refused_and_left_as_it_was(saved, plain, words):
    model = plain()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError, match=words):
        load_into(model, saved[1])
    assert before.keys() == model.state_dict().keys()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


def test_wrapped_model_is_refused(saved):
    with pytest.raises(ValueError, match="on a scaffold already"):
        load_into(trained(), saved[1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"format": 2}, "has format 2; this version reads 1. Update lottalora"),
        ({"format": True}, "its format is True"),
        ({"generator": 2}, "another generator version .2; here it is 1."),
        ({"tables": "0" * 64}, "another table of quantiles"),
        ({"architecture": {"name": "vit", "arguments": {}}}, "'vit' is not registered. Registered: net"),
        (
            {"architecture": {"name": "net", "arguments": {"width": 2**30}}},
            "is 1073741824; 16777216 is allowed",
        ),
        ({"architecture": {"name": "net", "arguments": {"width": 2**23}}}, "more than 2,147,483,648 numbers"),
        (
            {"architecture": {"name": "net", "arguments": {"depth": 1}}},
            "cannot be built with the artifact's arg",
        ),
        ({"architecture": {"name": "net", "arguments": {"width": 16}}}, "another architecture"),
        ({"architecture": None}, "names no architecture: call load_into"),
        ({"probes": 7}, "its stored probe or W_seed is not what its header says"),
        ({"probes": 2**52}, "its stored probe or W_seed is not what its header says"),
        ({"matrices": []}, "lists no matrices"),
        ({"keep": [1]}, "keep of its header is not as it should be"),
        ({"further": 1}, "does not have the keys"),
        ({"tied": {"head.weight": "nothing"}}, "tied to none that it holds"),
    ],
)
def test_other_header_is_refused(saved, fields, words):
    changed(saved[1], **fields)
    with pytest.raises(ValueError, match=words):
        load(saved[1])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"seed": str(2**64)}, "must be a whole number in 0 … 2\\*\\*64 - 1, got '18446744073709551616'"),
        ({"seed": 7}, "seed of matrix 0 is not as it should be"),
        ({"seed": "8"}, "its fingerprint differs"),
        ({"redraw": "-1"}, "must be a whole number"),
        ({"family": "Normal"}, "Unknown init family 'Normal'"),
        ({"shape": [2**50, 2**50]}, "another architecture"),
        ({"rank": 2**50}, "another architecture"),
        ({"scale": 2.0}, "another architecture"),
        ({"dtype": "float16"}, "fingerprint differs|is torch.float32"),
        ({"dtype": "nn"}, "has the dtype 'nn'"),
        ({"fingerprint": "0" * 64}, "its fingerprint differs"),
        ({"stack": 0}, "another architecture|in 0 parts"),
    ],
)
def test_other_matrix_is_refused(saved, fields, words):
    net, path = saved
    header = changed(path)
    header["matrices"][0] |= fields
    changed(path, matrices=header["matrices"])
    if fields == {"dtype": "float16"}:  # W_seed is rounded once more, which is what the file says
        assert load(path).conv.W_seed.dtype is torch.float16
        return
    with pytest.raises(ValueError, match=words):
        load(path)


@pytest.mark.parametrize(
    ("value", "words"),
    [(10**400, "architecture of its header is not as it should be"), ([], "nested deeper than 100")],
)
def test_numbers_and_lists_without_end_are_called_damage(saved, value, words):
    path = saved[1]
    for _ in range(450 if value == [] else 0):  # json reads that, and a function that calls itself gives up
        value = [value]
    changed(path, architecture={"name": "net", "arguments": {"width": value}})
    with pytest.raises(ValueError, match=words):
        load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_stored_output_that_is_no_number_deviates_without_bound(saved, value):
    net, path = saved
    sealed = from_bytes(bytearray(path.read_bytes()))
    sealed.tensors["probe/output"][0] = value
    path.write_bytes(to_bytes(sealed.tensors, sealed.header))
    assert deviation(load(path), read(path)) == math.inf


def test_outputs_that_are_infinite_in_the_same_places_do_not_deviate(saved):
    net, path = saved
    with torch.no_grad():
        net.embed.weight[1] = torch.inf
        net.embed.weight[2] = torch.nan
    save(net, path, architecture=("net", {"width": 8}), probe=[TOKENS], overwrite=True)
    artifact = read(path)
    assert not artifact.output.isfinite().all()
    assert deviation(load(path), artifact) == 0


def test_seed_of_another_scaffold_setting_beyond_64_bits_is_refused(saved):
    header = changed(saved[1])
    changed(saved[1], scaffold=header["scaffold"] | {"seed": str(2**64)})
    with pytest.raises(ValueError, match="The seed of 'scaffold' must be a whole number"):
        load(saved[1])


def test_what_is_no_file_of_ours_is_refused(tmp_path, saved):
    with pytest.raises(FileNotFoundError, match="There is no artifact at"):
        load(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="is no file"):
        load(tmp_path)
    safetensors.torch.save_file({"a": torch.ones(2)}, tmp_path / "other.safetensors")
    with pytest.raises(ValueError, match="no artifact of lottalora"):
        load(tmp_path / "other.safetensors")
    torch.save({"a": torch.ones(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="is a file of torch.save, and no artifact"):
        load(tmp_path / "other.pt")
    with pytest.raises(ValueError, match="A path is wanted, text or pathlib.Path, got None"):
        load(None)
    with pytest.raises(ValueError, match="a model and then a path, got an object of type str first"):
        load_into("other.pt", nn.Linear(2, 2))
    with pytest.raises(ValueError, match="on the meta device: call model.to_empty"):
        load_into(nn.Linear(2, 2, device="meta"), saved[1])
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere: make it first"):
        save(saved[0], tmp_path / "nowhere" / "a.safetensors")
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(ValueError, match="is no file"):
        load(tmp_path / "fifo")


def test_layers_without_end_are_refused(saved):
    def endless(width):
        return nn.Sequential(*(nn.Sequential(nn.Identity()) for _ in range(10**9)))

    architectures.ARCHITECTURES.clear()
    register_architecture("net", endless)
    with pytest.raises(ValueError, match="it has more than .* modules"):
        load(saved[1])


def test_limit_can_be_raised(saved):
    with pytest.raises(ValueError, match="it has more than 100 numbers. Pass a larger limit="):
        load(saved[1], limit=100)


def test_tensor_without_numbers_that_has_axes_without_end_is_refused():
    described = {"dtype": "F32", "shape": [2**52, 2**52, 0], "data_offsets": [0, 0]}
    with pytest.raises(ValueError, match="The artifact is damaged: the description of tensor 'more'"):
        tensors_in({"more": described}, memoryview(b""))
    assert tensors_in({"more": described | {"shape": [2**52, 0]}}, memoryview(b""))["more"].numel() == 0


def test_models_of_other_threads_are_not_counted(saved):
    errors = []

    def other():
        try:
            nn.Linear(10, 300)
        except Exception as error:
            errors.append(error)

    def with_another(width):
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        return Net(width)

    architectures.ARCHITECTURES.clear()
    register_architecture("net", with_another)
    assert_same(saved[0], load(saved[1], limit=2000))
    assert errors == []


def test_lazy_modules_can_be_made_after_a_load(saved):
    load(saved[1])
    lazy = nn.LazyLinear(3)
    assert lazy(torch.zeros(2, 5)).shape == (2, 3)


def test_threads_load_at_once_and_each_keeps_to_its_limit(saved):
    net, path = saved
    together, found = threading.Barrier(2, timeout=60), {}

    def meeting(width):
        together.wait()
        made = Net(width)
        together.wait()
        return made

    def work(limit):
        try:
            found[limit] = load(path, limit=limit)
        except Exception as error:
            found[limit] = error

    architectures.ARCHITECTURES.clear()
    register_architecture("net", meeting)
    threads = [threading.Thread(target=work, args=(limit,)) for limit in (2000, 2001)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for other in found.values():
        assert_same(net, other)
    assert torch.get_default_dtype() is torch.float32


class Once(nn.Module):
    """Two layers and a buffer that no state holds, as the frequencies of rotary positions."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(6, 5), nn.Linear(5, 2)
        self.register_buffer("factor", torch.tensor(3.0), persistent=False)

    def forward(self, x):
        return self.head(self.factor * self.body(x))

    @torch.no_grad()
    def start(self, module):
        if module is self:
            self.factor.fill_(3.0)
        else:
            module.reset_parameters()


def test_model_with_a_start_is_never_built_off_the_meta_device(monkeypatch, tmp_path):
    monkeypatch.setattr(architectures, "ARCHITECTURES", {})
    devices = []

    def build():
        devices.append(torch.get_default_device().type)
        return Once()

    register_architecture("once", build, start=Once.start)
    net, x = Once(), torch.randn(3, 6)
    wrap(net, Scaffold(rank=2, seed=4), keep=["head"])
    nn.init.normal_(net.body.B)
    save(net, tmp_path / "a.safetensors", architecture=("once", {}))
    drawn = count_draws(monkeypatch)
    state = torch.random.get_rng_state()
    other = load(tmp_path / "a.safetensors")
    assert devices == ["meta"] and drawn == [(5, 6)]
    assert torch.equal(other(x), net(x))
    assert torch.equal(torch.random.get_rng_state(), state)


def count_draws(monkeypatch):
    """The shapes of all weights that are drawn from here on."""
    shapes, fill = [], drawn.fill

    def counted(W_seed, source):
        shapes.append(tuple(W_seed.shape))
        fill(W_seed, source)

    monkeypatch.setattr(drawn, "fill", counted)
    return shapes
