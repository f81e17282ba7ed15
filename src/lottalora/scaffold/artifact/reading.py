"""Reading an artifact: check the file by itself; nothing is built or drawn."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from lottalora.scaffold.adapter import DTYPES
from lottalora.scaffold.artifact.container import Sealed
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.container import read as read_sealed
from lottalora.scaffold.artifact.header import Header
from lottalora.scaffold.artifact.precision import SCALE
from lottalora.scaffold.artifact.precision import decode
from lottalora.scaffold.artifact.precision import decoded_bytes
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.artifact.state import PROBE
from lottalora.scaffold.artifact.state import W_SEED
from lottalora.scaffold.artifact.zstd import FRAME
from lottalora.scaffold.artifact.zstd import decompress
from lottalora.scaffold.artifact.zstd import refuse_growth


@dataclass(frozen=True)
class Artifact:
    """A file that was read and checked by itself; nothing was built or drawn.

    Args:
        header: what it says.
        state: the stored tensors of the model, by name; those that are compressed are decoded.
        stored: the W_seed that it stores, by layer.
        inputs: of the stored probe; empty without.
        output: of the stored probe; None without.
        sealed: the file.
    """

    header: Header
    state: dict[str, Tensor]
    stored: dict[str, Tensor]
    inputs: tuple[Tensor, ...]
    output: Tensor | None
    sealed: Sealed


def read(path: Path | str) -> Artifact:
    """Read and check a file without building a model. Its tensors are on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no artifact, is damaged, or belongs to another version.
    """
    with torch.device("cpu"):  # under any default device
        return _checked(read_sealed(path))


def _checked(sealed: Sealed) -> Artifact:
    header = Header.from_json(sealed.header)
    header.to_scaffold()
    tensors = dict(sealed.tensors)
    if header.zstandard is not None:
        tensors = decompress(header.zstandard, tensors)
        refuse_growth(decoded_bytes(header.compressed, tensors), sealed.tensors[FRAME].numel())
    expected = [f"{PROBE}input/{i}" for i in range(header.probes)] if header.probes <= len(tensors) else [""]
    expected += [f"{PROBE}output"] if header.probes else []
    stored = {m.name: W_SEED + m.name for m in header.matrices if m.stored}
    named = {name for name in tensors if name.startswith((PROBE, W_SEED))}
    if named != {*expected, *stored.values()}:
        raise damaged("its stored probe or W_seed is not what its header says")
    if any(source in header.tied or source not in tensors for source in header.tied.values()):
        raise damaged("a tied tensor is tied to none that it holds")
    quantised = {SCALE + each.name for each in header.compressed if each.group}
    if {name for name in tensors if name.startswith(SCALE)} != quantised:
        raise damaged("its scales are not those of its compressed tensors")
    probe = [tensors.pop(name) for name in expected]
    W_seeds = {name: tensors.pop(key) for name, key in stored.items()}
    for matrix in header.matrices:
        _check_matrix(matrix, W_seeds.get(matrix.name))
    decoded = {each.name: decode(each, tensors) for each in header.compressed}
    tensors = {name: tensor for name, tensor in (tensors | decoded).items() if name not in quantised}
    output = probe.pop() if header.probes else None
    return Artifact(header, tensors, W_seeds, tuple(probe), output, sealed)


def _check_matrix(matrix: MatrixRecord, stored: Tensor | None) -> None:
    source = matrix.source
    if matrix.dtype not in DTYPES:
        raise damaged(f"W_seed of {matrix.name!r} has the dtype {matrix.dtype!r}")
    if source is None and stored is None:
        raise damaged(f"W_seed of {matrix.name!r} was given and is not stored")
    if stored is not None and list(stored.shape) != matrix.shape:
        raise damaged(f"W_seed of {matrix.name!r} has the shape {list(stored.shape)}, not {matrix.shape}")
    if stored is not None and str(stored.dtype) != f"torch.{matrix.dtype}":
        raise damaged(f"W_seed of {matrix.name!r} is {stored.dtype}, not {matrix.dtype}")
