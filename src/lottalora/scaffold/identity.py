"""What identifies the scaffold of one layer: a record that travels in `state_dict()` beside the adapters.

The record is canonical JSON in a tensor of bytes, so that it passes through every format that takes tensors.
It holds a fingerprint of the frozen weight in float32: the SHA-256 of its bits. Families that need a
factorisation differ from one LAPACK to another, so theirs is a sketch: eight numbers uᵀWv / ‖W‖ with fixed u,
v of ±1, which agree to TOLERANCE where the weights do, and differ by about 1 where they do not.
"""

import hashlib
import json
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import fields
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.draw import Source
from lottalora.scaffold.families import find_family
from lottalora.scaffold.prng import VERSION
from lottalora.scaffold.prng import halves
from lottalora.scaffold.prng import key_of

FORMAT = 1
BLOCK = 256  # bytes; records are padded to a multiple, so that most scaffolds have records of one shape
RESERVE = 200  # bytes, over the longest fingerprint
SKETCHES = 8
TOLERANCE = 1e-3  # of a sketch; LAPACKs differ by about 1e-5

Fingerprint = str | list[float]


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The record of one layer.

    Args:
        family, parameters: of W_seed, with the defaults written out; "learned" for a weight that was given.
        seed, redraw, name: of its `Source`; None for a weight that was given.
        shape: (out, in).
        scale: s = α / r of the update B A; None where there is none.
        options: what else the layer computes: "dora", "residual", "layer_norm".
        fingerprint: of W_seed; None until it is needed. A weight that was given has its dtype in front.
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
    def of(cls, source: Source | None, shape: tuple, scale: float | None, options: list[str]) -> "Identity":
        """The record of a layer, without a fingerprint."""
        rest = {"shape": list(shape), "scale": scale, "options": options}
        if source is None:
            return cls(family=LEARNED, parameters={}, seed=None, redraw=None, name=None, **rest)
        parameters = find_family(source.family).defaults | dict(source.parameters)
        return cls(
            family=source.family,
            parameters=parameters,
            seed=source.seed,
            redraw=source.redraw,
            name=source.name,
            **rest,
        )

    def to_tensor(self) -> Tensor:
        """The record as bytes, (a multiple of BLOCK,) uint8, on the CPU."""
        text, bare = (_canonical(asdict(record)) for record in (self, replace(self, fingerprint=None)))
        size = -(-(len(bare) + RESERVE) // BLOCK) * BLOCK  # the same with a fingerprint and without
        padded = text.ljust(size)
        return torch.from_numpy(np.frombuffer(padded, np.uint8).copy())

    @classmethod
    def from_tensor(cls, record: Tensor, layer: str) -> "Identity":
        """The record that a state holds of a layer.

        Raises:
            ValueError: it is cut off or changed, or of another format.
        """
        damaged = f"The scaffold's record of layer {layer!r} is damaged: take another copy of the checkpoint."
        try:
            read = json.loads(record.detach().cpu().numpy().tobytes())
            version = read["format"]
        except (ValueError, TypeError, KeyError) as error:
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
        """What differs, as the one and as the other has it; two empty texts where nothing does.

        The redraw is left out: a state takes it along. Fingerprints count where both are known.
        """
        names = ("generator", "seed", "name", "family", "parameters", "shape", "scale", "options")
        differing = [name for name in names if getattr(self, name) != getattr(other, name)]
        if not differing and not agree(self.fingerprint, other.fingerprint):
            differing = ["fingerprint"]
        return self._in_words(differing), other._in_words(differing)

    def _in_words(self, names: list[str]) -> str:
        return ", ".join(_word(name, getattr(self, name)) for name in names)


def refuse_another(state: Identity, ours: Identity, layer: str) -> None:
    """A ValueError if the state of a layer belongs to another scaffold than the one it is loaded into."""
    theirs, own = state.differences(ours)
    if theirs:
        raise ValueError(
            f"The state of layer {layer!r} belongs to another scaffold: it has {theirs}; this model has "
            f"{own}. Wrap the model as the one that was saved."
        )


def agree(one: Fingerprint | None, other: Fingerprint | None) -> bool:
    """Whether two fingerprints can be of one weight; an unknown one, or one of another dtype, can."""
    if one is None or other is None:
        return True
    if isinstance(one, str) and isinstance(other, str):
        (one_dtype, _, _), (other_dtype, _, _) = one.rpartition(":"), other.rpartition(":")
        return one == other or one_dtype != other_dtype
    if isinstance(one, str) or isinstance(other, str) or len(one) != len(other):
        return False
    return bool(np.allclose(one, other, rtol=TOLERANCE, atol=TOLERANCE))


def fingerprint_of(W: Tensor, *, exact: bool = True) -> Fingerprint:
    """The fingerprint of a weight as it was drawn, (out, in) float32."""
    return bits(W) if exact else sketch(W)


def bits(W: Tensor) -> str:
    """SHA-256 of a tensor's memory, 64 hexadecimal digits."""
    return hashlib.sha256(W.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()).hexdigest()


def sketch(W: Tensor) -> list[float]:
    """‖W‖ and uᵀWv / ‖W‖ for SKETCHES fixed pairs u, v of ±1, to seven digits."""
    out, columns = W.shape
    key = key_of("sketch", f"{out}x{columns}")
    words = np.concatenate(list(halves(key, 0, SKETCHES * (out + columns))))
    signs = torch.from_numpy((words & 1).astype(np.float64) * 2 - 1).view(SKETCHES, -1)
    u, v = signs[:, :out], signs[:, out:]
    W = W.detach().cpu().double()
    norm = W.norm().item()
    values = ((u @ W) * v).sum(dim=1) / (norm or 1.0)  # (SKETCHES,)
    return [float(f"{value:.6e}") for value in (norm, *values.tolist())]


def _canonical(record: dict) -> bytes:
    return json.dumps(record, sort_keys=True, separators=(",", ":")).encode()


def _is_fingerprint(value: object) -> bool:
    if isinstance(value, str):
        return len(value.rpartition(":")[2]) == 64
    return value is None or (isinstance(value, list) and len(value) == SKETCHES + 1)


def _word(name: str, value: object) -> str:
    if name == "scale":
        return f"α/r = {value:g}" if value is not None else "no adapter"
    if name == "parameters":
        return ", ".join(f"{key}={each!r}" for key, each in sorted(value.items())) or "no parameters"
    if name == "options":
        return f"options {', '.join(value) or 'none'}"
    if name == "shape":
        return f"shape {' × '.join(map(str, value))}"
    if name == "fingerprint":
        return f"fingerprint {value[:12]}…" if isinstance(value, str) else f"sketch {value[:3]}…"
    return f"{name} {value!r}"
