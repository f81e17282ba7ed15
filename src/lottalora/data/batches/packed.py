"""Documents as tokens, end to end in one file for each part, made once and read where it lies."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import secrets
import shutil
import time
from collections.abc import Iterable
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lottalora.data.sources.documents import Source
from lottalora.data.sources.parsed import cache_folder
from lottalora.results.atomic_write import unwritable

if TYPE_CHECKING:
    from tokenizers import Tokenizer

ABOUT = "about.json"
AT_ONCE = 2**20  # characters that are tokenised together
PATIENCE = 10  # seconds between two words about the progress
VERSION = 1  # of the packed tokens; raised when reading changes them
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Packed:
    """One part.

    Args:
        tokens: of all documents, end to end, each behind a <s>.
        text_bytes: of the documents in UTF-8.
    """

    tokens: np.ndarray
    text_bytes: int


def packed_once(source: Source, tokenizer: Tokenizer) -> dict[str, Packed]:
    """The parts of a text: kept beside it or in the user's cache, or packed now and kept in the first of them
    that can be written.

    Several processes may do this at once: a folder appears whole, by rename.

    Raises:
        ValueError: a part has no text.
        OSError: there is no room for the tokens.
    """
    made_from = hashlib.sha256(f"{source.digest()} {tokenizer.to_str()}".encode()).hexdigest()
    name = f"tokens-v{VERSION}-{made_from[:12]}"
    folders = [source.folder / name, cache_folder() / name]
    kept = next((folder for folder in folders if (folder / ABOUT).exists()), None)
    folder = kept or pack(source, tokenizer, folders)
    about = json.loads((folder / ABOUT).read_text())
    return {
        part: Packed(np.memmap(folder / f"{part}.bin", about["dtype"], "r"), text_bytes)
        for part, text_bytes in about["bytes"].items()
    }


def pack(source: Source, tokenizer: Tokenizer, folders: Sequence[Path]) -> Path:
    """Pack into the first folder that can be written; return that folder."""
    for folder in folders:
        scratch = folder.with_name(f".{folder.name}.{secrets.token_hex(8)}.tmp")
        try:
            scratch.mkdir(parents=True)
        except OSError as error:
            refused = error
            continue
        try:
            write_parts(source, tokenizer, scratch)
            put_in_place(scratch, folder)
            return folder
        except OSError as error:
            if error.filename is None:  # of a write, not of a file of the source
                raise unwritable(error, folder) from error
            raise
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
    raise unwritable(refused, folders[-1])


def put_in_place(scratch: Path, folder: Path) -> None:
    """Rename `scratch` to `folder`; keep the folder that another process made first."""
    try:
        os.rename(scratch, folder)
    except OSError:
        if not (folder / ABOUT).exists():  # else another process was faster
            raise


def write_parts(source: Source, tokenizer: Tokenizer, folder: Path) -> None:
    """Tokenise the documents into one file per part; raise ValueError for a part without text."""
    dtype = np.dtype(np.uint16 if tokenizer.get_vocab_size() <= 2**16 else np.uint32)
    text_bytes = dict.fromkeys(source.parts, 0)
    files = {part: (folder / f"{part}.bin").open("wb") for part in source.parts}
    try:
        progress = Progress(source.place)
        for batch in batches(source.documents()):
            encoded = tokenizer.encode_batch_fast([text for _, text in batch])
            for (part, text), tokens in zip(batch, encoded, strict=True):
                size = len(text.encode())
                files[part].write(np.array(tokens.ids, dtype).data)
                text_bytes[part] += size
                progress.add(size, len(tokens.ids))
        progress.tell("done: ")
    finally:
        for file in files.values():
            file.close()
    for part, size in text_bytes.items():
        if not size:
            raise ValueError(
                f"{source.place} holds no text for the part {part}: it is empty, or has too few documents to "
                "hold any out. Add text, or a file with that word in its name."
            )
    (folder / ABOUT).write_text(json.dumps({"dtype": dtype.name, "bytes": text_bytes}))


def batches(documents: Iterable[tuple[str, str]]) -> Iterator[list[tuple[str, str]]]:
    """Documents that are tokenised together: about AT_ONCE characters."""
    batch, length = [], 0
    for part, text in documents:
        batch.append((part, text))
        length += len(text)
        if length >= AT_ONCE:
            yield batch
            batch, length = [], 0
    if batch:
        yield batch


class Progress:
    """Log the progress of packing now and then."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.bytes = self.tokens = 0
        self.began = self.told = time.monotonic()
        log.info("making tokens of %s, once", place)

    def add(self, size: int, tokens: int) -> None:
        self.bytes += size
        self.tokens += tokens
        if time.monotonic() - self.told >= PATIENCE:
            self.tell()

    def tell(self, word: str = "") -> None:
        self.told = time.monotonic()
        speed = self.bytes / max(self.told - self.began, 1e-9) / 1e6
        log.info(
            "%s%.0f MB of text, %.1f million tokens, %.1f MB/s",
            word,
            self.bytes / 1e6,
            self.tokens / 1e6,
            speed,
        )
