"""Ten thousand mutated artifacts: each is refused in one line, or is exactly what the file says."""

import hashlib
import json
import random
import re
import resource
import struct
import time

import pytest
import safetensors.torch
import torch
from torch import nn

from lottalora.scaffold import Scaffold
from lottalora.scaffold import load
from lottalora.scaffold import register_architecture
from lottalora.scaffold import save
from lottalora.scaffold import wrap
from lottalora.scaffold.artifact import architectures
from lottalora.scaffold.artifact.container import BLANK
from lottalora.scaffold.artifact.state import state_names
from lottalora.scaffold.layers.identity import bits
from lottalora.scaffold.whole_model.backbone import scaffold_layers

FILES = 10_000
SLOWEST = 2.0  # seconds of processor time for one file
MEMORY = 64 * 2**20  # bytes beyond those at the start
STRANGE = [None, True, -1, 0, 1, 2**31, 2**53 - 1, 2**63, 2**64, 10**30, 0.5, -1e308, "", "a", "9" * 4000,
           "0" * 64, [], {}, [[]], [0], [2**60], {"a": 1}, "../../etc/passwd",
           "\ud800", "os.system", "1" * 20]  # fmt: skip


def build(width, layers):
    return nn.Sequential(*(nn.Linear(width, width) for _ in range(layers)), nn.Linear(width, 2))


@pytest.fixture
def original(tmp_path, monkeypatch):
    monkeypatch.setattr(architectures, "ARCHITECTURES", {})
    register_architecture("net", build)
    torch.manual_seed(0)
    net = build(3, 1)
    wrap(net, Scaffold(rank=1, seed=5), keep=["1"])
    save(net, tmp_path / "net.safetensors", architecture=("net", {"width": 3, "layers": 1}))
    return net, (tmp_path / "net.safetensors").read_bytes()


@pytest.fixture
def quantised(original, tmp_path):
    net, _ = original
    described = ("net", {"width": 3, "layers": 1})
    save(net, tmp_path / "int4.safetensors", architecture=described, precision="int4")
    return load(tmp_path / "int4.safetensors"), (tmp_path / "int4.safetensors").read_bytes()


@pytest.fixture
def frame(original, tmp_path):
    pytest.importorskip("zstandard")
    net, _ = original
    save(net, tmp_path / "zstd.safetensors", architecture=("net", {"width": 3, "layers": 1}), zstandard=True)
    return load(tmp_path / "zstd.safetensors"), (tmp_path / "zstd.safetensors").read_bytes()


def parts(content):
    (length,) = struct.unpack("<Q", content[:8])
    return content[8 : 8 + length], content[8 + length :]


def joined(head, data, length=None):
    return struct.pack("<Q", len(head) if length is None else length) + head + data


# Mutations of bytes


def flip(content, rng):
    content = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 8))):
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    return bytes(content)


def flip_data(content, rng):
    head, data = parts(content)
    return joined(head, flip(data, rng))


def cut(content, rng):
    return content[: rng.randrange(len(content))]


def lengthen(content, rng):
    return content + bytes(rng.choice((1, 4, 8, 4096)))


def other_length(content, rng):
    return joined(*parts(content), length=rng.choice((0, 1, 2**24 + 1, 2**62, 2**64 - 1, len(content), 8)))


def remove_or_double(content, rng):
    first = rng.randrange(len(content))
    last = min(len(content), first + rng.choice((1, 2, 7, 60)))
    return content[:first] + content[last:] if rng.random() < 0.5 else content[:last] + content[first:]


def double_key(content, rng):
    head, data = parts(content)
    key = rng.choice((b'"__metadata__":{},', b'"0.A":{"dtype":"F32","shape":[0],"data_offsets":[0,0]},'))
    return joined(b"{" + key + head[1:], data)


def deep(content, rng):
    return joined(b"[" * rng.choice((10, 1000, 200_000)), b"")


# Mutations of the two headers' JSON


def change(value, rng):
    """Replace, remove, add or move one value somewhere in JSON data."""
    if isinstance(value, dict | list) and value and rng.random() < 0.85:
        key = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        act = rng.random()
        if act < 0.1:
            del value[key]
        elif act < 0.2 and isinstance(value, dict):
            value[rng.choice(("", "a", "0.A", "1.weight", "W_seed/0", "probe/output"))] = value[key]
        elif act < 0.3:
            value[key] = value[rng.choice(list(value) if isinstance(value, dict) else range(len(value)))]
        else:
            value[key] = change(value[key], rng)
        return value
    if type(value) in (int, float) and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 4, 0.5, 2**40))
    return rng.choice(STRANGE)


