"""Rows: one JSON file per finished run, written once and by rename; tables and figures read nothing else.

They lie at ``RESULTS/rows/MODEL_DATA/SIZE/NAME-DIGEST.json``. The digest covers everything that can change
the score, so parallel jobs never share a file, and a repeated command finds the row it would write.
"""

import contextlib
import json
import logging
import math
import re
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottalora.results import rows
from lottalora.results.atomic_write import flush_to
from lottalora.results.atomic_write import unwritable
from lottalora.results.atomic_write import write_whole
from lottalora.results.schema import SCHEMA
from lottalora.results.schema import Row
from lottalora.results.schema import check
from lottalora.results.schema import unusable
from lottalora.results.schema import upgraded

__all__ = ["SCHEMA", "Row", "check_writable", "find", "path_of", "read", "read_all", "run_name", "write"]

ROOM = 100_000  # bytes that a row may need
log = logging.getLogger(__name__)


def write(row: Mapping[str, Any], root: Path) -> Path:
    """Write a row under the results folder `root` and give its path: whole, or not at all.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type.
        OSError: the folder cannot be written; one sentence that names it.
    """
    row = without_non_finite(dict(row))
    path = path_of(row, root)
    check(row, path)
    text = json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_whole(path, text)
    return path


def check_writable(row: Mapping[str, Any], root: Path) -> None:
    """Refuse, before hours of training, a folder in which this row could not be written.

    Needs only what the path is made of (see `path_of`).
    """
    folder = path_of(row, root).parent
    probe = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        flush_to(probe, bytes(ROOM))
    except OSError as error:
        raise unwritable(error, folder) from error
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)


def path_of(row: Mapping[str, Any], root: Path) -> Path:
    """Where this row lies: a readable name for people, then the digest that makes it unique."""
    rank = None if row["rank"] is None else f"r{row['rank']}"
    sample = "sample" if row["sample"] else ""
    words = [row["mode"], rank, row["init"], f"s{row['seed']}", sample]
    name = "_".join(str(word) for word in words if word)
    parts = (f"{row['model']}_{row['data']}", str(row["size"]), f"{name}-{row['digest']}.json")
    return Path(root, "rows", *(re.sub(r"[^\w.+=-]", "_", part) for part in parts))


def run_name(row: Mapping[str, Any]) -> str:
    """The name of the run's folder under RESULTS/runs, which holds its checkpoint and its log."""
    path = path_of(row, Path())
    return "-".join([*path.parts[1:-1], path.stem])


def run_folder(row: Mapping[str, Any], root: Path) -> Path:
    """The folder of a run, RESULTS/runs/NAME: its checkpoint, log and offline W&B runs."""
    return Path(root, "runs", run_name(row))


def find(digest: str, root: Path) -> Path | None:
    """The row of this digest, read as a check, or None. A damaged one is an error, not a finished run."""
    path = next(iter(sorted(Path(root, "rows").glob(f"*/*/*-{digest}.json"))), None)
    if path is not None:
        read(path)
    return path


def is_done(digest: str, root: Path) -> bool:
    """Whether the row of this digest exists; if so, log where."""
    path = find(digest, root)
    if path is not None:
        log.info("done%s: %s (force=true to run again)", ", diverged" if diverged(path) else "", path)
    return path is not None


def read(path: Path) -> Row:
    """One row, checked against `Row`; a ValueError names the file and what is wrong with it."""
    try:
        row = upgraded(json.loads(Path(path).read_text(encoding="utf-8")))
    except json.JSONDecodeError as error:
        raise unusable(path, f"no valid JSON ({error.msg}, line {error.lineno})") from error
    except UnicodeDecodeError as error:
        raise unusable(path, "no UTF-8 text") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    check(row, path)
    return row


def read_all(root: Path) -> tuple[list[Row], list[str]]:
    """All rows under the results folder `root`, ordered by path, and one sentence for each file left out."""
    rows: dict[str, Row] = {}
    problems = []
    for path in sorted(Path(root, "rows").glob("*/*/*.json")):
        try:
            row = read(path)
        except ValueError as error:
            problems.append(str(error))
            continue
        if row["digest"] in rows:
            problems.append(f"{path} repeats the run {row['digest']}: left out. Delete one of the two.")
            continue
        rows[row["digest"]] = row
    return list(rows.values()), problems


def without_non_finite(value: Any) -> Any:  # noqa: ANN401  any JSON value, at any depth
    """The same data with null for NaN and ±∞, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: without_non_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def row_paths(results: Path) -> dict[str, Path]:
    """Digest → row, by the names of the files alone."""
    return {path.stem.rpartition("-")[2]: path for path in Path(results, "rows").glob("*/*/*.json")}


def readable(path: Path) -> bool:
    try:
        rows.read(path)
    except ValueError:
        return False
    return True


def diverged(path: Path) -> bool:
    """Whether the run of this row diverged; an unreadable row says nothing."""
    try:
        return read(path)["diverged"]
    except ValueError:
        return False
