"""The header of an artifact: everything but the trained numbers, as plain data with strict types."""

import json
import math
import types
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from typing import Any
from typing import TypeVar
from typing import Union
from typing import get_args
from typing import get_origin
from typing import get_type_hints

from lottalora.scaffold.adapter import DTYPES
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.container import parse
from lottalora.scaffold.draw import Source
from lottalora.scaffold.families import FAMILIES
from lottalora.scaffold.prng import VERSION
from lottalora.scaffold.quantiles import SHA256
from lottalora.scaffold.seeds import LARGEST

FORMAT = 1
Plain = Any  # JSON: null, true, false, a number, a text, a list or an object of these
Record = TypeVar("Record")


@dataclass(frozen=True, kw_only=True)
class MatrixRecord:
    """One W_seed.

    Args:
        name: the dotted name of the layer that holds it.
        stream: the name under which it is drawn; "" for a W_seed that was given.
        shape: (out, in).
        stack: the number of matrices along the rows.
        place: "adapt" or "freeze".
        family: of FAMILIES, or "learned" for a W_seed that was given.
        registered: whether the family was registered by a user.
        parameters: all parameters of the family, defaults included.
        seed, redraw: of the `Source`, as decimal digits.
        dtype: of W_seed; it is drawn in float32 and rounded once.
        rank: r; 0 without an adapter.
        scale: s of s B A; null without an adapter.
        options: "dora", "residual", "layer_norm", "stack of E".
        fingerprint: the SHA-256 of the float32 bits in row order; a sketch if the family is not exact.
        stored: whether the file holds W_seed itself.
    """

    name: str
    stream: str
    shape: list[int]
    stack: int
    place: str
    family: str
    registered: bool
    parameters: dict[str, float | bool | str]
    seed: str
    redraw: str
    dtype: str
    rank: int
    scale: float | None
    options: list[str]
    fingerprint: str | list[float]
    stored: bool

    @property
    def source(self) -> Source | None:
        """What W_seed is drawn from; None for a W_seed that was given.

        Raises:
            ValueError: a seed or the shape is out of range.
        """
        if self.family == LEARNED:
            return None
        seed, redraw = (to_seed(text, self.name) for text in (self.seed, self.redraw))
        if len(self.shape) != 2 or min(self.shape) < 0 or self.stack < 1 or self.shape[0] % self.stack:
            raise damaged(f"matrix {self.name!r} has the shape {self.shape} in {self.stack} parts")
        shape = (self.shape[0], self.shape[1])
        return Source(seed, self.stream, shape, self.family, self.parameters, redraw, self.stack)


@dataclass(frozen=True, kw_only=True)
class CompressedRecord:
    """One tensor that is stored in fewer bits than it has.

    Args:
        name: of the tensor.
        shape: of the tensor; what is stored may have another.
        precision: "bf16", "fp16", "int8" or "int4".
        group: how many numbers have one scale; 0 without scales.
        largest_error, rms_error: of its numbers, against the model that was saved: the largest, and the root
            of the mean square.
    """

    name: str
    shape: list[int]
    precision: str
    group: int
    largest_error: float
    rms_error: float


@dataclass(frozen=True, kw_only=True)
class FrameRecord:
    """The tensors of a file that holds them as one Zstandard frame.

    Args:
        size: of the decompressed frame, in bytes.
        tensors: name → dtype, shape and place in the decompressed frame, as safetensors describes them.
    """

    size: int
    tensors: dict[str, Plain]


