"""What failed and why: RESULTS/failures/DIGEST.json, removed when the run succeeds."""

import contextlib
import json
import traceback
from collections.abc import Iterator
from collections.abc import Sequence
from datetime import UTC
from datetime import datetime
from pathlib import Path

from lottalora.errors import cause_of
from lottalora.results.atomic_write import write_whole


def path_of(digest: str, results: Path) -> Path:
    """Return the path of the failure record of the run with this digest."""
    return Path(results, "failures", f"{digest}.json")


@contextlib.contextmanager
def recorded(digest: str, results: Path, *, overrides: Sequence[str], log_file: Path) -> Iterator[None]:
    """Leave a record if the run inside fails, and remove an older one if it does not. The error goes on."""
    try:
        yield
    except Exception as error:
        record(
            digest,
            results,
            cause=cause_of(error),
            trace=traceback.format_exc(),
            overrides=overrides,
            log_file=log_file,
        )
        raise
    path_of(digest, results).unlink(missing_ok=True)


def record(
    digest: str, results: Path, *, cause: str, trace: str, overrides: Sequence[str], log_file: Path | None
) -> None:
    """Write one record, or none where the disk is full: the failure itself is what has to be seen."""
    content = {
        "digest": digest,
        "cause": cause,
        "overrides": list(overrides),
        "log": str(log_file) if log_file and log_file.exists() else "",
        "failed": datetime.now(UTC).isoformat(timespec="seconds"),
        "traceback": trace,
    }
    with contextlib.suppress(OSError):
        write_whole(path_of(digest, results), json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def read_all(results: Path) -> dict[str, dict]:
    """Digest → record; a damaged record is a failure whose cause nobody knows."""
    found = {}
    for path in sorted(Path(results, "failures").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        unknown = {"cause": f"unknown: {path} cannot be read", "overrides": [], "log": ""}
        found[path.stem] = unknown | (content if isinstance(content, dict) else {})
    return found
