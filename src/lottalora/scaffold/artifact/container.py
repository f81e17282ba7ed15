"""The bytes of an artifact: a safetensors file with a JSON header in its metadata and a seal over all of it.

The seal is the SHA-256 of the whole file with its own 64 digits read as zeros. Nothing is allocated before
the sizes that the file states are found to agree with its length.
"""

import hashlib
import json
import math
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lottalora.scaffold.wrapping.places import in_one_line

MAX_HEADER = 16 * 2**20  # bytes
MAX_AXES = 8
MAX_DEPTH = 100  # of lists and objects within each other, far below Python's own limit
MOST = 2**53  # of an axis or a size, exact as a float64
BLANK = "0" * 64
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}
ZIP = b"PK"  # the files of torch.save begin with it
METADATA = {"format", "lottalora", "seal"}
_EXISTS = "{} exists. Choose another name, or pass overwrite=True."


@dataclass(frozen=True)
class Sealed:
    """What a file contains.

    Args:
        header: the JSON text in the metadata.
        tensors: views of the file's bytes, by name.
        seal: the SHA-256, 64 hexadecimal digits.
        size: of the file, in bytes.
    """

    header: str
    tensors: dict[str, Tensor]
    seal: str
    size: int


def write(path: Path, tensors: Mapping[str, Tensor], header: str, *, overwrite: bool) -> None:
    """Write a sealed file, whole or not at all. Of a symbolic link, what it points to is written.

    Raises:
        FileExistsError: the file exists, and `overwrite` is False; or a folder or device has that name.
        FileNotFoundError: its folder does not exist.
        ValueError: a tensor has a dtype that an artifact cannot hold.
    """
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise FileNotFoundError(f"There is no folder {target.parent}: make it first.")
    if target.exists() and not target.is_file():
        raise FileExistsError(f"{path} is a folder or a device, which no file replaces. Choose another name.")
    if target.exists() and not overwrite:
        raise FileExistsError(_EXISTS.format(path))
    begun = target.with_name(f".{secrets.token_hex(8)}.tmp")  # short, so that any name of a file can be given
    try:
        begun.write_bytes(to_bytes(tensors, header))
        if overwrite:
            os.replace(begun, target)
        else:
            _put_where_none_is(begun, target, path)
    finally:
        begun.unlink(missing_ok=True)


def _put_where_none_is(begun: Path, target: Path, path: Path) -> None:
    """Give a file its name in one step, unless another process has taken that meanwhile."""
    try:
        os.link(begun, target)
    except FileExistsError:
        raise FileExistsError(_EXISTS.format(path)) from None
    except OSError:  # a file system without hard links
        os.replace(begun, target)


