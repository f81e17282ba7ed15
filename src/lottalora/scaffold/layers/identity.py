"""The record in `state_dict()` that says which scaffold a layer's adapters were trained on.

The record is canonical JSON in a tensor of bytes, so that every format for tensors can store it. It holds a
fingerprint of the frozen weight in float32: the SHA-256 of its bits. Families that need a factorisation
differ slightly from one LAPACK to another, so their fingerprint is a sketch: ‖W‖ and eight numbers
uᵀWv / ‖W‖ with fixed u and v of ±1. The sketches of equal weights agree to TOLERANCE; those of different
weights differ by about 1.
"""

import hashlib
import json
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.prng import VERSION
from lottalora.scaffold.drawing.prng import halves
from lottalora.scaffold.drawing.prng import key_of
from lottalora.scaffold.families.family import find_family

FORMAT = 1
BLOCK = 256  # bytes; records are padded to a multiple of it, so that most have the same shape
RESERVE = 200  # bytes for the fingerprint, more than the longest one
SKETCHES = 8
TOLERANCE = 1e-3  # of a sketch; LAPACK builds differ by about 1e-5

Fingerprint = str | list[float]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The record of one layer.

    Args:
        family, parameters: of W_seed, defaults included; the family of a W_seed that was given is "learned".
        seed, redraw, name: of the `Source`; None for a W_seed that was given.
        shape: of W_seed, (out, in).
        scale: s of the update s B A; None without an adapter.
        options: the options that change the output: "dora", "residual", "layer_norm".
        fingerprint: of W_seed; None until it is needed. That of a W_seed that was given starts with the
            dtype.
        generator: the version of the map from a seed to random words.
        format: the version of this record.
    """

    family: str
    parameters: dict[str, float | bool | str]
    seed: int | None
    redraw: int | None
    name: str | None
    shape: list[int]
    scale: float | None
    options: list[str]
    fingerprint: Fingerprint | None = None
    generator: int = VERSION
    format: int = FORMAT

    @classmethod
    def of(
        cls, source: Source | None, shape: tuple[int, ...], scale: float | None, options: list[str]
    ) -> "Identity":
        """The record of a layer, without a fingerprint.

        Args:
            source: of W_seed; None for a W_seed that was given.
            shape: of W_seed, (out, in).
            scale: s of the update s B A; None without an adapter.
            options: see the class.
        """
        record = cls(
            family=LEARNED,
            parameters={},
            seed=None,
            redraw=None,
            name=None,
            shape=list(shape),
            scale=scale,
            options=options,
        )
        if source is None:
            return record
        parameters = find_family(source.family).defaults | dict(source.parameters)
        record = replace(record, family=source.family, parameters=parameters)
        return replace(record, seed=source.seed, redraw=source.redraw, name=source.name)

    def to_tensor(self) -> Tensor:
        """The record as bytes: a uint8 tensor on the CPU, of one axis, its length a multiple of BLOCK."""
        own = vars(self)
        text, bare = (_canonical(each) for each in (own, {**own, "fingerprint": None}))
        size = -(-(len(bare) + RESERVE) // BLOCK) * BLOCK  # the same with a fingerprint and without
        padded = text.ljust(size)
        return torch.from_numpy(np.frombuffer(padded, np.uint8).copy())

    @classmethod
    def from_tensor(cls, record: Tensor, layer: str) -> "Identity":
        """Read a record from a state.

        Args:
            record: the bytes, (length,), as `to_tensor` gives them; a cast of the whole state keeps them.
            layer: the layer's name, for the message.

        Raises:
            ValueError: the record is truncated, was changed, or has another format.
        """
        damaged = (
            f"The scaffold's record of layer {layer!r} is damaged: take another copy of the checkpoint. To "
            "average states, average floating-point tensors alone, and copy each '*.identity' of one of them."
        )
        try:
            read = json.loads(record.detach().cpu().to(torch.uint8).numpy().tobytes())
            version = read["format"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise ValueError(damaged) from error
        if version != FORMAT:
            raise ValueError(
                f"The scaffold's record of layer {layer!r} has format {version!r}, and this version of "
                f"lottalora reads {FORMAT}: load it with the version that wrote it."
            )
        if read.keys() != {field.name for field in fields(cls)} or not _is_fingerprint(read["fingerprint"]):
            raise ValueError(damaged)
        return cls(**read)

    def differences(self, other: "Identity") -> tuple[str, str]:
        """The fields that differ, as text with this record's values and with the other's; both may be empty.

        The redraw is not compared, since loading a state sets it. Fingerprints are compared if both are
        known.
        """
        names = ("generator", "seed", "name", "family", "parameters", "shape", "scale", "options")
        differing = [name for name in names if getattr(self, name) != getattr(other, name)]
        if not differing and not agree(self.fingerprint, other.fingerprint):
            differing = ["fingerprint"]
        return self._in_words(differing), other._in_words(differing)

    def _in_words(self, names: list[str]) -> str:
        return ", ".join(self._field_in_words(name) for name in names)

    def _field_in_words(self, name: str) -> str:
        if name == "scale":
            return "no adapter" if self.scale is None else f"α/r = {self.scale:g}"
        if name == "parameters":
            values = sorted(self.parameters.items())
            return ", ".join(f"{key}={value!r}" for key, value in values) or "no parameters"
        if name == "options":
            return f"options {', '.join(self.options) or 'none'}"
        if name == "shape":
            return f"shape {' × '.join(map(str, self.shape))}"
        if name == "fingerprint" and isinstance(self.fingerprint, str):
            return f"fingerprint {self.fingerprint[:12]}…"
        if name == "fingerprint" and self.fingerprint is not None:
            return f"sketch {self.fingerprint[:3]}…"
        return f"{name} {getattr(self, name)!r}"


def refuse_another(state: Identity, ours: Identity, layer: str) -> None:
    """Refuse the state of a layer that was saved on another scaffold.

    Args:
        state: the record in the state.
        ours: the record of the layer that loads it.
        layer: the layer's name, for the message.

    Raises:
        ValueError: the records differ.
    """
    theirs, own = state.differences(ours)
    if theirs:
        raise ValueError(
            f"The state of layer {layer!r} belongs to another scaffold: it has {theirs}; this model has "
            f"{own}. Wrap the model as the one that was saved."
        )


def agree(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Whether two fingerprints can belong to the same weight.

    They can if they are equal (sketches: to TOLERANCE), if one is unknown, or if the dtypes differ.
    """
    if one is None or other is None:
        return True
    if isinstance(one, str) and isinstance(other, str):
        (one_dtype, _, _), (other_dtype, _, _) = one.rpartition(":"), other.rpartition(":")
        return one == other or one_dtype != other_dtype
    if isinstance(one, str) or isinstance(other, str) or len(one) != len(other):
        return False
    return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE))