def dumped(value):
    return json.dumps(value, separators=(",", ":")).encode()


def change_tensors(content, rng):
    head, data = parts(content)
    described = json.loads(head)
    metadata = described.pop("__metadata__")
    described = change(described, rng)
    return joined(
        dumped({"__metadata__": metadata} | described if isinstance(described, dict) else described), data
    )


def change_header(content, rng):
    head, data = parts(content)
    described = json.loads(head)
    header = json.loads(described["__metadata__"]["lottalora"])
    for _ in range(rng.choice((1, 1, 2))):
        header = change(header, rng)
    described["__metadata__"]["lottalora"] = dumped(header).decode()
    return joined(dumped(described), data)


def change_metadata(content, rng):
    head, data = parts(content)
    described = json.loads(head)
    described["__metadata__"] = change(described["__metadata__"], rng)
    return joined(dumped(described), data)


MUTATIONS = [flip, flip_data, cut, lengthen, other_length, remove_or_double, double_key, deep, change_tensors,
             change_tensors, change_header, change_header, change_header, change_metadata]  # fmt: skip


def sealed_anew(content):
    """The same with a seal that fits, where there is a place for one."""

    head, _ = parts(content) if len(content) >= 8 else (b"", b"")
    found = re.search(rb'"seal":"([0-9a-f]{64})"', head)
    if found is None:
        return content
    seal = hashlib.sha256(content.replace(found[1], BLANK.encode(), 1)).hexdigest()
    return content.replace(found[1], seal.encode(), 1)


def decoded(path):
    """What a file says, its numbers of 4 bits read anew."""
    found = safetensors.torch.load_file(path)
    written = json.loads(json.loads(parts(path.read_bytes())[0])["__metadata__"]["lottalora"])
    if "zstandard" in written:
        import zstandard

        head = dumped(written["zstandard"]["tensors"])
        content = zstandard.ZstdDecompressor().decompress(found["zstandard"].numpy().tobytes())
        found = safetensors.torch.load(joined(head, content))
    for record in written.get("compressed", []):
        codes = [half - 16 * (half > 7) for byte in found[record["name"]] for half in (byte & 15, byte >> 4)]
        numbers = torch.tensor(codes[: record["shape"][0] * record["shape"][1]]).float()
        scales = found.pop("scale/" + record["name"]).float().repeat_interleave(32)[: len(numbers)]
        found[record["name"]] = (scales * numbers).view(record["shape"])
    return found


@pytest.mark.slow
def test_mutated_files_are_refused_or_load_what_they_say(original, quantised, frame, tmp_path):
    for (net, content), files in ((original, FILES), (quantised, FILES // 5), (frame, FILES // 5)):
        mutate(net, content, files, tmp_path)


def mutate(net, content, files, tmp_path):
    """Load so many mutations of a file."""
    before = {name: tensor.clone() for name, tensor in state_names(net).items()}
    path = tmp_path / "mutated.safetensors"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused = loaded = 0
    for number in range(files):
        rng = random.Random(number)
        mutated = rng.choice(MUTATIONS)(content, rng)
        renewed = number % 2 == 1
        path.write_bytes(sealed_anew(mutated) if renewed else mutated)
        began = time.process_time()
        try:
            other = load(path)
        except ValueError as error:
            assert "\n" not in str(error) and str(error), number
            refused += 1
            continue
        finally:
            assert time.process_time() - began < SLOWEST, number
        loaded += 1
        found = state_names(other)
        expected = decoded(path) if renewed else before
        assert found.keys() == expected.keys(), number
        assert all(torch.equal(bits_of(found[name]), bits_of(expected[name])) for name in found), number
        written = json.loads(json.loads(parts(path.read_bytes())[0])["__metadata__"]["lottalora"])
        for matrix in written["matrices"]:
            layer = scaffold_layers(other)[matrix["name"]]
            assert bits(layer.W_seed.float()) == matrix["fingerprint"] or matrix["dtype"] != "float32", number
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < MEMORY / 1024
    assert refused + loaded == files and refused > 0.75 * files and loaded > 0.02 * files


def bits_of(tensor):
    """So that NaN equals NaN."""
    return tensor.contiguous().flatten().view(torch.uint8)