def to_bytes(tensors: Mapping[str, Tensor], header: str) -> bytes:
    """The sealed file as bytes; the same tensors and header give the same bytes.

    Raises:
        ValueError: a tensor has a dtype that an artifact cannot hold, or the header is too long.
    """
    described, data = lay_out(tensors)
    described = {"__metadata__": {"format": "pt", "lottalora": header, "seal": BLANK}} | described
    text = json.dumps(described, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise ValueError(
            f"The header would have {len(text):,} bytes; an artifact's has {MAX_HEADER:,} at most."
        )
    content = b"".join([len(text).to_bytes(8, "little"), text, data])
    seal = hashlib.sha256(content).hexdigest()
    return content.replace(f'"seal":"{BLANK}"'.encode(), f'"seal":"{seal}"'.encode(), 1)


def lay_out(tensors: Mapping[str, Tensor]) -> tuple[dict[str, object], bytes]:
    """The description of each tensor, and their bytes one after another.

    Raises:
        ValueError: a tensor has a dtype that an artifact cannot hold.
    """
    unknown = [name for name, tensor in tensors.items() if tensor.dtype not in NAMES]
    if unknown:
        dtype = tensors[unknown[0]].dtype
        raise ValueError(f"An artifact cannot hold {unknown[0]!r} of {dtype}. It holds: {', '.join(DTYPES)}.")
    described: dict[str, object] = {}
    parts, end = [], 0
    for name in sorted(tensors, key=lambda name: (-tensors[name].element_size(), name)):  # keeps them aligned
        tensor = tensors[name]
        parts.append(_bytes_of(tensor))
        start, end = end, end + len(parts[-1])
        described[name] = {
            "dtype": NAMES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [start, end],
        }
    return described, b"".join(parts)


def read(path: Path | str) -> Sealed:
    """Read and check a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no artifact, is damaged, or its seal is broken; the message says what is wrong.
    """
    path = to_path(path)
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        raise FileNotFoundError(f"There is no artifact at {path}: {error.strerror}.") from None
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is no file. Name a .safetensors file that lottalora wrote.")
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size  # of what is open: another process may have replaced the file
        first, begun = file.read(8), file.read(1)
        if first.startswith(ZIP):
            raise ValueError(f"{path} is a file of torch.save, and no artifact: load it with torch.load.")
        if begun not in (b"{", b""):
            raise ValueError(
                f"{path} is no artifact of lottalora: it does not begin as a safetensors file does."
            )
        _header_length(first, size)  # before the rest is read
        file.seek(0)
        return from_bytes(bytearray(file.read(size)))


def to_path(path: object) -> Path:
    """The path that a caller gave.

    Raises:
        ValueError: it is no path.
    """
    if not isinstance(path, str | Path):
        raise ValueError(f"A path is wanted, text or pathlib.Path, got {in_one_line(path)}.")
    return Path(path)


def from_bytes(content: bytearray) -> Sealed:
    """Check the bytes of a file.

    Raises:
        ValueError: as for `read`.
    """
    length = _header_length(content[:8], len(content))
    head, data = bytes(content[8 : 8 + length]), memoryview(content)[8 + length :]
    described = parse(head, "its safetensors header")
    if not isinstance(described, dict):
        raise damaged("its safetensors header is no JSON object")
    metadata = described.pop("__metadata__", None)
    if not isinstance(metadata, dict) or not isinstance(metadata.get("lottalora"), str):
        raise ValueError("This safetensors file is no artifact of lottalora: it has no lottalora header.")
    if metadata.keys() != METADATA or metadata["format"] != "pt" or not isinstance(metadata["seal"], str):
        raise damaged("its metadata must be format, which is pt, lottalora and seal")
    _check_seal(content, head, metadata["seal"])
    tensors = tensors_in(described, data)
    return Sealed(metadata["lottalora"], tensors, metadata["seal"], len(content))


def parse(text: str | bytes, what: str) -> object:
    """Read JSON strictly: no key twice, no NaN, no infinity, nothing nested deeper than MAX_DEPTH.

    Args:
        text: the JSON.
        what: it is called in the message.

    Raises:
        ValueError: it is not that.
    """
    try:
        text = text.decode("utf-8") if isinstance(text, bytes) else text  # json would guess the encoding
        found: object = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
        _refuse_depth(found)
        json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text
    except (ValueError, RecursionError) as error:
        raise damaged(f"{what} cannot be read ({error})") from None
    return found


class Damaged(ValueError):
    """The error for a file that was changed or cut.

    Args:
        reason: what is wrong with it.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"The artifact is damaged: {reason}. Take another copy of it.")
        self.reason = reason


def damaged(reason: str) -> Damaged:
    """The error for a file that was changed or cut."""
    return Damaged(reason)


def _header_length(first: bytes | bytearray, size: int) -> int:
    length = int.from_bytes(first, "little")
    if len(first) < 8 or length > size - 8:
        raise damaged(f"it is cut off, at {size:,} bytes")
    if length > MAX_HEADER:
        raise damaged(f"its header has {length:,} bytes, and {MAX_HEADER:,} are allowed")
    return length


def _check_seal(content: bytearray, head: bytes, seal: str) -> None:
    written = f'"seal":"{seal}"'.encode(errors="replace")
    if len(seal) != 64 or head.count(written) != 1:
        raise damaged("its seal is not written as it should be")
    blanked = head.replace(written, f'"seal":"{BLANK}"'.encode())
    found = hashlib.sha256(content[:8] + blanked)
    found.update(memoryview(content)[8 + len(head) :])
    if found.hexdigest() != seal:
        raise damaged("its seal is broken")


def tensors_in(described: Mapping[str, object], data: memoryview) -> dict[str, Tensor]:
    """The tensors as views of `data`, which they must fill in order, without a gap.

    Raises:
        ValueError: they do not, or a description is none.
    """
    entries = {name: _entry(name, entry) for name, entry in described.items()}
    tensors, end = {}, 0
    for name, (dtype, shape, (first, last)) in sorted(entries.items(), key=lambda item: item[1][2]):
        size = math.prod(shape) * dtype.itemsize
        if first != end or last - first != size or last > len(data):
            raise damaged(f"the bytes of tensor {name!r} are not where they should be")
        flat = torch.frombuffer(data, dtype=dtype, count=math.prod(shape), offset=first) if size else None
        tensors[name] = torch.empty(shape, dtype=dtype) if flat is None else flat.view(shape)
        end = last
    if end != len(data):
        raise damaged(f"{len(data) - end:,} bytes at its end belong to no tensor")
    return tensors


def _entry(name: str, entry: object) -> tuple[torch.dtype, tuple[int, ...], tuple[int, int]]:
    """(dtype, shape, offsets) of one tensor, checked alone."""
    wrong = damaged(f"the description of tensor {name!r} is not that of a tensor")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise wrong
    dtype, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES or not _are_sizes(shape) or not _are_sizes(offsets):
        raise wrong
    if len(shape) > MAX_AXES or len(offsets) != 2:
        raise wrong
    if math.prod(axis for axis in shape if axis) >= MOST:  # PyTorch cannot lay out an empty one of these axes
        raise wrong
    return DTYPES[dtype], tuple(shape), (offsets[0], offsets[1])


def _are_sizes(values: object) -> bool:
    return isinstance(values, list) and all(type(value) is int and 0 <= value < MOST for value in values)


def _bytes_of(tensor: Tensor) -> bytes:
    content = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()
    return np.ascontiguousarray(content).tobytes()


def _without_doubles(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _refuse_depth(found: object) -> None:
    level = [found] if isinstance(found, dict | list) else []
    for _ in range(MAX_DEPTH):
        parts = [each.values() if isinstance(each, dict) else each for each in level]
        level = [each for part in parts for each in part if isinstance(each, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested deeper than {MAX_DEPTH}")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is no number in JSON")
