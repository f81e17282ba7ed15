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
import shlex
from collections.abc import Collection
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lottalora.results.atomic_write import flush_to
from lottalora.results.atomic_write import unwritable
from lottalora.results.atomic_write import write_whole
from lottalora.results.schema import DELETE
from lottalora.results.schema import SCHEMA
from lottalora.results.schema import Row
from lottalora.results.schema import check
from lottalora.results.schema import unusable
from lottalora.results.schema import upgraded
from lottalora.results.schema import wrong_type

__all__ = ["SCHEMA", "Row", "check_writable", "find", "path_of", "read", "read_all", "run_name", "write"]

NAME = re.compile(r"-([0-9a-f]{12})\.json$")
ROOM = 100_000  # bytes that a row may need
log = logging.getLogger(__name__)


def write(row: Mapping[str, Any], root: Path) -> Path:
    """Write a row under the results folder `root` and give its path: whole, or not at all.

    What is checked is what a reader would get, so a file that cannot be read is never written.

    Raises:
        ValueError: a key is missing, unknown or of the wrong type.
        OSError: the folder cannot be written; one sentence that names it.
    """
    row = without_non_finite(dict(row))
    path = path_of(row, root)
    text = json.dumps(row, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    try:
        check(json.loads(text), path)
    except ValueError as error:
        raise ValueError(str(error).replace(DELETE, "It was not written.")) from error
    write_whole(path, text)
    return path


def check_writable(row: Mapping[str, Any], root: Path) -> None:
    """Refuse, before hours of training, a row that no one could read, or a folder that cannot hold it.

    Needs only what the path is made of (see `path_of`).
    """
    if wrong := wrong_type(row):
        raise ValueError(f"The row of this run would be {wrong}. Type another value.")
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
    """Return the path of a row's file: a readable name, then the digest that makes it unique."""
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
    path = own_path(sorted(Path(root, "rows").glob(f"*/*/*-{digest}.json")), root)
    if path is not None:
        read_of(digest, path)
    return path


def is_done(digest: str, root: Path) -> bool:
    """Whether the row of this digest exists; if so, log where, its score and what to type next."""
    path = find(digest, root)
    if path is not None:
        row = read(path)
        score = "diverged" if row["diverged"] else f"{row['metric']} {row['score']:.4f}"
        log.info("done: %s: %s (force=true to run again). Next: %s", path, score, report_command(root))
    return path is not None


def log_end(row: Row, path: Path, *, hint: bool) -> None:
    """Log how a run ended and where its row lies; with `hint`, also the command that makes the report."""
    if row["diverged"]:
        log.warning("diverged in epoch %d: its loss, score or β is not finite: %s", row["epochs"], path)
        return
    log.info("%s %.4f, %.0f s: %s", row["metric"], row["score"], row["seconds"], path)
    if hint:
        log.info("next: %s", report_command(path.parents[3]))


def report_command(root: Path) -> str:
    """Return the command that makes tables and figures of the rows under this folder."""
    where = [] if Path(root) == Path("results") else ["--results", str(root)]
    return shlex.join(["python", "-m", "lottalora", "report", *where])


def read(path: Path) -> Row:
    """One row, checked against `Row`; a ValueError names the file and what is wrong with it."""
    try:
        text = Path(path).read_text(encoding="utf-8")
        row = upgraded(json.loads(text, parse_constant=refuse_constant))
    except json.JSONDecodeError as error:
        raise unusable(path, f"no valid JSON ({error.msg}, line {error.lineno})") from error
    except UnicodeDecodeError as error:
        raise unusable(path, "no UTF-8 text") from error
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, lists without end
        raise unusable(path, f"no valid JSON ({error})") from error
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror}.") from error
    check(row, path)
    return row


def refuse_constant(name: str) -> None:
    """Raise ValueError for NaN and ±∞, which no row holds and Python would read."""
    raise ValueError(f"{name} is no number")


def read_all(root: Path) -> tuple[list[Row], list[str]]:
    """All rows under the results folder `root`, ordered by path, and one sentence for each file left out.

    Of two files with one digest the one at its own path (see `path_of`) counts, whatever a copy says.
    """
    rows, problems = [], foreign_files(root)
    for digest, paths in files_by_digest(root).items():
        path = own_path(paths, root)
        problems += [
            f"{other} repeats the run {digest}, which is {path}: left out. Delete one of the two."
            for other in paths
            if other != path
        ]
        try:
            rows.append(read_of(digest, path))
        except ValueError as error:
            problems.append(str(error))
    return rows, problems


def files_by_digest(root: Path) -> dict[str, list[Path]]:
    """Digest → the files that bear it in their names, by path."""
    found: dict[str, list[Path]] = {}
    for path in json_files(root):
        if match := NAME.search(path.name):
            found.setdefault(match[1], []).append(path)
    return found


def foreign_files(root: Path) -> list[str]:
    """One sentence for each JSON file whose name is no row's."""
    return [
        f"{path} is no row: its name does not end in -DIGEST.json. Move it elsewhere, or delete it."
        for path in json_files(root)
        if not NAME.search(path.name)
    ]


def json_files(root: Path) -> list[Path]:
    """Return the paths of all row files below `root`, sorted."""
    return sorted(Path(root, "rows").glob("*/*/*.json"))


def own_path(paths: list[Path], root: Path) -> Path | None:
    """Return the one of these files at the path where its row would be written, or the first."""
    for path in paths if len(paths) > 1 else ():
        with contextlib.suppress(ValueError):
            if path_of(read(path), root) == path:
                return path
    return next(iter(paths), None)


def read_of(digest: str, path: Path) -> Row:
    """The row at this path, if it is the run that the name says."""
    row = read(path)
    if row["digest"] != digest:
        raise unusable(path, f"of the run {row['digest']}, against its name")
    return row


def read_done(root: Path, digests: Collection[str] | None = None) -> tuple[dict[str, Row], dict[str, str]]:
    """Digest → row of what is done, and digest → what is wrong with a file that cannot be read.

    Args:
        root: the results folder.
        digests: those asked for; None for all.
    """
    done, damaged = {}, {}
    for digest, paths in files_by_digest(root).items():
        if digests is None or digest in digests:
            try:
                done[digest] = read_of(digest, own_path(paths, root))
            except ValueError as error:
                damaged[digest] = str(error)
    return done, damaged


def without_non_finite(value: Any) -> Any:  # noqa: ANN401  any JSON value, at any depth
    """The same data with null for NaN and ±∞, which JSON cannot hold."""
    if isinstance(value, Mapping):
        return {key: without_non_finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_non_finite(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def precision_of(row: Row) -> str:
    """What the steps were computed in, in Lightning's words; "" for float32; its config may say auto."""
    last = row["device"].rpartition(", ")[2]
    return last if last in ("bf16-mixed", "16-mixed") else ""
