"""CSV of rows and of lines of numbers. Imports little, so that `lottalora rows` answers at once."""

import csv
import io
import math
from collections.abc import Iterable
from collections.abc import Mapping

from lottalora.results.rows import Row

ROW_COLUMNS = (
    "model", "size", "data", "sample", "mode", "init", "rank", "seed", "recipe", "metric", "score",
    "trainable", "full", "full_plus_adapters", "validation_score", "best_epoch", "diverged", "seconds",
    "device", "digest",
)  # fmt: skip


def rows_csv(rows: Iterable[Row]) -> str:
    """All rows, one a line, for `python -m lottalora rows`."""
    lines = [{key: (row | row["counts"])[key] for key in ROW_COLUMNS} for row in rows]
    return csv_text(lines, ROW_COLUMNS)


def csv_text(lines: list[Mapping], columns: Iterable[str] | None = None) -> str:
    """CSV with a header; an empty cell for what does not exist."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or list(lines[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: "" if is_nan(value) else value for key, value in line.items()} for line in lines)
    return text.getvalue()


def is_nan(value: object) -> bool:
    return isinstance(value, float) and math.isnan(value)
