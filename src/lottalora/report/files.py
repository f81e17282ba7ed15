"""The files of a report: what to say where they cannot be written, and which of an older report go."""

import contextlib
from collections.abc import Iterable
from collections.abc import Iterator
from pathlib import Path

from lottalora.results.atomic_write import write_whole

MANIFEST = "written_by_report.txt"  # in figures/: the names of the files that `report` wrote there


@contextlib.contextmanager
def naming_out(out: Path) -> Iterator[None]:
    """Say of an OSError inside which folder was written to, and how to choose another."""
    try:
        yield
    except OSError as error:
        first = error.__cause__ if isinstance(error.__cause__, OSError) else error
        raise type(error)(
            f"Cannot write the report to {out}: {first.strerror or first}. Make room there, or choose a "
            "folder with --out DIR."
        ) from error


def remove_stale(folder: Path, written: Iterable[Path]) -> None:
    """Delete what an earlier report wrote into this folder and this one did not; note what this one wrote."""
    manifest = folder / MANIFEST
    before = manifest.read_text(encoding="utf-8").splitlines() if manifest.exists() else []
    now = {path.name for path in written}
    for name in before:
        if name not in now and Path(name).name == name:  # a name and no path, whoever edited the manifest
            (folder / name).unlink(missing_ok=True)
    write_whole(manifest, "".join(f"{name}\n" for name in sorted(now)))
