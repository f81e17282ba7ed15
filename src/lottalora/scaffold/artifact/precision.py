r"""Trained matrices in fewer bits: rounded to 16, or to 8 or 4 with a scale for every 32 numbers.

.. math:: x \approx s\, q, \quad s = \max |x| / L, \quad q \in \{-L, \dots, L\}, \quad L = 127 \text{ or } 7

The scale is rounded to bfloat16 first. Half a step of its last bit moves max |x| / s by less than ½, so the
largest number of a group always has the code ± L, and what was decoded is encoded to the same bits again.
"""

import math
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch import nn
from torch.nn.modules.batchnorm import _NormBase

from lottalora.scaffold.artifact.container import MAX_AXES
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.records import CompressedRecord
from lottalora.scaffold.layers.layer import LottaLayer

GROUP = 32  # numbers with one scale
LARGEST = {"int8": 127, "int4": 7}  # code
ROUNDED = {"bf16": torch.bfloat16, "fp16": torch.float16}
PRECISIONS = ("fp32", *ROUNDED, *LARGEST)
BITS = {"fp32": 32, "bf16": 16, "fp16": 16, "int8": 8, "int4": 4}
SCALE = "scale/"  # what the names of tensors of scales begin with
SMALLEST = torch.finfo(torch.bfloat16).tiny  # a scale below is 0: processors may read it as 0
NORMS = (nn.LayerNorm, nn.RMSNorm, nn.GroupNorm, _NormBase)  # whose gains may have several axes
EXACT = ("beta", "magnitude")  # parameters that stay as they are, whatever their shape


def check_precision(precision: str) -> None:
    """Raise ValueError for a precision that there is not."""
    if precision not in PRECISIONS:
        raise ValueError(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}.")


