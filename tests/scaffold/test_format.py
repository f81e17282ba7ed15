"""A reader of artifacts that was written from docs/format.md alone: NumPy, nothing of ours."""

import hashlib
import json
import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from lottalora.models.mlp import MLP
from lottalora.scaffold import Scaffold
from lottalora.scaffold import save
from lottalora.scaffold import wrap

TABLES = Path(__file__).parents[2] / "src/lottalora/scaffold/families/quantiles.safetensors"
KINDS = {"F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "<u2", "I64": "<i8", "I8": "i1", "U8": "u1"}


def read_safetensors(content):
    (length,) = struct.unpack("<Q", content[:8])
    head = json.loads(content[8 : 8 + length])
    metadata, data = head.pop("__metadata__", {}), content[8 + length :]
    tensors = {}
    for name, entry in head.items():
        first, last = entry["data_offsets"]
        tensors[name] = np.frombuffer(data[first:last], KINDS[entry["dtype"]]).reshape(entry["shape"])
    return metadata, tensors


def read_artifact(path):
    content = path.read_bytes()
    metadata, tensors = read_safetensors(content)
    seal = metadata["seal"].encode()
    assert content.count(seal) == 1
    assert hashlib.sha256(content.replace(seal, b"0" * 64)).hexdigest() == metadata["seal"]
    header = json.loads(metadata["lottalora"])
    if "zstandard" in header:
        tensors = decompressed(header["zstandard"], **tensors)
    assert header["format"] == 1 and header["generator"] == 1
    assert hashlib.sha256(TABLES.read_bytes()).hexdigest() == header["tables"]
    return header, tensors


def decompressed(record, zstandard):
    package = pytest.importorskip("zstandard")
    frame = zstandard.tobytes()
    assert package.frame_content_size(frame) == record["size"] <= 100 * len(frame) + 65536
    head = json.dumps(record["tensors"]).encode()
    content = package.ZstdDecompressor().decompress(frame, allow_extra_data=False)
    return read_safetensors(struct.pack("<Q", len(head)) + head + content)[1]


def decoded(record, tensors):
    stored, shape = tensors[record["name"]], record["shape"]
    if record["precision"] == "fp16":
        return stored.astype(np.float32)
    if record["precision"] == "bf16":
        return widened(stored)
    q = stored.reshape(-1)
    if record["precision"] == "int4":
        halves = np.stack([q & 15, q >> 4], 1).reshape(-1)[: math.prod(shape)]
        q = np.where(halves > 7, halves.astype(int) - 16, halves)
    s = np.repeat(widened(tensors["scale/" + record["name"]]), record["group"])[: q.size]
    return (s * q.astype(np.float32)).reshape(shape)


def widened(bf16):
    return (bf16.astype(np.uint32) << 16).view(np.float32)


def philox(counter, key):
    c, k = [counter % 2**32, counter // 2**32, 0, 0], [key % 2**32, key // 2**32]
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(second >> 32) ^ c[1] ^ k[0], second % 2**32, (first >> 32) ^ c[3] ^ k[1], first % 2**32]
        k = [(k[0] + 0x9E3779B9) % 2**32, (k[1] + 0xBB67AE85) % 2**32]
    return c


def table_of(matrix):
    out, columns = matrix["shape"]
    p = matrix["parameters"]
    _, tables = read_safetensors(TABLES.read_bytes())

    def whole(name):
        half = tables[name]
        return half if half.size == 65536 else np.concatenate([-half[::-1], half])

    fan_in = 1 / math.sqrt(columns) if p.get("fan_in") else 1.0
    even = (2 * np.arange(65536) + 1 - 65536).astype(np.float32) / np.float32(65536)
    return {
        "normal": lambda: (whole("normal"), p["std"] * fan_in),
        "kaiming_normal": lambda: (whole("normal"), math.sqrt(2 / ((1 + p["a"] ** 2) * columns))),
        "xavier_normal": lambda: (whole("normal"), p["gain"] * math.sqrt(2 / (out + columns))),
        "kaiming_uniform": lambda: (even, math.sqrt(6 / ((1 + p["a"] ** 2) * columns))),
        "xavier_uniform": lambda: (even, p["gain"] * math.sqrt(6 / (out + columns))),
        "student_t": lambda: (whole("student_t3"), fan_in),
        "binary": lambda: (np.sign(whole("normal")), fan_in),
        "zeros": lambda: (np.zeros(65536, np.float32), 1.0),
    }[matrix["family"]]()


def draw(matrix):
    out, columns = matrix["shape"]
    seed, redraw, stream, family = (matrix[key] for key in ("seed", "redraw", "stream", "family"))
    text = f"lottalora/1/{seed}/{redraw}/{stream}/{out}x{columns}/{family}"
    key = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little")
    numbers = [
        half for i in range(-(-out * columns // 8)) for c in philox(i, key) for half in (c % 65536, c >> 16)
    ]
    T, m = table_of(matrix)
    return (T[numbers[: out * columns]] * np.float32(m)).astype("<f4").reshape(out, columns)


def forward(header, tensors, x):
    h = x.reshape(len(x), -1)
    for matrix in header["matrices"]:
        layer, W = matrix["name"], draw(matrix)
        assert hashlib.sha256(W.tobytes()).hexdigest() == matrix["fingerprint"]
        A, B, beta, b = (tensors[f"{layer}.{name}"] for name in ("A", "B", "beta", "bias"))
        h = np.maximum(beta * h @ W.T + matrix["scale"] * h @ A.T @ B.T + b, 0)
    return h @ tensors["head.weight"].T + tensors["head.bias"]


@pytest.mark.parametrize(
    ("family", "parameters", "seed"),
    [
        ("normal", {"std": 0.1, "fan_in": False}, 2**64 - 1),
        ("normal", {}, 0),
        ("kaiming_normal", {"a": 0.0}, 1),
        ("xavier_normal", {}, 2),
        ("kaiming_uniform", {}, 3),
        ("xavier_uniform", {"gain": 2.0}, 4),
        ("student_t", {}, 5),
        ("binary", {"fan_in": False}, 6),
        ("zeros", {}, 7),
    ],
)
def test_reader_written_from_the_page_computes_the_model(tmp_path, family, parameters, seed):
    torch.manual_seed(0)
    net = MLP([5, 5], 3, hidden=[14, 9], dropout=0.1)
    wrap(net, Scaffold(rank=2, alpha=3, family=family, parameters=parameters, seed=seed), keep=["head"])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    x = torch.randn(4, 5, 5)
    save(net, tmp_path / "net.safetensors", probe=[x])

    header, tensors = read_artifact(tmp_path / "net.safetensors")
    assert [matrix["name"] for matrix in header["matrices"]] == ["body.1", "body.4"]
    assert np.array_equal(tensors["probe/input/0"], x.numpy())
    found = forward(header, tensors, tensors["probe/input/0"])
    np.testing.assert_allclose(found, tensors["probe/output"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "zstandard"), [("bf16", False), ("fp16", True), ("int8", False), ("int4", True)]
)
def test_reader_written_from_the_page_computes_a_compressed_model(tmp_path, precision, zstandard):
    torch.manual_seed(0)
    net = MLP([5, 5], 3, hidden=[13, 9], dropout=0.1)  # 3 × 9 numbers of the head are odd
    wrap(net, Scaffold(rank=3, seed=5), keep=["head"])
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    settings = {"precision": precision, "zstandard": zstandard}
    save(net, tmp_path / "net.safetensors", probe=[torch.randn(4, 5, 5)], **settings)

    header, tensors = read_artifact(tmp_path / "net.safetensors")
    names = {"body.1.A", "body.1.B", "body.4.A", "body.4.B", "head.weight"}
    assert {record["name"] for record in header["compressed"]} == names
    state = net.state_dict()
    for record in header["compressed"]:
        tensors[record["name"]] = found = decoded(record, tensors)
        error = np.abs(found.astype(float) - state[record["name"]].numpy())
        np.testing.assert_allclose(error.max(), record["largest_error"])
        np.testing.assert_allclose(np.sqrt(np.mean(error**2)), record["rms_error"])
    found = forward(header, tensors, tensors["probe/input/0"])
    np.testing.assert_allclose(found, tensors["probe/output"], rtol=1e-5, atol=1e-6)


def test_page_names_every_key_that_a_file_has(tmp_path):
    pytest.importorskip("zstandard")
    net = MLP([4], 2, hidden=[3], dropout=0.0)
    wrap(net, Scaffold(rank=1), keep=["head"])
    save(net, tmp_path / "net.safetensors", precision="int8", zstandard=True)
    header, _ = read_artifact(tmp_path / "net.safetensors")
    page = (Path(__file__).parents[2] / "docs/format.md").read_text()
    parts = header, header["matrices"][0], header["compressed"][0], header["zstandard"]
    absent = [key for part in parts for key in part if f"`{key}`" not in page]
    assert not absent
