"""Cache of parsed arrays, in a file named after the hash of what they were made from."""

import io
import logging
import os
import zipfile
from collections.abc import Callable
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lottalora.results.atomic_write import write_whole

log = logging.getLogger(__name__)
Arrays = dict[str, np.ndarray]


def cache_folder() -> Path:
    """Return the suite's cache folder of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lottalora"


def read_once(name: str, folders: Sequence[Path], make: Callable[[], Arrays]) -> Arrays:
    """The arrays kept under `name` in one of the folders, or made now and kept in the first that takes them.

    Several processes may do this at once: a file appears whole, by rename. One that cannot be read is made
    anew; where no folder can be written, the arrays are made at every call, which is said.

    Args:
        name: of the file; it must change with whatever the arrays are made from.
        folders: where it may lie, the preferred one first.
        make: called where no folder holds it.
    """
    for folder in folders:
        try:
            with np.load(folder / name, allow_pickle=False) as kept:
                return dict(kept)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            continue
    arrays, buffer = make(), io.BytesIO()
    np.savez(buffer, **arrays)
    keep(name, folders, buffer.getvalue())
    return arrays


def keep(name: str, folders: Sequence[Path], content: bytes) -> None:
    """Write a file to the first folder that can be written; warn where none can."""
    for folder in folders:
        try:
            write_whole(folder / name, content)
            return
        except OSError:
            continue
    log.warning("%s cannot be kept in %s: it is made anew by each run.", name, " or ".join(map(str, folders)))