def compressible(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that a precision is for: A, B, heads and embeddings; no bias, norm or β.

    What asks for no gradient is a constant, unless it is an adapter or nothing in the model asks for one.
    """
    held = {kind: _held_by(model, kind) for kind in (NORMS, LottaLayer)}
    trains = any(parameter.requires_grad for parameter in model.parameters())
    return {
        name: parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if parameter.dim() > 1 and parameter.numel() and name.rpartition(".")[2] not in EXACT
        if id(parameter) not in held[NORMS]
        if parameter.requires_grad or not trains or id(parameter) in held[LottaLayer]
    }


def _held_by(model: nn.Module, kind: type | tuple[type, ...]) -> set[int]:
    """The ids of the parameters that modules of a kind hold directly."""
    modules = (module for module in model.modules() if isinstance(module, kind))
    return {id(parameter) for module in modules for parameter in module.parameters(recurse=False)}


def bytes_in(numbers: int, precision: str) -> int:
    """What a tensor of so many numbers takes, scales included."""
    scales = 2 * _parts(numbers, GROUP) if precision in LARGEST else 0
    return _parts(numbers * BITS[precision], 8) + scales


def encode(name: str, tensor: Tensor, precision: str) -> tuple[dict[str, Tensor], Tensor, CompressedRecord]:
    """The tensors to write in place of one, what a reader gets from them, and their record with its errors.

    Args:
        name: of the tensor.
        tensor: in float32.
        precision: other than fp32.

    Raises:
        ValueError: the tensor is not float32, or holds a number that the precision cannot.
    """
    if tensor.dtype != torch.float32:
        raise ValueError(
            f"{precision} is for numbers in float32, and {name!r} is {tensor.dtype}: convert the model, or "
            "leave out precision."
        )
    exact = tensor.detach().cpu().contiguous()
    if precision in ROUNDED:
        stored = {name: exact.to(ROUNDED[precision])}
    else:
        codes, scales = _quantised(exact, LARGEST[precision])
        codes = codes.view(exact.shape) if precision == "int8" else _packed(codes)
        stored = {name: codes, SCALE + name: scales}
    decoded = _decoded(stored[name], stored.get(SCALE + name), exact.shape, precision)
    if not decoded.isfinite().all():
        raise ValueError(f"{name!r} holds a number that {precision} cannot: it is not finite, or too large.")
    error = (exact.double() - decoded.double()).abs()
    largest = error.max().item()
    record = CompressedRecord(
        name=name,
        shape=list(exact.shape),
        precision=precision,
        group=GROUP if precision in LARGEST else 0,
        largest_error=largest,
        rms_error=min(error.square().mean().sqrt().item(), largest),
    )
    return stored, decoded, record


def decoded_bytes(records: Iterable[CompressedRecord], tensors: Mapping[str, Tensor]) -> int:
    """What compressed tensors take in float32, counted from what is stored, with its last half byte."""
    stored = [(each.precision, tensors[each.name]) for each in records if each.name in tensors]
    return sum(4 * tensor.numel() * (2 if precision == "int4" else 1) for precision, tensor in stored)


def decode(record: CompressedRecord, tensors: Mapping[str, Tensor]) -> Tensor:
    """The numbers of one compressed tensor, in float32.

    Nothing is allocated before shapes agree with what the file holds: at most 8 times its bytes.

    Args:
        record: what the header says.
        tensors: all tensors of the file.

    Raises:
        ValueError: a shape, dtype, code or scale is not one that `encode` writes.
    """
    name, shape, precision = record.name, record.shape, record.precision
    if precision not in PRECISIONS[1:] or record.group != (GROUP if precision in LARGEST else 0):
        raise damaged(f"tensor {name!r} has the precision {precision!r} in groups of {record.group}")
    if not 0 <= record.rms_error <= record.largest_error:
        raise damaged(f"the errors of tensor {name!r} are no errors")
    codes, scales = tensors.get(name), tensors.get(SCALE + name)
    if not 2 <= len(shape) <= MAX_AXES or min(shape) < 1 or codes is None:
        raise damaged(f"compressed tensor {name!r} is not what its header says")
    numbers = math.prod(shape)
    stored = [_parts(numbers, 2)] if precision == "int4" else shape
    dtype = ROUNDED.get(precision, torch.uint8 if precision == "int4" else torch.int8)
    if codes.dtype != dtype or list(codes.shape) != stored or (scales is None) != (precision in ROUNDED):
        raise damaged(f"compressed tensor {name!r} is not what its header says")
    if scales is not None:
        _check_groups(name, codes, scales, numbers, precision)
    decoded = _decoded(codes, scales, torch.Size(shape), precision)
    if not decoded.isfinite().all():
        raise damaged(f"compressed tensor {name!r} holds a number that is not finite")
    return decoded


@contextmanager
def holding(model: nn.Module, values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give a model's parameters other values meanwhile."""
    held = dict(model.named_parameters(remove_duplicate=False))
    before = {name: held[name].data for name in values}
    try:
        for name, value in values.items():
            held[name].data = value.to(held[name].device)
        yield
    finally:
        for name, data in before.items():
            held[name].data = data


@contextmanager
def in_precision(model: nn.Module, precision: str) -> Iterator[None]:
    """Within this context a model's trained matrices are those that a file of this precision gives back."""
    matrices = compressible(model) if precision != "fp32" else {}
    with holding(model, {name: encode(name, matrix, precision)[1] for name, matrix in matrices.items()}):
        yield


def _quantised(tensor: Tensor, largest: int) -> tuple[Tensor, Tensor]:
    """Codes in int8, row by row, and the scale of each group in bfloat16."""
    groups = _grouped(tensor.flatten())
    scales = (groups.abs().amax(1) / largest).bfloat16()
    scales = torch.where(scales < SMALLEST, 0, scales)
    steps = scales.float()[:, None]
    codes = torch.where(steps > 0, groups / steps, 0).round().clamp(-largest, largest)
    return codes.to(torch.int8).flatten()[: tensor.numel()], scales


def _decoded(codes: Tensor, scales: Tensor | None, shape: torch.Size, precision: str) -> Tensor:
    if scales is None:
        return codes.float()
    flat = _unpacked(codes)[: shape.numel()] if precision == "int4" else codes.flatten()
    return (_grouped(flat).float() * scales.float()[:, None]).flatten()[: shape.numel()].view(shape)


def _check_groups(name: str, codes: Tensor, scales: Tensor, numbers: int, precision: str) -> None:
    """Refuse scales and codes that `encode` does not write, so that a loaded model is saved as it was."""
    if scales.dtype != torch.bfloat16 or list(scales.shape) != [_parts(numbers, GROUP)]:
        raise damaged(f"tensor {name!r} does not have a scale for every {GROUP} numbers")
    negative = scales.view(torch.int16) < 0  # −0 and NaN too
    if (negative | ~scales.isfinite() | ((scales > 0) & (scales < SMALLEST))).any():
        raise damaged(f"a scale of tensor {name!r} is negative, not finite or too small")
    flat = _unpacked(codes) if precision == "int4" else codes.flatten()
    if flat[numbers:].any():
        raise damaged(f"compressed tensor {name!r} has numbers beyond its last")
    peaks = _grouped(flat[:numbers]).to(torch.int16).abs().amax(1)
    if (peaks != torch.where(scales > 0, LARGEST[precision], 0)).any():
        raise damaged(f"a scale of tensor {name!r} is not that of the largest number of its group")


def _parts(numbers: int, size: int) -> int:
    """How many parts of a size hold so many numbers."""
    return -(-numbers // size)


def _grouped(flat: Tensor) -> Tensor:
    """Groups as rows, the last filled up with 0."""
    return nn.functional.pad(flat, (0, -len(flat) % GROUP)).view(-1, GROUP)


def _packed(codes: Tensor) -> Tensor:
    """Two codes in a byte, the first in its low half, as two's complement of 4 bits."""
    pairs = (nn.functional.pad(codes, (0, len(codes) % 2)) & 15).to(torch.uint8).view(-1, 2)
    return pairs[:, 0] | (pairs[:, 1] << 4)


def _unpacked(packed: Tensor) -> Tensor:
    halves = torch.stack([packed & 15, packed >> 4], dim=1).flatten().to(torch.int8)
    return (halves ^ 8) - 8
