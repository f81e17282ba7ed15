"""Records of failed runs: RESULTS/failures/DIGEST.json, removed when the run succeeds."""

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
    """Write a record if the block raises, and re-raise; remove an older record if it does not."""
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
    """Write one record; on a full disk write none, so that the failure itself is reported."""
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
    """Return digest → record; a damaged record counts as a failure of unknown cause."""
    found = {}
    for path in sorted(Path(results, "failures").glob("*.json")):
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            content = {}
        unknown = {"cause": f"unknown: {path} cannot be read", "overrides": [], "log": ""}
        found[path.stem] = unknown | (content if isinstance(content, dict) else {})
    return found
