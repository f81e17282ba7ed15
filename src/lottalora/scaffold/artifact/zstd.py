"""All tensors of an artifact as one Zstandard frame, whose size is bounded before it is decompressed."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from lottalora.scaffold.artifact.container import damaged
from lottalora.scaffold.artifact.container import lay_out
from lottalora.scaffold.artifact.container import read
from lottalora.scaffold.artifact.container import tensors_in
from lottalora.scaffold.artifact.container import to_bytes
from lottalora.scaffold.artifact.header import Header
from lottalora.scaffold.artifact.records import FrameRecord

FRAME = "zstandard"  # name of the tensor of bytes that holds the frame
LEVEL = 19
RATIO = 100  # the most times that a frame may grow: what a small file allocates is bounded
SMALL = 2**16  # bytes that any frame may have, decompressed


def compress(tensors: Mapping[str, Tensor], decoded: int = 0) -> tuple[dict[str, Tensor], FrameRecord]:
    """The one tensor to write in place of these, and its record.

    Args:
        tensors: what the frame holds.
        decoded: bytes of what a reader decodes from those of them in fewer bits.

    Raises:
        ModuleNotFoundError: the package zstandard is missing.
        ValueError: the frame would grow more than a reader allows.
    """
    described, data = lay_out(tensors)
    frame = _zstandard().ZstdCompressor(level=LEVEL).compress(data)
    if max(len(data), decoded) > _most(len(frame)):
        raise ValueError(
            f"These tensors shrink more than {RATIO}-fold, which no reader decompresses. Leave out zstandard."
        )
    return {FRAME: torch.frombuffer(bytearray(frame), dtype=torch.uint8)}, FrameRecord(
        size=len(data), tensors=described
    )


def decompress(record: FrameRecord, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a frame.

    Raises:
        ModuleNotFoundError: the package zstandard is missing.
        ValueError: the frame is not what its record says.
    """
    frame = tensors.get(FRAME)
    if frame is None or len(tensors) > 1 or frame.dtype != torch.uint8 or frame.dim() != 1:
        raise damaged("its tensors are not one Zstandard frame")
    if record.size > _most(len(frame)):
        raise damaged(f"{record.size:,} bytes in a Zstandard frame of {len(frame):,} are more than allowed")
    zstandard = _zstandard()
    content = frame.numpy().tobytes()
    try:
        if zstandard.frame_content_size(content) != record.size:
            raise damaged("its Zstandard frame has another size than its header says")
        data = zstandard.ZstdDecompressor().decompress(content, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise damaged(f"its Zstandard frame cannot be read ({error})") from None
    return tensors_in(record.tensors, memoryview(bytearray(data)))


def refuse_growth(decoded: int, frame: int) -> None:
    """Refuse a frame whose tensors in fewer bits are decoded to more bytes than it may grow to.

    Raises:
        ValueError: they are.
    """
    if decoded > _most(frame):
        raise damaged(f"{decoded:,} bytes from a Zstandard frame of {frame:,} are more than allowed")


def without_frame(path: Path | str) -> bytes:
    """The bytes of a file without its Zstandard frame: header and tensors are the same, and the seal is new.

    Args:
        path: what `save` wrote. A file that has no frame is returned as it is.

    Raises:
        FileNotFoundError: there is no such file.
        ModuleNotFoundError: the package zstandard is missing.
        ValueError: the file is damaged.
    """
    sealed = read(path)
    header = Header.from_json(sealed.header)
    if header.zstandard is None:
        return Path(path).read_bytes()
    tensors = decompress(header.zstandard, sealed.tensors)
    return to_bytes(tensors, replace(header, zstandard=None).to_json())


def _most(frame: int) -> int:
    """The most bytes that a frame of so many may have, decompressed."""
    return RATIO * frame + SMALL


def _zstandard() -> ModuleType:
    try:
        import zstandard
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            "The package zstandard is missing. Type: pip install 'lottalora[zstd]'", name="zstandard"
        ) from None
    return zstandard
