"""The header of an artifact: everything but the trained numbers, as plain data with strict types."""

import json
from dataclasses import asdict
from dataclasses import dataclass
from dataclasses import field
from dataclasses import fields
from typing import Any
from typing import get_type_hints

from lottalora.scaffold.adapter import DTYPES
from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.adapter import Scaffold
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.container import parse
from lottalora.scaffold.artifact.plain_types import Plain
from lottalora.scaffold.artifact.plain_types import check_types
from lottalora.scaffold.artifact.plain_types import checked
from lottalora.scaffold.artifact.records import CompressedRecord
from lottalora.scaffold.artifact.records import FrameRecord
from lottalora.scaffold.artifact.records import MatrixRecord
from lottalora.scaffold.artifact.records import to_seed
from lottalora.scaffold.drawing.prng import VERSION
from lottalora.scaffold.families.family import FAMILIES
from lottalora.scaffold.families.quantiles import SHA256

FORMAT = 1


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
            "zstandard": checked(FrameRecord, read["zstandard"], "its frame")
            if "zstandard" in read
            else None,
            "buffers": read.get("buffers", {}),
        }
        header = checked(cls, read, "its header")
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
        check_types(settings, hints, "its scaffold")
        seed = to_seed(settings.pop("seed"), "scaffold")
        return Scaffold(**settings, seed=seed)


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
    return [checked(MatrixRecord, matrix, f"matrix {i}") for i, matrix in enumerate(matrices)]


def _compressed(tensors: object) -> list[CompressedRecord]:
    if not isinstance(tensors, list) or not tensors:
        raise damaged("its header lists no compressed tensors")
    found = [checked(CompressedRecord, each, f"compressed tensor {i}") for i, each in enumerate(tensors)]
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
    check_types(architecture, {"name": str, "arguments": dict[str, Any]}, "its architecture")


def settings_of(scaffold: Scaffold) -> dict[str, Plain]:
    """The fields of a scaffold as plain data."""
    settings = {each.name: getattr(scaffold, each.name) for each in fields(scaffold)}
    as_dicts = {"parameters": dict(scaffold.parameters), "ranks": dict(scaffold.ranks)}
    return settings | as_dicts | {"seed": str(scaffold.seed)}
