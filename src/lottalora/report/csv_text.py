"""CSV of rows and of lines of numbers. Imports little, so that `lottalora rows` answers at once."""

import csv
import io
import math
from collections.abc import Collection
from collections.abc import Iterable
from collections.abc import Mapping

from lottalora.report.grouping import removed_score
from lottalora.report.grouping import row_options
from lottalora.results.ancestry import commit_state
from lottalora.results.rows import Row

ROW_COLUMNS = (
    "model", "size", "data", "sample", "mode", "init", "rank", "seed", "recipe", "metric", "score",
    "trainable", "full", "full_plus_adapters", "validation_score", "best_epoch", "diverged", "seconds",
    "device", "digest", "alpha", "options", "scaffold_removed", "commit", "commit_state",
)  # fmt: skip


def rows_csv(rows: Iterable[Row], lost: Collection[str] = ()) -> str:
    """All rows, one a line, for `python -m lottalora rows`; `lost`: commits that no history here has."""
    lines = [row | row["counts"] | told_apart(row, lost) for row in rows]
    return csv_text([{key: line[key] for key in ROW_COLUMNS} for line in lines], ROW_COLUMNS)


def told_apart(row: Row, lost: Collection[str]) -> dict:
    """Return the columns that tell otherwise equal runs apart."""
    state = commit_state(row["commit"], lost)
    return {"options": row_options(row), "scaffold_removed": removed_score(row), "commit_state": state}


def csv_text(lines: list[Mapping], columns: Iterable[str] | None = None) -> str:
    """CSV with a header; an empty cell for what does not exist."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {key: "" if value is None or is_nan(value) else value for key, value in line.items()}
        for line in lines
    )
    return text.getvalue()


def is_nan(value: object) -> bool:
    """Return whether the value is a float NaN."""
    return isinstance(value, float) and math.isnan(value)
