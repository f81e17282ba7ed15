"""What the header of an artifact says of one matrix, one compressed tensor and one frame."""

from dataclasses import dataclass

from lottalora.scaffold.adapter import LEARNED
from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.plain_types import Plain
from lottalora.scaffold.drawing.draw import Source
from lottalora.scaffold.drawing.seeds import LARGEST


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


def to_seed(text: str, of: str) -> int:
    """A seed from its decimal digits.

    Raises:
        ValueError: it is no whole number in 0 … 2⁶⁴ − 1.
    """
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and int(text) <= LARGEST):
        raise ValueError(f"The seed of {of!r} must be a whole number in 0 … 2**64 - 1, got {text!r}.")
    return int(text)
