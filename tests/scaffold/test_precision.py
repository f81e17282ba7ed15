"""Artifacts in fewer bits: close to the model, the same when saved again, and refused where mislabelled."""

import json

import pytest
import torch
from torch import nn

from lottalora.analysis.cost import compressed_bytes
from lottalora.scaffold import Scaffold
from lottalora.scaffold import deviation
from lottalora.scaffold import load
from lottalora.scaffold import read
from lottalora.scaffold import register_architecture
from lottalora.scaffold import save
from lottalora.scaffold import wrap
from lottalora.scaffold.artifact import architectures
from lottalora.scaffold.artifact.container import from_bytes
from lottalora.scaffold.artifact.container import to_bytes
from lottalora.scaffold.artifact.precision import PRECISIONS
from lottalora.scaffold.artifact.precision import compressible
from lottalora.scaffold.artifact.precision import decode
from lottalora.scaffold.artifact.precision import encode
from lottalora.scaffold.artifact.records import CompressedRecord
from lottalora.scaffold.whole_model.backbone import scaffold_layers

REDUCED = PRECISIONS[1:]
TOKENS = torch.arange(12).view(2, 6) % 11


class Net(nn.Module):
    """A tied embedding, batch normalisation and two layers on a scaffold."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 7)
        self.norm = nn.BatchNorm1d(7)
        self.mlp = nn.Sequential(nn.Linear(7, 40), nn.ReLU(), nn.Linear(40, 7))
        self.head = nn.Linear(7, 11)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        h = self.norm(self.embed(tokens).transpose(1, 2)).transpose(1, 2)
        return self.head(self.mlp(h))


@pytest.fixture
def net(monkeypatch):
    monkeypatch.setattr(architectures, "ARCHITECTURES", {})
    register_architecture("net", Net)
    torch.manual_seed(0)
    model = wrapped(Net(), rank=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    model(TOKENS)  # statistics of batch normalisation
    return model.eval()


def wrapped(model, **options):
    wrap(model, Scaffold(seed=9, **options), keep=["embed"])
    return model


def saved(model, path, precision):
    save(model, path, architecture=("net", {}), probe=[TOKENS], precision=precision)
    return path


def stored(path):
    sealed = from_bytes(bytearray(path.read_bytes()))
    return json.loads(sealed.header), sealed.tensors


def rewrite(path, header, tensors):
    path.write_bytes(to_bytes(tensors, json.dumps(header)))


@pytest.mark.parametrize("precision", REDUCED)
def test_loaded_model_is_what_the_file_says_and_is_saved_to_the_same_bits(net, tmp_path, precision):
    path = saved(net, tmp_path / "a.safetensors", precision)
    other, artifact = load(path), read(path)
    assert deviation(other, artifact) == 0  # the probe is the compressed model's
    ours, theirs = net.state_dict(), other.state_dict()
    compressed = {record.name: record for record in artifact.header.compressed}
    assert compressed.keys() == {"embed.weight", *(f"mlp.{i}.{m}" for i in (0, 2) for m in "AB")}
    for name, tensor in theirs.items():
        assert tensor.dtype == ours[name].dtype
        if name.replace("head.weight", "embed.weight") not in compressed:
            assert torch.equal(tensor, ours[name])
    for name, record in compressed.items():
        error = (theirs[name].double() - ours[name].double()).abs()
        assert record.largest_error == error.max().item() > 0
        assert record.rms_error == pytest.approx(error.square().mean().sqrt().item())
    layers, others = scaffold_layers(net), scaffold_layers(other)
    assert all(layers[name].fingerprint() == others[name].fingerprint() for name in layers)

    again = saved(other, tmp_path / "b.safetensors", precision)
    (header, tensors), (header_again, tensors_again) = stored(path), stored(again)
    assert tensors.keys() == tensors_again.keys()
    assert all(torch.equal(tensors[name], tensors_again[name]) for name in tensors)
    assert all(record["largest_error"] == 0 for record in header_again["compressed"])
    third = saved(load(again), tmp_path / "c.safetensors", precision)
    assert third.read_bytes() == again.read_bytes()
    assert header["matrices"] == header_again["matrices"]


def test_saving_leaves_the_model_as_it_was(net, tmp_path):
    before = {name: (p.data_ptr(), p.clone()) for name, p in net.named_parameters()}
    saved(net, tmp_path / "a.safetensors", "int4")
    assert all(p.data_ptr() == before[name][0] for name, p in net.named_parameters())
    assert all(torch.equal(p, before[name][1]) for name, p in net.named_parameters())


def test_default_is_float32_without_a_word_of_precision(net, tmp_path):
    save(net, tmp_path / "a.safetensors", architecture=("net", {}), probe=[TOKENS])
    named = saved(net, tmp_path / "b.safetensors", "fp32")
    assert named.read_bytes() == (tmp_path / "a.safetensors").read_bytes()
    header, tensors = stored(named)
    assert "compressed" not in header and not any(name.startswith("scale/") for name in tensors)


@pytest.mark.parametrize(("precision", "largest"), [("int8", 127), ("int4", 7)])
@pytest.mark.parametrize("size", [1e-30, 1e-6, 1.0, 1e30])
def test_no_number_is_further_than_half_a_step_from_its_own(precision, largest, size):
    torch.manual_seed(1)
    x = size * torch.randn(37, 41) * torch.logspace(-3, 3, 37)[:, None]
    x[3] = 0
    parts, decoded, record = encode("x", x, precision)
    step = parts["scale/x"].float().repeat_interleave(32)[: x.numel()].view(x.shape)
    assert ((x - decoded).abs() <= step * 0.5000001).all()
    assert record.rms_error < size * 1000 * 2 / largest
    again, *_ = encode("x", decoded, precision)
    assert all(torch.equal(again[name], parts[name]) for name in parts)
    assert torch.equal(decode(record, parts), decoded)


@pytest.mark.parametrize(("precision", "largest"), [("int8", 127), ("int4", 7)])
def test_largest_number_of_a_group_has_the_largest_code(precision, largest):
    x = torch.linspace(1, 2, 4097)[:, None] * torch.linspace(
        -0.3, 1, 32
    )  # every half step of a scale's last bit
    parts, decoded, record = encode("x", x, precision)
    assert torch.equal(decoded.amax(1), largest * parts["scale/x"].float())
    assert torch.equal(decode(record, parts), decoded)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_numbers_too_small_for_a_scale_are_0(precision):
    parts, decoded, record = encode("x", torch.full((2, 2), 1e-38), precision)
    assert not decoded.any() and not parts["scale/x"].any()
    assert record.largest_error == pytest.approx(1e-38)
    assert not decode(record, parts).any()


class Several(nn.Module):
    """Norms of several axes, a constant table and a layer on a scaffold."""

    def __init__(self):
        super().__init__()
        self.layer, self.head = nn.Linear(4, 4), nn.Linear(4, 4)
        self.norms = nn.ModuleList([nn.LayerNorm((3, 4)), nn.RMSNorm((3, 4))])
        self.table = nn.Parameter(torch.randn(3, 4), requires_grad=False)


def test_gains_of_norms_and_constants_stay_as_they_are(tmp_path):
    model = Several()
    wrap(model, Scaffold(rank=1), keep=["norms", "head"])
    matrices = ["head.weight", "layer.A", "layer.B"]
    assert sorted(compressible(model)) == matrices
    model.head.requires_grad_(False)
    model.layer.A.requires_grad_(False)
    assert sorted(compressible(model)) == matrices[1:]
    model.requires_grad_(False)  # nothing says what is a constant
    assert sorted(compressible(model)) == [*matrices, "table"]
    save(model, tmp_path / "a.safetensors", precision="int4")
    assert [each.name for each in read(tmp_path / "a.safetensors").header.compressed] == [*matrices, "table"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_file_has_the_size_that_is_counted(net, tmp_path, precision):
    path = saved(net, tmp_path / "a.safetensors", precision)
    _, tensors = stored(path)
    matrices = {id(p): p.numel() for p in compressible(net).values()}.values()
    vectors = sum(p.numel() for p in net.parameters()) - sum(matrices)
    beside = {name for name in tensors if name.startswith(("probe/", "norm.running", "norm.num_batches"))}
    held = sum(t.numel() * t.element_size() for name, t in tensors.items() if name not in beside)
    assert held == compressed_bytes(matrices, vectors, precision)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda net: None, "precision must be one of fp32, bf16, fp16, int8, int4, got 'int3'"),
        (lambda net: net.mlp[0].A.data.fill_(float("nan")), "'mlp.0.A' holds a number that int8 cannot"),
        (lambda net: net.mlp[0].A.data.fill_(float("inf")), "'mlp.0.A' holds a number that int8 cannot"),
        (lambda net: net.embed.to(torch.bfloat16), "'embed.weight' is torch.bfloat16: convert the model"),
    ],
)
def test_what_cannot_be_compressed_is_refused(net, tmp_path, change, words):
    change(net)
    with pytest.raises(ValueError, match=words):
        save(net, tmp_path / "a.safetensors", precision="int3" if "int3" in words else "int8")
    assert not (tmp_path / "a.safetensors").exists()


def test_number_beyond_fp16_is_refused(net, tmp_path):
    net.mlp[0].A.data[0, 0] = 1e5
    with pytest.raises(ValueError, match="'mlp.0.A' holds a number that fp16 cannot"):
        save(net, tmp_path / "a.safetensors", precision="fp16")


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"group": 16}, "precision 'int8' in groups of 16"),
        ({"group": 0}, "scales are not those"),
        ({"group": 2**40}, "in groups of 1099511627776"),
        ({"precision": "int4"}, "is not what its header says"),
        ({"precision": "fp16", "group": 0}, "scales are not those"),
        ({"precision": "int3"}, "has the precision 'int3'"),
        ({"precision": "fp32", "group": 0}, "scales are not those"),
        ({"shape": [2**40, 2**40]}, "is not what its header says"),
        ({"shape": [7, 11]}, "is not what its header says"),
        ({"shape": [77]}, "is not what its header says"),
        ({"shape": [-11, -7]}, "is not what its header says"),
        ({"name": "mlp.0.bias"}, "scales are not those"),
        ({"largest_error": -1.0}, "errors of tensor"),
        ({"rms_error": 1e9}, "errors of tensor"),
        ({"rms_error": "0"}, "rms_error of compressed tensor 0 is not as it should be"),
    ],
)
def test_mislabelled_tensor_is_refused(net, tmp_path, fields, words):
    path = saved(net, tmp_path / "a.safetensors", "int8")
    header, tensors = stored(path)
    assert header["compressed"][0]["name"] == "embed.weight"
    header["compressed"][0] |= fields
    rewrite(path, header, tensors)
    with pytest.raises(ValueError, match=words):
        load(path)


@pytest.mark.parametrize("scale", [float("nan"), float("inf"), -1.0, -0.0, 1e-39, 0.0, 3e38])
@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_scale_that_is_none_is_refused(net, tmp_path, precision, scale):
    path = saved(net, tmp_path / "a.safetensors", precision)
    header, tensors = stored(path)
    tensors["scale/mlp.0.A"][0] = scale
    rewrite(path, header, tensors)
    with pytest.raises(ValueError, match="scale of tensor 'mlp.0.A' is|'mlp.0.A' holds a number"):
        load(path)


@pytest.mark.parametrize(
    ("name", "tensor", "words"),
    [
        ("scale/embed.weight", torch.ones(2, dtype=torch.bfloat16), "a scale for every 32 numbers"),
        ("scale/embed.weight", torch.ones(3), "a scale for every 32 numbers"),
        ("scale/mlp.0.bias", torch.ones(3, dtype=torch.bfloat16), "scales are not those"),
        ("embed.weight", torch.full((11, 7), -128, dtype=torch.int8), "not that of the largest number"),
        ("embed.weight", torch.ones(11, 7, dtype=torch.int8), "not that of the largest number"),
        ("embed.weight", torch.ones(11, 7, dtype=torch.uint8), "is not what its header says"),
    ],
)
def test_other_codes_or_scales_are_refused(net, tmp_path, name, tensor, words):
    path = saved(net, tmp_path / "a.safetensors", "int8")
    header, tensors = stored(path)
    rewrite(path, header, tensors | {name: tensor})
    with pytest.raises(ValueError, match=words):
        load(path)


def test_four_bits_beyond_the_last_number_are_0():
    record = CompressedRecord(
        name="x", shape=[1, 3], precision="int4", group=32, largest_error=0, rms_error=0
    )
    scale = torch.ones(1, dtype=torch.bfloat16)
    packed = torch.tensor([0x97, 0x02], dtype=torch.uint8)
    assert decode(record, {"x": packed, "scale/x": scale}).tolist() == [[7.0, -7.0, 2.0]]
    packed[1] = 0x12
    with pytest.raises(ValueError, match="numbers beyond its last"):
        decode(record, {"x": packed, "scale/x": scale})
    packed[1] = 0x08  # −8
    with pytest.raises(ValueError, match="not that of the largest number"):
        decode(record, {"x": packed, "scale/x": scale})


def test_list_of_none_or_of_one_twice_is_refused(net, tmp_path):
    path = saved(net, tmp_path / "a.safetensors", "int8")
    header, tensors = stored(path)
    for listed, words in (([], "lists no compressed"), (header["compressed"][:1] * 2, "listed twice")):
        rewrite(path, header | {"compressed": listed}, tensors)
        with pytest.raises(ValueError, match=words):
            load(path)
