"""The raw files of an Open Graph Benchmark data set: found, downloaded, or refused in one clear line.

They are read as OGB's own reader reads them, but without its questions on the terminal, its look for updates
and its pickled `processed` folder.
"""

import csv
import gzip
import hashlib
import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lottalora.data.fingerprint import fingerprint
from lottalora.data.sources.files import obtain
from lottalora.data.sources.parsed import Arrays
from lottalora.data.sources.parsed import cache_folder
from lottalora.data.sources.parsed import read_once
from lottalora.downloads import published
from lottalora.messages import last_line

PARTS = ("train", "valid", "test")


def read_parts(tables: dict[str, "Table"], count: int, what: str) -> Arrays:
    """The numbers of the examples of each part; together they are 0 to count − 1, each once.

    Raises:
        ValueError: they are not.
    """
    parts = {part: tables[part].read(np.int64, columns=1) for part in PARTS}
    for part, chosen in parts.items():
        tables[part].within(chosen, count, what)
    together = np.concatenate(list(parts.values()))
    if len(together) != count or len(np.unique(together)) != count:
        raise tables["test"].damaged(f"the three parts do not hold each of {count:,} {what}s once")
    return {part: chosen[:, 0] for part, chosen in parts.items()}


def digest_of(arrays: Arrays) -> str:
    """SHA-256 over names, shapes and values."""
    return fingerprint(
        each
        for name in sorted(arrays)
        for each in (f"{name} {arrays[name].dtype} {arrays[name].shape}\n", arrays[name])
    )


@dataclass(frozen=True, kw_only=True)
class Archive:
    """What OGB puts on its server for one data set.

    Args:
        title: OGB's name of the data set.
        folder: where the files lie below the root, as OGB's loaders lay them out.
        url: of the archive, as in OGB's master.csv.
        tables: names of the files in raw/, without `.csv.gz`.
        split: OGB's name of the official split, a folder in split/.
    """

    title: str
    folder: str
    url: str
    tables: tuple[str, ...]
    split: str

    @property
    def names(self) -> list[str]:
        """Of all files, below the folder."""
        raw = [f"raw/{name}.csv.gz" for name in self.tables]
        return raw + [f"split/{self.split}/{part}.csv.gz" for part in PARTS]

    def missing(self, root: Path) -> list[str]:
        return [name for name in self.names if not (root / self.folder / name).exists()]

    def read(self, root: Path, version: int, parse: Callable[[dict[str, "Table"]], Arrays]) -> Arrays:
        """The parsed arrays, from the files or from what was kept of an earlier reading of the same files.

        Args:
            root: folder that holds the folder of the data set; missing files are downloaded to it.
            version: of `parse`; raised when reading changes the arrays.
            parse: called with the tables by name, those of the split as train, valid and test.
        """
        obtain(self.title, root / self.folder, self.missing(root), self.fetch)
        tables, source = {}, hashlib.sha256()
        for name in self.names:
            path = root / self.folder / name
            content = path.read_bytes()
            source.update(f"{name} {len(content)}\n".encode() + content)
            tables[path.name.removesuffix(".csv.gz")] = Table(path, content)
        return read_once(
            f"{self.folder}-v{version}-{source.hexdigest()[:12]}.npz",
            [root / self.folder, cache_folder()],
            lambda: parse(tables),
        )

    def fetch(self, scratch: Path) -> Path:
        content = published(self.url)
        try:
            zipfile.ZipFile(io.BytesIO(content)).extractall(scratch)
        except zipfile.BadZipFile as error:
            raise OSError(f"{self.url} sent {len(content):,} bytes that are no archive") from error
        return scratch / self.url.rpartition("/")[2].removesuffix(".zip")


@dataclass(frozen=True)
class Table:
    """One packed file of comma-separated numbers.

    Args:
        path: for messages.
        content: as it lies on the disk.
    """

    path: Path
    content: bytes

    def read(self, dtype: type, *, columns: int, rows: int | None = None) -> np.ndarray:
        """The numbers, (rows, columns).

        Raises:
            ValueError: the file is damaged, or has another form.
        """
        import pandas

        try:
            text = gzip.decompress(self.content)
            values = pandas.read_csv(io.BytesIO(text), header=None, dtype=dtype).to_numpy(copy=True)
        except (OSError, EOFError, zlib.error, ValueError, csv.Error) as error:
            raise self.damaged(last_line(error)) from error
        if values.shape[1] != columns or rows not in (None, len(values)):
            expected = "any number of" if rows is None else f"{rows:,}"
            raise self.damaged(
                f"{len(values):,} rows of {values.shape[1]} numbers, not {expected} rows of {columns}"
            )
        return values

    def within(self, values: np.ndarray, limits: int | np.ndarray, what: str) -> np.ndarray:
        """The same values, if each is from 0 to below its limit.

        Raises:
            ValueError: one is not, with the first of them.
        """
        wrong = np.argwhere((values < 0) | (values >= limits))
        if len(wrong):
            place = tuple(wrong[0])
            last = np.broadcast_to(limits, values.shape)[place] - 1
            raise self.damaged(
                f"row {place[0] + 1:,} has {what} {values[place]}, and there they go from 0 to {last:,}"
            )
        return values

    def damaged(self, reason: str) -> ValueError:
        return ValueError(
            f"{self.path} cannot be used: {reason}. Delete it and run again to download it anew."
        )
