"""The official files of a data set: found, downloaded, or refused in one clear line."""

import contextlib
import gzip
import hashlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
from dataclasses import dataclass
from dataclasses import field
from pathlib import Path

from lottalora.downloads import patience
from lottalora.messages import last_line


@dataclass(frozen=True, kw_only=True)
class Files:
    """The files that torchvision downloads for a data set, each checked by its MD5.

    Args:
        title: of the data set, in messages.
        loader: the class in torchvision.datasets that downloads it.
        folder: where the files lie below the root of the data set, as torchvision lays them out.
        sums: file name → MD5.
        packed: file name → MD5 of the same file as NAME.gz, which is taken where the file itself is not
            there; empty where there is no such thing.
        folders: further names, of folders full of files that no sum vouches for.
    """

    title: str
    loader: str
    folder: str
    sums: Mapping[str, str]
    packed: Mapping[str, str] = field(default_factory=dict)
    folders: Sequence[str] = ()

    def missing(self, root: Path) -> list[str]:
        folder = root / self.folder
        names = [name for name in (*self.sums, *self.folders) if not (folder / name).exists()]
        return [name for name in names if name not in self.packed or not (folder / f"{name}.gz").exists()]

    def present(self, root: Path) -> list[Path]:
        """The files and folders as they lie there, packed or not; those that are missing are left out."""
        folder = root / self.folder
        paths = [folder / name for name in (*self.sums, *self.folders)]
        paths += [folder / f"{name}.gz" for name in self.packed if not (folder / name).exists()]
        return [path for path in paths if path.exists()]

    def ensure(self, root: Path) -> None:
        """Download what is not there into a scratch folder, and put it in place when it is whole.

        Raises:
            FileNotFoundError: files are missing and cannot be downloaded.
        """
        obtain(
            self.title,
            root / self.folder,
            [f"{name}.gz" if name in self.packed else name for name in self.missing(root)],
            self.fetch,
        )

    def fetch(self, scratch: Path) -> Path:
        fetch(self.loader, str(scratch))
        return scratch / self.folder

    def read(self, root: Path, name: str) -> bytes:
        """The content of an official file, unpacked.

        Raises:
            ValueError: it is damaged.
        """
        path, expected = root / self.folder / name, self.sums[name]
        if not path.exists() and name in self.packed:
            path, expected = path.with_name(f"{name}.gz"), self.packed[name]
        content = path.read_bytes()
        if hashlib.md5(content, usedforsecurity=False).hexdigest() != expected:
            raise ValueError(
                f"{path} is damaged: its {len(content):,} bytes are not the official file (MD5 {expected}). "
                "Delete it and run again to download it anew."
            )
        return gzip.decompress(content) if path.suffix == ".gz" else content


def obtain(title: str, folder: Path, lacking: Sequence[str], fetch: Callable[[Path], Path]) -> None:
    """Download what is not there into a scratch folder, and put it in place when it is whole.

    Args:
        title: of the data set, in messages.
        folder: where the files belong, in a folder of the data set below that of all data.
        lacking: names of the files, below the folder.
        fetch: downloads to the scratch folder and gives the folder in it that stands for `folder`.

    Raises:
        FileNotFoundError: they cannot be downloaded.
    """
    if not lacking:
        return
    try:
        with tempfile.TemporaryDirectory() as scratch, patience(), contextlib.redirect_stdout(sys.stderr):
            fetched = fetch(Path(scratch))
            for name in lacking:
                put(fetched / name, folder / name)
    except (OSError, RuntimeError) as error:
        looked_for = ", ".join(lacking)
        raise FileNotFoundError(
            f"{title} is not at {folder} (looked for {looked_for}) and could not be downloaded "
            f"({last_line(error)}). Put the files there, or name the folder above {folder.parent.name}/ with "
            "paths.data=FOLDER or LOTTALORA_DATA; data.sample=true needs no network."
        ) from error


def fetch(loader: str, folder: str) -> None:
    """Download a data set into `folder` with torchvision's loader of that name."""
    from torchvision import datasets

    getattr(datasets, loader)(folder, download=True)


def put(source: Path, target: Path) -> None:
    """Copy a file or a folder in one step: another process sees all of it or nothing."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.{os.getpid()}")
    copy = shutil.copytree if source.is_dir() else shutil.copyfile
    copy(source, part)
    os.replace(part, target)
