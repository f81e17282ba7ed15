"""The documents of a text, one after the other, from files of any size."""

import hashlib
import logging
import re
from collections.abc import Iterator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

log = logging.getLogger(__name__)
ENDINGS = (".txt", ".parquet")
PARTS = {"validation": "validation|valid|val|dev", "test": "test"}  # as a word in the name of a file
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.")
LONGEST = 2**20  # characters of a document of a .txt file; a longer one is cut
EVERY = 20  # one document in so many is held out for each part that has no file


@dataclass(frozen=True)
class Source:
    """The files of a text.

    Args:
        place: the file or folder, as a person named it.
        parts: part → its files; a part without any is held out of train.
    """

    place: Path
    parts: dict[str, tuple[Path, ...]]

    @property
    def folder(self) -> Path:
        return self.place if self.place.is_dir() else self.place.parent

    def digest(self) -> str:
        """SHA-256 over the contents and which part they are."""
        digest = hashlib.sha256()
        for part, paths in self.parts.items():
            for path in paths:
                with path.open("rb") as file:
                    content = hashlib.file_digest(file, "sha256").hexdigest()
                digest.update(f"{part} {path.suffix} {content}\n".encode())
        return digest.hexdigest()

    def documents(self) -> Iterator[tuple[str, str]]:
        """Part and text of each document that is not empty."""
        held_out = [part for part in PARTS if not self.parts[part]]
        for part, paths in self.parts.items():
            for number, text in enumerate(documents_of(paths)):
                place = EVERY - 1 - number % EVERY if part == "train" else EVERY
                yield held_out[place] if place < len(held_out) else part, text


def find_source(place: Path) -> Source:
    """The files at a place, by their names.

    Raises:
        FileNotFoundError: there are none.
    """
    if not place.exists():
        raise FileNotFoundError(f"There is no text at {place}. Type data.root=PATH of a file or a folder.")
    paths = sorted(place.iterdir()) if place.is_dir() else [place]
    paths = [path for path in paths if path.suffix in ENDINGS]
    if not paths:
        raise FileNotFoundError(
            f"{place} holds no text: no {' or '.join(ENDINGS)} file. Type data.root=PATH."
        )
    parts = {"train": (), "validation": (), "test": ()}
    for path in paths:
        parts[part_of(path)] += (path,)
    tell_missing(paths)
    return Source(place, parts)


def part_of(path: Path) -> str:
    """validation or test if the name says so, else train."""
    for part, words in PARTS.items():
        if re.search(rf"(?<![a-z])({words})(?![a-z])", path.stem.lower()):
            return part
    return "train"


def tell_missing(paths: Sequence[Path]) -> None:
    """Warn where names say that there were more files."""
    for count in {
        (path.name[: match.start()], int(match[2])) for path in paths if (match := SHARD.search(path.name))
    }:
        name, expected = count
        found = sum(path.name.startswith(f"{name}-") for path in paths)
        if found < expected:
            log.warning("%s: %d of %d files are there; the text is what they hold.", name, found, expected)


def documents_of(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the texts of the files in order, without the empty ones."""
    for path in paths:
        read = column_texts if path.suffix == ".parquet" else passages_of
        yield from (text for text in read(path) if text and not text.isspace())


def column_texts(path: Path) -> Iterator[str]:
    """The column "text" of a parquet file.

    Raises:
        ValueError: the file is damaged or has no such column.
    """
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000, columns=["text"]):
                yield from batch.column("text").to_pylist()
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own are ValueErrors
        raise ValueError(
            f"{path} is damaged, or no parquet file with a column 'text' ({error}). Bring it anew."
        ) from error


def passages_of(path: Path) -> Iterator[str]:
    """Yield the passages of a text file, separated by empty lines.

    Raises:
        ValueError: the file is not in UTF-8.
    """
    lines, length = [], 0
    try:
        with path.open(encoding="utf-8") as file:
            while line := file.readline(LONGEST):
                if line.isspace() or length + len(line) > LONGEST:
                    yield "".join(lines)
                    lines, length = [], 0
                if not line.isspace():
                    lines.append(line)
                    length += len(line)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not text in UTF-8 ({error.reason} at byte {error.start:,}).") from error
    yield "".join(lines)
