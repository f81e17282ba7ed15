"""The file of learned weights that a run starts from, and its fingerprint, which the run's row holds.

A digest names these weights and not what the file holds, so two files of one name are told apart here.
"""

import functools
import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from lottalora.results.rows import Row

if TYPE_CHECKING:
    from omegaconf import DictConfig

KEY = "weights_fingerprint"  # of a row
SHOWN = 8  # digits of a fingerprint in a message


def fingerprint(cfg: "DictConfig") -> dict[str, str]:
    """The row's entry: the SHA-256 of the file of learned weights; nothing where a run starts at random."""
    path = weights_file(cfg)
    return {KEY: sha256(path)} if path and path.exists() else {}


def weights_file(cfg: "DictConfig") -> Path | None:
    """The file that the chosen size of the model names, or None."""
    settings = {**cfg.model.net, **cfg.model.sizes[cfg.model.size]}
    if settings.get("weights") is None:
        return None
    path = Path(settings["root"], settings["weights"])
    return path / "model.safetensors" if path.is_dir() else path


def sha256(path: Path) -> str:
    """64 hexadecimal digits over the content of a file."""
    state = path.stat()
    return _sha256(path, state.st_mtime_ns, state.st_size)


@functools.cache  # a sweep asks for the same file for each of its runs
def _sha256(path: Path, *_: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_same(row: Row, cfg: "DictConfig") -> None:
    """Refuse a finished row as that of this run where it came from another file of learned weights.

    Raises:
        ValueError: the file that is here is another one; names both.
    """
    here, there = fingerprint(cfg).get(KEY), row.get(KEY)
    if here and there and here != there:
        raise ValueError(
            f"The run {row['digest']} is done, with other learned weights than {weights_file(cfg)}: their "
            f"SHA-256 begins {there[:SHOWN]}, and that of this file {here[:SHOWN]}. Type force=true to "
            "replace its row, paths.results=DIR to keep both, or model.net.root=FOLDER for the folder it had."
        )