@dataclass(frozen=True, kw_only=True)
class Header:
    """All that an artifact says beside its tensors.

    Args:
        format, generator: versions of this format and of the map from a seed to random words.
        tables: the SHA-256 of the file of quantiles.
        scaffold: the fields of `Scaffold`; the seed as decimal digits.
        adapt, keep, freeze, compose: names in the plain model, see `Wrapping`.
        matrices: every W_seed.
        tied: tensor name → name of the tensor that it is the same as.
        compressed: the tensors that are stored in fewer bits; the file has no such key where there are none.
        zstandard: of a file with one Zstandard frame; any other has no such key.
        buffers: name → dtype of each buffer of real numbers that `state_dict()` leaves out; the file has no
            such key if these and every W_seed are float32.
        architecture: {"name": of a registered architecture, "arguments": plain values}; null for none.
        probes: the number of stored inputs; 0 without.
        metrics: name → value.
        licence, provenance, versions: for people.
    """

    format: int = FORMAT
    generator: int = VERSION
    tables: str = SHA256
    scaffold: dict[str, Plain]
    adapt: list[str]
    keep: list[str]
    freeze: list[str]
    compose: list[str]
    matrices: list[MatrixRecord]
    tied: dict[str, str]
    compressed: list[CompressedRecord] = field(default_factory=list)
    zstandard: FrameRecord | None = None
    buffers: dict[str, str] = field(default_factory=dict)
    architecture: dict[str, Plain] | None = None
    probes: int = 0
    metrics: dict[str, float] = field(default_factory=dict)
    licence: str = ""
    provenance: dict[str, str] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """The header as JSON.

        Raises:
            ValueError: a value is no plain data, or a number is not finite.
        """
        try:
            return json.dumps(self.as_dict(), separators=(",", ":"), sort_keys=True, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ValueError(f"An artifact's header holds plain, finite values only: {error}.") from None

    def as_dict(self) -> dict[str, Plain]:
        """The header as plain data."""
        left_out = {key for key in ("compressed", "zstandard", "buffers") if not getattr(self, key)}
        return {key: value for key, value in asdict(self).items() if key not in left_out}

    @classmethod
    def from_json(cls, text: str) -> "Header":
        """Read a header strictly.

        Raises:
            ValueError: it is damaged; or of another format, generator or table than this version's; or it
                names a family that is unknown here.
        """
        read = parse(text, "its lottalora header")
        if not isinstance(read, dict):
            raise damaged("its lottalora header is no JSON object")
        _refuse_other_versions(read)
        read = read | {
            "matrices": _records(read.get("matrices")),
            "compressed": _compressed(read.get("compressed")) if "compressed" in read else [],
            "zstandard": _checked(FrameRecord, read["zstandard"], "its frame")
            if "zstandard" in read
            else None,
            "buffers": read.get("buffers", {}),
        }
        header = _checked(cls, read, "its header")
        for matrix in header.matrices:
            _refuse_unknown_family(matrix)
        names = [matrix.name for matrix in header.matrices]
        if len(set(names)) != len(names):
            raise damaged("a matrix is listed twice")
        _check_architecture(header.architecture)
        if not set(header.buffers.values()) <= DTYPES.keys():
            raise damaged(f"its buffers have another dtype than {', '.join(DTYPES)}")
        return header

    def to_scaffold(self) -> Scaffold:
        """The scaffold that the model was wrapped in.

        Raises:
            ValueError: a setting is missing, unknown or outside its range.
        """
        settings = settings_of(Scaffold()) | self.scaffold  # a later version's fields have their defaults
        hints = get_type_hints(Scaffold) | {
            "seed": str,
            "parameters": dict[str, float | bool | str],
            "ranks": dict[str, int],
        }
        _check_types(settings, hints, "its scaffold")
        seed = to_seed(settings.pop("seed"), "scaffold")
        return Scaffold(**settings, seed=seed)


def to_seed(text: str, of: str) -> int:
    """A seed from its decimal digits.

    Raises:
        ValueError: it is no whole number in 0 … 2⁶⁴ − 1.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= LARGEST):
        raise ValueError(f"The seed of {of!r} must be a whole number in 0 … 2**64 - 1, got {text!r}.")
    return int(text)


def _refuse_other_versions(read: dict[str, Plain]) -> None:
    written = read.get("format")
    if type(written) is int and written > FORMAT:
        raise ValueError(f"The artifact has format {written}; this version reads {FORMAT}. Update lottalora.")
    if written != FORMAT or isinstance(written, bool):
        raise damaged(f"its format is {written!r}, not {FORMAT}")
    for name, ours in (("generator", VERSION), ("tables", SHA256)):
        if read.get(name) != ours:
            what = {"generator": "generator version", "tables": "table of quantiles"}[name]
            raise ValueError(
                f"The artifact was made with another {what} ({read.get(name)!r}; here it is {ours!r}), so "
                "its scaffold cannot be drawn. Load it with the lottalora that wrote it."
            )


def _records(matrices: object) -> list[MatrixRecord]:
    if not isinstance(matrices, list) or not matrices:
        raise damaged("its header lists no matrices")
    return [_checked(MatrixRecord, matrix, f"matrix {i}") for i, matrix in enumerate(matrices)]


def _compressed(tensors: object) -> list[CompressedRecord]:
    if not isinstance(tensors, list) or not tensors:
        raise damaged("its header lists no compressed tensors")
    found = [_checked(CompressedRecord, each, f"compressed tensor {i}") for i, each in enumerate(tensors)]
    if len({each.name for each in found}) != len(found):
        raise damaged("a compressed tensor is listed twice")
    return found


def _refuse_unknown_family(matrix: MatrixRecord) -> None:
    if matrix.family in FAMILIES or matrix.family == LEARNED:
        return
    if matrix.registered:
        raise ValueError(
            f"Init family {matrix.family!r} of matrix {matrix.name!r} was registered by the one who saved "
            "the artifact, and is not known here: register it with lottalora.scaffold.family first."
        )
    raise ValueError(f"Unknown init family {matrix.family!r} of matrix {matrix.name!r}. Update lottalora.")


def _check_architecture(architecture: dict[str, Plain] | None) -> None:
    if architecture is None:
        return
    _check_types(architecture, {"name": str, "arguments": dict[str, Any]}, "its architecture")


def _checked(cls: type[Record], read: Plain, what: str) -> Record:
    _check_types(read, get_type_hints(cls), what)
    return cls(**read)


def _check_types(read: Plain, hints: dict[str, Plain], what: str) -> None:
    if not isinstance(read, dict) or read.keys() != hints.keys():
        raise damaged(f"{what} does not have the keys {', '.join(hints)}")
    for key, hint in hints.items():
        if not is_a(read[key], hint):
            raise damaged(f"{key} of {what} is not as it should be")


def is_a(value: object, hint: Plain) -> bool:
    """Whether JSON data have a type; a bool is no number, and numbers are finite and below 2⁵³."""
    kind: object = get_origin(hint)
    parts = get_args(hint)
    if hint is Any:
        return _is_plain(value)
    if kind in (Union, types.UnionType):
        return any(is_a(value, part) for part in parts)
    if kind is list:
        return isinstance(value, list) and all(is_a(each, parts[0]) for each in value)
    if kind is dict:
        return isinstance(value, dict) and all(is_a(each, parts[1]) for each in value.values())
    if hint in (int, float):
        return type(value) in (int, hint) and _is_small(value)
    return type(value) is hint


def _is_small(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value) and abs(value) < 2**53


def _is_plain(value: object) -> bool:
    if isinstance(value, list):
        return all(_is_plain(each) for each in value)
    if isinstance(value, dict):
        return all(_is_plain(each) for each in value.values())
    return value is None or isinstance(value, bool | str) or _is_small(value)


def settings_of(scaffold: Scaffold) -> dict[str, Plain]:
    """The fields of a scaffold as plain data."""
    settings = {each.name: getattr(scaffold, each.name) for each in fields(scaffold)}
    as_dicts = {"parameters": dict(scaffold.parameters), "ranks": dict(scaffold.ranks)}
    return settings | as_dicts | {"seed": str(scaffold.seed)}