def fingerprint_of(W: Tensor, *, exact: bool = True) -> Fingerprint:
    """The fingerprint of a drawn weight, (out, in) float32.

    Args:
        W: the weight.
        exact: whether its bits are the same on every machine; then the fingerprint is their SHA-256, and else
            a sketch.
    """
    return bits(W) if exact else sketch(W)


def bits(W: Tensor) -> str:
    """The SHA-256 of the bytes of a tensor, of any shape and dtype, as 64 hexadecimal digits."""
    content = W.detach().cpu().contiguous().flatten().view(torch.uint8)
    return hashlib.sha256(content.numpy().data).hexdigest()


def sketch(W: Tensor) -> list[float]:
    """‖W‖ and uᵀWv / ‖W‖ for SKETCHES fixed pairs u, v of ±1, to seven digits; W is (out, in)."""
    out, columns = W.shape
    key = key_of("sketch", f"{out}x{columns}")
    words = np.concatenate(list(halves(key, 0, SKETCHES * (out + columns))))
    signs = torch.from_numpy((words & 1).astype(np.float64) * 2 - 1).view(SKETCHES, -1)
    u, v = signs[:, :out], signs[:, out:]
    W = W.detach().cpu().double()
    norm = W.norm().item()
    values = ((u @ W) * v).sum(dim=1) / (norm or 1.0)  # (SKETCHES,)
    return [float(f"{value:.6e}") for value in (norm, *values.tolist())]


def _canonical(record: dict[str, object]) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _is_fingerprint(value: object) -> bool:
    if isinstance(value, str):
        return len(value.rpartition(":")[2]) == 64
    return value is None or (isinstance(value, list) and len(value) == SKETCHES + 1)
