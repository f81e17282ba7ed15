"""Artifacts as one Zstandard frame: the same tensors to the bit, and nothing decompressed beyond bounds."""

import json
import sys

import pytest
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import load_into
from lottalora.scaffold import read
from lottalora.scaffold import save
from lottalora.scaffold import wrap
from lottalora.scaffold.artifact.container import from_bytes
from lottalora.scaffold.artifact.container import lay_out
from lottalora.scaffold.artifact.container import to_bytes
from lottalora.scaffold.artifact.zstd import FRAME
from lottalora.scaffold.artifact.zstd import RATIO
from lottalora.scaffold.artifact.zstd import SMALL

zstandard = pytest.importorskip("zstandard")


def plain():
    return nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))


@pytest.fixture
def net():
    torch.manual_seed(0)
    model = plain()
    wrap(model, Scaffold(rank=4, seed=9), keep=["2"])
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture
def path(net, tmp_path):
    save(net, tmp_path / "net.safetensors", zstandard=True, probe=[torch.ones(2, 64)])
    return tmp_path / "net.safetensors"


def rewritten(path, change):
    """The file with another header or frame, and a seal that fits."""
    sealed = from_bytes(bytearray(path.read_bytes()))
    header, tensors = json.loads(sealed.header), dict(sealed.tensors)
    change(header, tensors)
    path.write_bytes(to_bytes(tensors, json.dumps(header)))


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_frame_holds_the_same_tensors_in_fewer_bytes(net, tmp_path, precision):
    paths = [tmp_path / "plain.safetensors", tmp_path / "frame.safetensors"]
    for path, zstd in zip(paths, (False, True), strict=True):
        save(net, path, zstandard=zstd, precision=precision, probe=[torch.ones(2, 64)])
    one, other = (read(path) for path in paths)
    assert one.state.keys() == other.state.keys()
    assert all(torch.equal(one.state[name], other.state[name]) for name in one.state)
    assert torch.equal(one.output, other.output)
    assert list(other.sealed.tensors) == [FRAME] and list(one.sealed.tensors) != [FRAME]
    tensors = sum(tensor.numel() * tensor.element_size() for tensor in one.sealed.tensors.values())
    assert other.sealed.tensors[FRAME].numel() < 0.98 * tensors
    x = torch.randn(3, 64)
    assert torch.equal(load_into(plain(), paths[0])(x), load_into(plain(), paths[1])(x))


def test_size_beyond_the_bound_is_refused_before_decompressing(path, monkeypatch):
    def bomb(header, tensors):
        header["zstandard"]["size"] = RATIO * tensors[FRAME].numel() + SMALL + 1

    rewritten(path, bomb)
    monkeypatch.setattr(zstandard, "ZstdDecompressor", None)
    with pytest.raises(ValueError, match="bytes in a Zstandard frame of .* are more than allowed"):
        read(path)


def test_frame_that_grows_beyond_what_it_says_is_refused_before_decompressing(path, monkeypatch):
    def bomb(header, tensors):
        frame = zstandard.ZstdCompressor().compress(bytes(2**28))
        tensors[FRAME] = torch.frombuffer(bytearray(frame), dtype=torch.uint8)

    rewritten(path, bomb)
    monkeypatch.setattr(zstandard, "ZstdDecompressor", None)
    with pytest.raises(ValueError, match="another size than its header says"):
        read(path)


def without_size(header, tensors):
    compressor = zstandard.ZstdCompressor(write_content_size=False)
    content = zstandard.ZstdDecompressor().decompress(tensors[FRAME].numpy().tobytes())
    tensors[FRAME] = torch.frombuffer(bytearray(compressor.compress(content)), dtype=torch.uint8)


def with_more_behind(header, tensors):
    tensors[FRAME] = torch.cat([tensors[FRAME], tensors[FRAME][:9]])


def of_another_kind(header, tensors):
    tensors[FRAME] = tensors[FRAME][: len(tensors[FRAME]) // 4 * 4].view(torch.int32)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (without_size, "another size than its header says"),
        (with_more_behind, "its Zstandard frame cannot be read"),
        (of_another_kind, "its tensors are not one Zstandard frame"),
        (lambda header, tensors: tensors.update(more=torch.ones(2)), "are not one Zstandard frame"),
        (lambda header, tensors: tensors.clear(), "are not one Zstandard frame"),
        (lambda header, tensors: header.update(zstandard=None), "its frame does not have the keys"),
        (lambda header, tensors: header["zstandard"]["tensors"].popitem(), "belong to no tensor|not where"),
        (lambda header, tensors: header.pop("zstandard"), "is not what its header says"),
    ],
)
def test_frame_that_is_not_what_the_header_says_is_refused(path, change, words):
    rewritten(path, change)
    with pytest.raises(ValueError, match=words):
        read(path)


def test_what_a_reader_would_refuse_is_not_written(tmp_path):
    net = nn.Sequential(nn.Linear(2000, 2000, bias=False))
    wrap(net, Scaffold(rank=64))
    nn.init.zeros_(net[0].A)
    with pytest.raises(ValueError, match="shrink more than 100-fold.*Leave out zstandard"):
        save(net, tmp_path / "net.safetensors", zstandard=True)
    assert not list(tmp_path.iterdir())


def test_int4_that_is_decoded_beyond_the_bound_is_neither_read_nor_written(tmp_path):
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(1024, 1024))
    wrap(net, Scaffold(rank=1), keep=["1"])
    save(net, tmp_path / "a.safetensors", precision="int4")
    sealed = from_bytes(bytearray((tmp_path / "a.safetensors").read_bytes()))
    header, tensors = json.loads(sealed.header), dict(sealed.tensors)
    (kept,) = (name for name in tensors if name == "1.weight")
    for name in (kept, f"scale/{kept}"):
        tensors[name] = torch.zeros_like(tensors[name])  # 0.6 MB in the frame, 4 MB decoded
    described, data = lay_out(tensors)
    frame = zstandard.ZstdCompressor().compress(data)
    padding = (len(data) // RATIO - len(frame)) * (len(frame) < len(data) // RATIO)
    tensors["padding"] = torch.randint(256, (padding + 2000,), dtype=torch.uint8)
    described, data = lay_out(tensors)
    frame = zstandard.ZstdCompressor().compress(data)
    assert len(data) <= RATIO * len(frame) + SMALL
    header["zstandard"] = {"size": len(data), "tensors": described}
    tensors = {FRAME: torch.frombuffer(bytearray(frame), dtype=torch.uint8)}
    (tmp_path / "a.safetensors").write_bytes(to_bytes(tensors, json.dumps(header)))
    with pytest.raises(ValueError, match="bytes from a Zstandard frame of .* are more than allowed"):
        read(tmp_path / "a.safetensors")
    nn.init.zeros_(net[1].weight)
    with pytest.raises(ValueError, match="shrink more than 100-fold"):
        save(net, tmp_path / "b.safetensors", precision="int4", zstandard=True)


def test_missing_package_is_named(path, net, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "zstandard", None)
    for act in (lambda: read(path), lambda: save(net, tmp_path / "b.safetensors", zstandard=True)):
        with pytest.raises(ModuleNotFoundError, match=r"pip install 'lottalora\[zstd\]'"):
            act()
